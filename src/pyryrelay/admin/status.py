"""``GET /status``: the figures of a running relay as one JSON object; see docs/reference/admin-api.md.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyryrelay import __version__
from pyryrelay.config.groups import ADMISSION, JAIL, LIMITS, QUOTAS
from pyryrelay.config.settings import SharedSettings
from pyryrelay.observe.sampling import Sampler

__all__ = ["LIMIT_GROUPS", "CertificateStatus", "Status", "limits_of"]

LIMIT_GROUPS: Final = (ADMISSION, QUOTAS, LIMITS, JAIL)
"""The groups of options that ``limits`` is about."""


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """A certificate in use: its names, when it expires in seconds since 1970, and where it comes from."""

    names: Sequence[str]
    expires_at: float
    source: str


def limits_of(settings: SharedSettings) -> dict[str, str]:
    """Return the limits in force: the name and the value of each option that is about them."""
    return {
        option.name: " ".join(option.type.write(getattr(settings, option.field)))
        for option in settings.options()
        if option.group in LIMIT_GROUPS and not option.secret
    }


@dataclass(frozen=True, slots=True)
class Status:
    """Makes the object. ``uptime_s`` returns the seconds since the start, ``limits`` those in force.

    ``cluster`` returns what is wrong with the cluster; it is None without one, and the object has no such key then.
    """

    sampler: Sampler
    uptime_s: Callable[[], float]
    is_draining: Callable[[], bool]
    limits: Callable[[], Mapping[str, str]]
    certificates: Callable[[], Sequence[CertificateStatus]] = tuple
    cluster: Callable[[], Mapping[str, Any]] | None = None

    def object(self) -> dict[str, Any]:
        """Return the object."""
        sample = self.sampler.look()
        received, sent = sample.messages
        bytes_in, bytes_out = sample.bytes
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": "draining" if self.is_draining() else "running",
            "uptime_s": round(self.uptime_s(), 3),
            "connections": dict(sample.connections),
            "handshakes": sample.handshakes,
            "admitted": dict(sample.admitted),
            "refused": dict(sample.refused),
            "messages": {"in": received, "out": sent},
            "bytes": {"in": bytes_in, "out": bytes_out},
            "tracked": sample.tracked,
            "jailed": sample.jailed,
            "memory_bytes": sample.memory_bytes,
            "cpu_s": round(sample.cpu_s, 3),
            "reactor_lag_s": round(sample.reactor_lag_s, 6),
            "decision_s": self.sampler.decision_s,
            "connections_per_address": self.sampler.per_address(),
            "certificates": self._certificates(),
            **({} if self.cluster is None else {"cluster": dict(self.cluster())}),
            "limits": dict(self.limits()),
            "protocols": {name: dict(figures) for name, figures in sample.protocols.items()},
        }

    def _certificates(self) -> list[dict[str, Any]]:
        """Return each certificate once, however many listeners have it."""
        found = {(tuple(one.names), one.expires_at, one.source): None for one in self.certificates()}
        return [{"names": list(names), "expires_at": end, "source": source} for names, end, source in found]
