"""How the applications of protocols get their WebSocket connections. Times are seconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pyryrelay.guard import Gate
from pyryrelay.mounts import MountedSettings
from pyryrelay.protocol import RunningProtocol
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.service.foundation import Times
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.factory import RelayFactory
from pyryrelay.websocket.reading.read_size import WideReadSlot

__all__ = ["mounted"]


def mounted(
    protocols: Sequence[RunningProtocol[Any]],
    settings: MountedSettings,
    times: Times,
    gate: Gate,
    wheel: TimerWheel,
    now: Callable[[], float],
    fair_queue: FairQueue,
) -> dict[str, RelayFactory]:
    """Make a factory for each application, and return it at the paths of its protocol."""
    limits = WebSocketLimits(
        message_timeout_s=times.message_timeout_s,
        ping_interval_s=settings.ping_interval_s if times.ping_interval_s is None else times.ping_interval_s,
        pong_timeout_s=times.pong_timeout_s,
        close_timeout_s=times.close_timeout_s,
    )
    policies, wide_slot = settings.routes(), WideReadSlot()
    applications = {path: app for protocol in protocols for path, app in protocol.routes.items()}
    factories = {
        app.name: RelayFactory(app, policies[app.name], limits, gate, wheel, now, fair_queue, wide_slot)
        for app in applications.values()
    }
    return {path: factories[app.name] for path, app in applications.items()}
