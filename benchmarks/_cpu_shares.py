"""Give processes the same share of a core by the kernel's CPU controller, so that they can be measured by the clock.

With two cores, a load generator takes one of them, and two workers share the other one with each other. Limited to a
fraction of a core each, they have what two cores would give them, only less of it. Each process gets a control group of
its own, in version 1 (``cpu.cfs_quota_us``) or 2 (``cpu.max``). Groups are removed at the end of the block, also after
an error, and those of a benchmark that was killed are removed by the next one.

The controller does not limit processes of real-time priority, so these get normal priority first. Times are seconds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["PERIOD_S", "Controller", "ControllerError", "find_controller", "limited", "schedule_normally"]

PERIOD_S = 0.1
"""In each such time, a process may use its share of it. Measure for several of them. This is the kernel's default; in a
shorter one, processes are stopped and woken up more often, which costs them time."""
REMOVE_S = 5.0
MOUNTS = Path("/proc/self/mounts")
PREFIX = "pyryrelay-bench-"


class ControllerError(Exception):
    """The kernel's CPU controller cannot be used; says why."""


class Controller:
    """The CPU controller at the root of a hierarchy of control groups, of version 1 or 2."""

    def __init__(self, root: Path, version: int) -> None:
        self.root = root
        self.version = version
        self._has_enabled = False

    def enable(self) -> None:
        """Offer the controller to groups, which version 2 does not do by itself. Raises `OSError`."""
        subtree = self.root / "cgroup.subtree_control"
        if self.version == 2 and "cpu" not in subtree.read_text(encoding="ascii").split():
            subtree.write_text("+cpu", encoding="ascii")
            self._has_enabled = True

    def disable(self) -> None:
        """Undo `enable`."""
        if self._has_enabled:
            self._has_enabled = False
            with contextlib.suppress(OSError):
                (self.root / "cgroup.subtree_control").write_text("-cpu", encoding="ascii")

    def limit(self, group: Path, share: float) -> None:
        """Limit a group to a share of one core, which it gets before other programs. Raises `OSError`."""
        period_us = round(PERIOD_S * 1e6)
        quota_us = round(share * period_us)
        if self.version == 2:
            values = {"cpu.max": f"{quota_us} {period_us}", "cpu.weight": "10000"}
        else:
            values = {"cpu.cfs_period_us": f"{period_us}", "cpu.cfs_quota_us": f"{quota_us}", "cpu.shares": "262144"}
        for name, value in values.items():
            (group / name).write_text(value, encoding="ascii")

    def remove(self, group: Path) -> None:
        """Move a group's processes back, and remove it. Processes that are about to end may take a moment."""
        end_s = time.monotonic() + REMOVE_S
        while group.exists():
            with contextlib.suppress(OSError):
                for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                    with contextlib.suppress(OSError):
                        (self.root / "cgroup.procs").write_text(pid, encoding="ascii")
            try:
                group.rmdir()
            except OSError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.01)

    def remove_left_over(self) -> None:
        """Remove the groups of benchmarks that do not run any more."""
        for group in self.root.glob(f"{PREFIX}*"):
            owner = group.name.removeprefix(PREFIX).partition("-")[0]
            if not Path(f"/proc/{owner}").exists():
                self.remove(group)


def find_controller(mounts: str | None = None) -> Controller:
    """Return the controller of this machine. Raises `ControllerError`. ``mounts`` is the text of /proc/self/mounts."""
    lines = (MOUNTS.read_text(encoding="utf-8") if mounts is None else mounts).splitlines()
    for _, place, kind, options, *_ in map(str.split, lines):
        if kind == "cgroup" and "cpu" in options.split(","):
            return Controller(Path(place), 1)
        offered = Path(place) / "cgroup.controllers"
        if kind == "cgroup2" and offered.exists() and "cpu" in offered.read_text(encoding="ascii").split():
            return Controller(Path(place), 2)
    raise ControllerError("no hierarchy of control groups has the kernel's CPU controller")


def schedule_normally(pids: Sequence[int]) -> None:
    """Take real-time priority from processes. Raises `OSError`."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def limited(shares: Mapping[int, float], controller: Controller | None = None) -> Iterator[None]:
    """Limit processes, given by their numbers, to shares of a core within the block. Raises `ControllerError`."""
    controller = controller or find_controller()
    groups: list[Path] = []
    try:
        try:
            controller.remove_left_over()
            controller.enable()
            for pid, share in shares.items():
                group = controller.root / f"{PREFIX}{os.getpid()}-{pid}"
                group.mkdir()
                groups.append(group)
                controller.limit(group, share)
                (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
        except OSError as error:
            raise ControllerError(f"{error.filename or controller.root}: {error.strerror}") from error
        yield
    finally:
        for group in groups:
            controller.remove(group)
        controller.disable()
