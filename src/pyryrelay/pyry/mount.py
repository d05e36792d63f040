"""The pyry protocol as the relay mounts it: an implementation of `pyryrelay.protocol.ProtocolKind`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred

from pyryrelay.guard import ClientAddress
from pyryrelay.protocol import Action, Application, Figure, Named, Panel, Predecessor, Rule, Services
from pyryrelay.protocol_options import Check, Finding, Probe, RoutePolicy
from pyryrelay.pyry.applications import REFUSAL_WORDS, BinaryApplication, PhoneApplication
from pyryrelay.pyry.handover.arriving import Arriving
from pyryrelay.pyry.handover.moving import Moving, held
from pyryrelay.pyry.log import LOG_FIELDS, PyryLog
from pyryrelay.pyry.metrics import PANEL, PyryCollector, figures
from pyryrelay.pyry.options import PyryOptions
from pyryrelay.pyry.push.mount import CHECKS, PushMount, push_finding
from pyryrelay.pyry.registry import Registry, State
from pyryrelay.pyry.relay import BINARY_ROUTE, PHONE_ROUTE, Relay

BINARY_PATHS: Final = ("/v1/server", "/v2/server")
PHONE_PATHS: Final = ("/v1/client", "/v2/client")


class Pyry:
    """The protocol in one running relay."""

    def __init__(self, services: Services) -> None:
        self.registry = Registry()
        self.relay = Relay(
            self.registry, PyryLog(services.log), services.now, services.call_later, vacated=services.vacated
        )
        binaries, phones = BinaryApplication(self.relay), PhoneApplication(self.relay)
        self.routes: Mapping[str, Application] = {
            **dict.fromkeys(BINARY_PATHS, binaries),
            **dict.fromkeys(PHONE_PATHS, phones),
        }
        self._refused = services.refused
        self.push = PushMount(services, self.relay)
        self._moving: Moving | None = None
        self._arriving: Arriving | None = None

    def configure(self, options: PyryOptions) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        self.relay.configure(options.grace_s, options.max_phones, options.dropped_envelope_quota)
        self.push.configure(options)
        self.relay.wakes = self.push.wakes

    def collectors(self) -> Iterable[Collector]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return [PyryCollector(self.relay, self._refused)]

    def figures(self) -> Mapping[str, Figure]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return figures(self.relay)

    def panel(self) -> Panel:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return PANEL

    def health(self) -> Mapping[str, object]:
        """See `pyryrelay.protocol.RunningProtocol`; the specification names the keys (pyry-v1, "Endpoints")."""
        return {"connected_binaries": self.registry.binaries, "connected_phones": self.registry.phone_count}

    def is_healthy(self) -> bool:
        """See `pyryrelay.protocol.RunningProtocol`; nothing that it needs can fail."""
        return True

    def actions(self) -> Mapping[str, Action]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return {}

    def explain_client(self, client: ClientAddress) -> Sequence[Rule]:
        """See `pyryrelay.protocol.RunningProtocol`; it has no rules of its own for clients."""
        return ()

    def explain_name(self, name: str) -> Named | None:
        """See `pyryrelay.protocol.RunningProtocol`; anything may be a server-id, so none is explained."""
        return None

    def start(self, predecessor: Predecessor | None = None) -> None:
        """See `pyryrelay.protocol.RunningProtocol`; there is nothing to begin."""
        if predecessor is not None:
            self._arriving = self.relay.handover = Arriving(self.relay, predecessor, self._stop_arriving)

    def _stop_arriving(self) -> None:
        """Admit peers as usual from now on."""
        if self._arriving is not None:
            self._arriving.stop()
            self._arriving = self.relay.handover = None

    def hand_over(self, over_s: float) -> Deferred[None]:
        """Move each binary together with its phones; see `pyryrelay.protocol.RunningProtocol`."""
        return self._move().begin(over_s)

    def _move(self) -> Moving:
        """Be a process that another one succeeds."""
        if self._moving is None:
            expected = self._expected()
            self._stop_arriving()
            self._moving = self.relay.handover = Moving(self.relay, expected)
        return self._moving

    def _expected(self) -> Collection[str]:
        return () if self._arriving is None else self._arriving.expected

    def answer(self, question: bytes) -> bytes | Deferred[bytes]:
        """See `pyryrelay.pyry.handover.moving`. With several workers, questions may come before `hand_over`."""
        if self._moving is None and question == b"held":
            # Nothing moves because of it.
            return held(self.registry, self._expected())
        return self._move().answer(question)

    def take_back(self) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        if self._moving is not None:
            self._moving.cancel()
            self._moving = self.relay.handover = None

    def held_keys(self) -> Collection[str]:
        """See `pyryrelay.protocol.RunningProtocol`: the server-ids whose slots are not vacant."""
        return self.registry.server_ids()

    def holds(self, key: str) -> bool:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return self.registry.state(key) is not State.VACANT

    def evict(self, key: str) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        self.relay.apply(self.registry.evict(key, self.relay.now()))

    def move(self, key: str) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        self.relay.apply(self.registry.move(key, self.relay.now()))

    def drain(self) -> None:
        """See `pyryrelay.protocol.RunningProtocol`; nothing waits that must be sent first."""

    def stop(self) -> Deferred[None] | None:
        """See `pyryrelay.protocol.RunningProtocol`; wakes that are being sent have a few seconds to end."""
        self._stop_arriving()
        if self._moving is not None:
            self._moving.cancel()
        self.relay.stop()
        return self.push.stop()


class _PyryKind:
    """See `pyryrelay.protocol.ProtocolKind`."""

    name = "pyry"
    refusal_words = REFUSAL_WORDS
    log_fields = LOG_FIELDS
    checks: tuple[Check, ...] = CHECKS

    def is_on(self, options: PyryOptions) -> bool:
        """Return whether ``--pyry`` is on."""
        return options.pyry

    def routes(self, options: PyryOptions) -> Mapping[str, RoutePolicy]:
        """Return the policies of binaries and of phones."""
        return {
            BINARY_ROUTE: RoutePolicy(
                max_connections=options.max_binary_connections,
                max_per_address=options.max_binaries_per_address,
                throttle=options.throttle(frames=options.binary_frame_quota, size=options.binary_byte_quota),
                max_message_bytes=options.max_message_bytes,
                claims_key=True,
            ),
            PHONE_ROUTE: RoutePolicy(
                max_connections=options.max_phone_connections,
                throttle=options.throttle(frames=options.frame_quota, size=options.byte_quota),
                max_message_bytes=options.max_message_bytes,
            ),
        }

    def probe(self) -> Probe:
        """Return the probe that is a binary and a phone."""
        from pyryrelay.pyry.probing import PyryProbe

        return PyryProbe()

    def findings(self, options: PyryOptions, base: Path) -> Sequence[Finding]:
        """Return what prevents push wakes, if they are on; the protocol needs nothing else on the machine."""
        finding = push_finding(options, base)
        return () if finding is None else (finding,)

    def shared_children(self, options: PyryOptions) -> Mapping[str, Sequence[str]]:
        """Return nothing: the protocol has no children."""
        return {}

    def build(self, options: PyryOptions, services: Services) -> Pyry:
        """Return the protocol, ready to be mounted."""
        return Pyry(services)


PYRY: Final = _PyryKind()
