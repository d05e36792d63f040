"""The assembly: the only module that knows every room.

`build` turns settings into a service that any Twisted program can run; `pyryrelay.start.twistd` has the one that twistd
runs. It knows protocols as the list that the settings name, and each room by one method: what follows from the settings
goes to its ``configure``, at the start and at every reload.

Nothing here is global: the reactor and the clock come in by argument. The clock is monotonic; all times are seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pyryrelay.mounts import MountedSettings
from pyryrelay.service.foundation import Times
from pyryrelay.service.relay import SWEEP_S, RelayService

__all__ = ["SWEEP_S", "RelayService", "Times", "build"]


def build(
    settings: MountedSettings,
    reactor: Any,
    now: Callable[[], float] = time.monotonic,
    times: Times | None = None,
) -> RelayService:
    """A service that is ready to start; it listens on nothing yet."""
    return RelayService(settings, reactor, now, times or Times())
