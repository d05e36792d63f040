"""The assembly: the only module that knows every room.

`build` turns settings into a service that any Twisted program can run; twistd calls `makeService`.
Nothing here is global: the reactor and the clock come in by argument. The clock is monotonic; all times are seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from pyryrelay import __version__
from pyryrelay.application import Page
from pyryrelay.endpoints import Endpoint
from pyryrelay.guard import Gate, GateConfig, LeaseLimits, TrustPolicy
from pyryrelay.ops.admin import admin_site
from pyryrelay.ops.health import Health
from pyryrelay.ops.logs import INTERVAL_S, EventLog
from pyryrelay.ops.metrics import CONTENT_TYPE, RefusalCounter, RelayCollector, exposition
from pyryrelay.ops.preflight import files_needed, raise_open_files
from pyryrelay.options import Options
from pyryrelay.pyry.registry import Registry
from pyryrelay.pyry.relay import Relay
from pyryrelay.settings import Settings
from pyryrelay.wire.entrance import HEAD_TIMEOUT_S, EntranceConfig, EntranceFactory
from pyryrelay.wire.websocket import RelayFactory, WebSocketLimits
from pyryrelay.wire.wheel import Wheel

__all__ = ["Options", "RelayService", "Times", "build", "makeService"]

_log = Logger(namespace="pyryrelay")

SWEEP_S = 0.25
BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn."""

DRAIN_POLL_S = 0.05

BINARY_PATHS = ("/v1/server", "/v2/server")
PHONE_PATHS = ("/v1/client", "/v2/client")


@dataclass(frozen=True, slots=True)
class Times:
    """The specification's times that are no options; tests shorten them."""

    head_timeout_s: float = HEAD_TIMEOUT_S
    message_timeout_s: float = 30.0
    ping_interval_s: float = 30.0
    pong_timeout_s: float = 30.0
    close_timeout_s: float = 5.0
    probe_s: float = 10.0
    drain_s: float = 10.0


class ListenError(Exception):
    """An endpoint cannot be listened on. The text is one line that names option, value and fix."""


