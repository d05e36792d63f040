"""The user that the relay runs as, and the privileges of this process."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyryrelay.config.endpoints import Endpoint
from pyryrelay.config.settings import SharedSettings
from pyryrelay.preflight.checks import CAPABILITIES, ROOT
from pyryrelay.protocol_options import Finding

__all__ = ["Account", "capabilities_of", "privileges"]

_STATUS: Final = Path("/proc/self/status")
_UNPRIVILEGED: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
# fmt: off
_NAMES: Final = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
# fmt: on
"""Names of the capabilities, in the order of their bits (``include/uapi/linux/capability.h``)."""
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Account:
    """The user and the groups that the relay runs as once its ports are open."""

    uid: int
    gids: frozenset[int]

    @classmethod
    def of(cls, twistd_options: Mapping[str, Any]) -> Account:
        """Return the account that ``--uid`` and ``--gid`` of twistd name, by default the current one."""
        uid, gid = twistd_options.get("uid"), twistd_options.get("gid")
        if uid is None:
            return cls(os.geteuid(), frozenset({os.getegid() if gid is None else gid, *os.getgroups()}))
        try:
            entry = pwd.getpwuid(uid)
            groups = os.getgrouplist(entry.pw_name, entry.pw_gid if gid is None else gid)
        except KeyError:
            groups = []
        return cls(uid, frozenset(groups if gid is None else [*groups, gid]))

    @property
    def name(self) -> str:
        """The name of the user, or its number if it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def may_write(self, path: Path) -> bool:
        """Return whether this account may write to a file or folder, by its permission bits. Root always may."""
        if self.uid == 0:
            return True
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.gids else 0
        needed = 0o3 if path.is_dir() else 0o2
        return (found.st_mode >> shift) & needed == needed


def privileges(settings: SharedSettings, twistd_options: Mapping[str, Any]) -> Iterator[Finding]:
    """Find that the relay will run as root, or with capabilities that it does not need."""
    if Account.of(twistd_options).uid == 0:
        fix = "give --uid (to twistd before pyryrelay, or to pyryrelay run), or start it as another user"
        yield Finding(ROOT, "user root", "a flaw in the relay would give away this machine", fix)
        return
    if os.geteuid() == 0:
        # The system takes all capabilities away when twistd becomes another user.
        return
    surplus = sorted(capabilities_of() - _needed(settings))
    if surplus:
        others = f" and {len(surplus) - _SHOWN} more" if len(surplus) > _SHOWN else ""
        what = f"capabilities {', '.join(f'CAP_{name}' for name in surplus[:_SHOWN])}{others}"
        needed = ", ".join(f"CAP_{name}" for name in sorted(_needed(settings))) or "none"
        fix = f"keep {needed}: set AmbientCapabilities= in systemd, or start it with setpriv --ambient-caps"
        yield Finding(CAPABILITIES, what, "the relay needs them for nothing, and a flaw would give them away", fix)


def capabilities_of(status: Path = _STATUS) -> set[str]:
    """Return the names of the effective capabilities of a process; none where the system does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("CapEff:"):
                bits = int(line.split()[1], 16)
                return {name for number, name in enumerate(_NAMES) if bits >> number & 1}
    return set()


def _needed(settings: SharedSettings) -> set[str]:
    """Return the capabilities that the settings may need."""
    needed = {"NET_ADMIN"} if settings.kernel_drop else set[str]()
    ports = [Endpoint.parse(text).port for text in (*settings.listen, settings.admin_listen, settings.cluster_listen)]
    try:
        first = int(_UNPRIVILEGED.read_text(encoding="ascii"))
    except (OSError, ValueError):
        first = 1024
    if any(port is not None and port.isdigit() and 0 < int(port) < first for port in ports):
        needed.add("NET_BIND_SERVICE")
    return needed