class RelayService(Service):
    """A running relay: its listeners, its periodic work, and an orderly end.

    ``exit_on_listen_error`` makes a listener that cannot be had end the process with one line, as twistd needs it.
    """

    def __init__(self, settings: Settings, reactor: Any, now: Callable[[], float], times: Times) -> None:
        self.settings = settings
        self._reactor = reactor
        self._now = now
        self._times = times
        self._ports: list[IListeningPort] = []
        self._admin_port: IListeningPort | None = None
        self._drain_until = float("inf")
        self._loops: list[LoopingCall] = []
        self._assemble()

    # Assembly

    def _assemble(self) -> None:
        settings, reactor, now, times = self.settings, self._reactor, self._now, self._times
        self.gate = Gate(_gate_config(settings))
        self.log = EventLog(settings.log_client_address, now)
        self.registry = Registry(grace_s=settings.grace_s, max_phones=settings.max_phones, probe_s=times.probe_s)
        self.relay = Relay(self.registry, self.log, now, reactor.callLater)
        self.health = Health(self.registry, now, started_at=now())
        self.refusals = RefusalCounter(self.relay, self.log)
        self.wheel = Wheel(reactor, now)
        limits = WebSocketLimits(
            message_bytes=settings.max_message_bytes,
            message_timeout_s=times.message_timeout_s,
            ping_interval_s=times.ping_interval_s,
            pong_timeout_s=times.pong_timeout_s,
            close_timeout_s=times.close_timeout_s,
        )
        self.factories = [
            RelayFactory(application, self.gate, self.wheel, reactor, now, limits)
            for application in (self.relay.binaries, self.relay.phones)
        ]
        binaries, phones = self.factories
        self._routes = dict.fromkeys(BINARY_PATHS, binaries) | dict.fromkeys(PHONE_PATHS, phones)
        self._entrances: list[EntranceConfig] = []

    def entrance(self, *, behind_proxy_protocol: bool = False) -> EntranceFactory:
        """The factory for one public listener."""
        config = EntranceConfig(
            gate=self.gate,
            trust=_trust(self.settings),
            routes=self._routes,
            pages={"/healthz": self.health.page},
            observer=self.refusals,
            wheel=self.wheel,
            now=self._now,
            behind_proxy_protocol=behind_proxy_protocol,
            head_timeout_s=self._times.head_timeout_s,
        )
        self._entrances.append(config)
        return EntranceFactory(config)

    def _admin_pages(self) -> dict[str, Callable[[], Page]]:
        collector = RelayCollector(self.relay, self.gate, self.refusals, lambda: self._now() - self.health.started_at)
        scrape = exposition([collector])
        return {
            "/healthz": self.health.page,
            "/metrics": lambda: Page(200, (("Content-Type", CONTENT_TYPE),), scrape()),
        }

    # Start

    def privilegedStartService(self) -> None:
        """Listen, while privileges last: ports under 1024 need them."""
        super().privilegedStartService()
        for text in self.settings.listen:
            factory = self.entrance(behind_proxy_protocol=text.lower().startswith("haproxy:"))
            self._ports.append(self._listen("--listen", text, factory))
        if self.settings.admin_listen:
            site = admin_site(self._admin_pages(), self._reactor)
            self._admin_port = self._listen("--admin-listen", self.settings.admin_listen, site)

    def _listen(self, option: str, text: str, factory: Any) -> IListeningPort:
        """Listen on one endpoint. Raises `ListenError`."""
        outcome: list[Any] = []
        maybeDeferred(lambda: serverFromString(self._reactor, _roomy(text)).listen(factory)).addBoth(outcome.append)
        port = outcome[0] if outcome else None
        if IListeningPort.providedBy(port):
            return port
        error = getattr(port, "value", port)
        cause = error.socketError if isinstance(error, CannotListenError) else error
        raise ListenError(f"{option} {text!r}: cannot listen: {cause}; stop whoever has it, or choose another endpoint")

    def startService(self) -> None:
        """Begin the periodic work, and say where the relay can be reached."""
        if not self._ports:
            self.privilegedStartService()
        super().startService()
        warning = raise_open_files(files_needed(self.gate.leases.limits))
        for line in [*self.settings.warnings(), *([warning] if warning else [])]:
            _log.warn("{warning}", warning=line)
        self._loops = [LoopingCall(self._sweep), LoopingCall(self.log.sweep)]
        for loop, interval_s in zip(self._loops, (SWEEP_S, INTERVAL_S), strict=True):
            loop.clock = self._reactor
            loop.start(interval_s, now=False)
        for text in self.settings.listen:
            _log.info("pyryrelay {version} listens on {endpoint}", version=__version__, endpoint=text)
        if self.settings.admin_listen:
            _log.info("metrics on {endpoint}", endpoint=self.settings.admin_listen)

    def _sweep(self) -> None:
        self.gate.sweep(self._now())

    # Stop

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, close everyone with 1001, drain for a bounded time, cut off who is left."""
        super().stopService()
        self.health.draining = True
        for config in self._entrances:
            config.draining = True
        for port in self._ports:
            yield maybeDeferred(port.stopListening)
        count = sum(len(factory.open) for factory in self.factories)
        _log.info("shutting down, {count} connections to close", count=count)
        for factory in self.factories:
            factory.shut_down()
        yield self._drained()
        self._cut_off()
        for loop in self._loops:
            loop.stop()
        self.relay.stop()
        if self._admin_port is not None:
            yield maybeDeferred(self._admin_port.stopListening)

    @inlineCallbacks
    def _drained(self) -> Any:
        self._drain_until = min(self._drain_until, self._now() + self._times.drain_s)
        while any(factory.open for factory in self.factories) and self._now() < self._drain_until:
            yield deferLater(self._reactor, DRAIN_POLL_S)

    def hurry(self) -> None:
        """Do not wait for peers any longer."""
        self._drain_until = self._now()

    def _cut_off(self) -> None:
        for factory in self.factories:
            factory.abort()
        for config in self._entrances:
            for entrance in list(config.waiting):
                entrance.shut_down()


def _roomy(endpoint: str) -> str:
    """The endpoint with an accept queue that a flood does not overflow at once, where it does not say itself."""
    scheme = Endpoint.parse(endpoint).scheme
    if scheme not in ("tcp", "tcp6", "ssl", "unix") or "backlog=" in endpoint:
        return endpoint
    return f"{endpoint}:backlog={BACKLOG}"


def _gate_config(settings: Settings) -> GateConfig:
    return GateConfig(
        upgrade_quota=settings.upgrade_quota,
        max_tracked=settings.max_tracked,
        limits=LeaseLimits(
            max_connections=settings.max_connections,
            max_connections_per_address=settings.max_connections_per_address,
        ),
        allow=settings.allow,
        deny=settings.deny,
    )


def _trust(settings: Settings) -> TrustPolicy:
    return TrustPolicy(
        trust_forwarded=settings.trust_x_forwarded_for,
        proxies=settings.trusted_proxy.networks,
        trust_unix=settings.trusted_proxy.unix,
        ipv6_prefix=settings.ipv6_prefix,
    )


def build(
    settings: Settings,
    reactor: Any,
    now: Callable[[], float] = time.monotonic,
    times: Times = Times(),
) -> RelayService:
    """A service that is ready to start; it listens on nothing yet."""
    return RelayService(settings, reactor, now, times)


class _TwistdService(RelayService):
    """The relay as twistd runs it: failures to listen end the process, and so does a signal, with exit code 0."""

    twistd_options: Mapping[str, Any] = MappingProxyType({})
    _ending = False

    def privilegedStartService(self) -> None:
        """Listen, or end the process with one line and exit code 2."""
        try:
            super().privilegedStartService()
        except ListenError as error:
            _log.critical("{warning}", warning=str(error))
            self._give_up(f"pyryrelay: {error}")
            raise SystemExit(2) from None

    def _give_up(self, line: str) -> None:
        """Tell whoever started this process that it will not run, and leave nothing behind."""
        if sys.__stderr__ is not None:  # sys.stderr is the log by now
            sys.__stderr__.write(f"{line}\n")
        if pidfile := self.twistd_options.get("pidfile"):
            Path(pidfile).unlink(missing_ok=True)
        status_pipe = self.twistd_options.get("statusPipe")
        if status_pipe is not None:
            # The parent of a daemon waits for a word from it, of at most 100 bytes, and cannot see it end.
            os.write(status_pipe, f"1 {line}".encode("ascii", "backslashreplace")[:100])

    def startService(self) -> None:
        """Start, and take over the signals once the reactor has installed its own handlers."""
        super().startService()
        self._reactor.callWhenRunning(self._handle_signals)

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: object) -> None:
        """The reactor's own handlers would end the process by the signal; an orderly end is a success."""
        self._reactor.callFromThread(self._end)

    def _end(self) -> None:
        """Stop, and on being told again stop waiting for peers."""
        if self._ending:
            self.hurry()
        else:
            self._ending = True
            self._reactor.stop()


def makeService(options: Options, reactor: Any = None) -> IService:
    """The service for twistd. Called after the options were parsed and the reactor was chosen."""
    if reactor is None:
        from twisted.internet import reactor
    service = _TwistdService(options.settings, reactor, time.monotonic, Times())
    service.twistd_options = options.parent or {}
    service.setName("pyryrelay")
    return service
