"""A third protocol, as small as one can be and with everything that a protocol can bring: a room that echoes.

It is written as its authors would write it, in modules that no other file of the relay knows. Messages are stored
before they are echoed, by calls in threads, so its storage is as slow as a test wants it to be.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import SWITCH, choice, whole_number
from pyryrelay.guard import AddressKey, ClientAddress, Quota
from pyryrelay.logger import UnfilteredLogger
from pyryrelay.metric_families import counter
from pyryrelay.mounts import MountedSettings, Settings
from pyryrelay.protocol import (
    Action,
    ActionError,
    Child,
    Figure,
    HttpAnswer,
    HttpRefusal,
    HttpRequest,
    Message,
    Named,
    Page,
    Panel,
    Peer,
    PeerPolicy,
    Plot,
    Predecessor,
    ProtocolKind,
    Request,
    Rule,
    Services,
)
from pyryrelay.protocol_options import Check, Finding, Probe, Prober, RoutePolicy, Severity

_log = UnfilteredLogger(namespace="pyryrelay")

PATH: Final = "/room"
FOR_PAGES: Final = (("Access-Control-Allow-Origin", "*"),)
"""Lets scripts of any web page read answers."""
CHILD: Final = "import os\nwhile chunk := os.read(0, 65536):\n    os.write(0, chunk)"
"""A child that sends back what it receives, frame by frame."""


@dataclass(frozen=True, kw_only=True)
class EchoOptions(ConnectionSettings):
    """The options of the room."""

    echo: bool = option(
        True,
        SWITCH,
        "The echo room",
        restart=True,
        help="Open the room.",
        example="false",
        why="It is what it is there for.",
    )
    echo_child: bool = option(
        False,
        SWITCH,
        "The echo room",
        restart=True,
        help="Have a child process echo the messages of the admin API.",
        example="true",
        why="Most echoes need no process of their own.",
    )
    echo_deflate: Literal["off", "no-context", "context"] = option(
        "off",
        choice(("off", "no-context", "context")),
        "The echo room",
        restart=True,
        help="How messages are compressed.",
        example="context",
        why="The room is small.",
    )
    echo_times: int = option(
        1,
        whole_number(1, 9),
        "The echo room",
        help="How often each message is sent back.",
        example="2",
        why="Once is an echo.",
    )
    echo_visitors: int = option(
        2,
        whole_number(1),
        "The echo room",
        help="How many may be in the room.",
        example="9",
        why="It is a small room.",
    )


class Storage:
    """Where messages are kept. It is slow, and fails while it is full."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.is_full = False

    def keep(self, texts: Sequence[bytes]) -> None:
        """Keep messages. Raises `OSError`."""
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.kept += texts


class EchoSession:
    """One visitor."""

    def __init__(self, room: EchoRoom, peer: Peer) -> None:
        self._room = room
        self._peer = peer
        self.close: tuple[int, str] | None = None

    def messages(self, batch: Sequence[Message]) -> Deferred[None]:
        """Store the messages, then echo them."""
        texts = [payload for payload, _ in batch]
        stored = self._room.services.in_thread(lambda: self._room.storage.keep(texts))
        return stored.addCallback(lambda _: self._echo(texts))

    def _echo(self, texts: Sequence[bytes]) -> None:
        room = self._room
        room.echoes += len(texts) * room.times
        self._peer.send([text for text in texts for _ in range(room.times)])
        left_out = room.services.log.note("echo", len(texts))
        if left_out is not None:
            room.services.log.write(lambda: _log.info("echoed {echo_bytes} bytes", echo_bytes=sum(map(len, texts))))

    def say(self, text: bytes) -> None:
        """Send a message that is no echo."""
        self._peer.send([text])

    def closed(self, code: int, reason: str) -> None:
        """Remember how it ended."""
        self.close = (code, reason)


class EchoCollector(Collector):
    """The metrics of the room."""

    def __init__(self, room: EchoRoom) -> None:
        self._room = room

    def collect(self) -> Iterable[Metric]:
        """One scrape."""
        yield counter("pyryrelay_echoes", "Messages that were sent back.", self._room.echoes)


class EchoRoom:
    """The protocol of one running relay, and its only application."""

    name = "echo"
    policy = PeerPolicy(outbox_bytes=1024 * 1024)

    def __init__(self, services: Services) -> None:
        self.services = services
        self.storage = Storage()
        self.times = 0
        self.echoes = 0
        self.stopped = False
        self.started = False
        self.is_broken = False
        self.drained: Deferred[None] | None = None
        self.handed_over_s: float | None = None
        self.remembered: list[bytes | None] = []
        self.child: Child | None = None
        self.ended: list[str] = []
        self.asked: list[Deferred[bytes]] = []
        self.has_child = False
        self.sessions: list[EchoSession] = []
        self.said_by: dict[AddressKey, int] = {}
        self.most_said = 3
        self.is_full = False
        self.routes: Mapping[str, EchoRoom] = {PATH: self}

    # pyryrelay.protocol.Application

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """Let in visitors that say who they are."""
        return None if request.header("x-visitor") else HttpRefusal(400, "no_visitor")

    def place_key(self, request: Request) -> str | None:
        """The room is the same everywhere."""
        return None

    def opened(self, peer: Peer, request: Request) -> EchoSession:
        """Let a visitor in."""
        session = EchoSession(self, peer)
        self.sessions.append(session)
        return session

    def http(self, request: HttpRequest) -> HttpAnswer | Deferred[HttpAnswer]:
        """Tell how full the storage is, which takes a while to find out."""
        if request.method == "OPTIONS":
            return Page(204, FOR_PAGES)
        if request.method == "POST":
            return Page(415, FOR_PAGES, b"the room reads no bodies\n")
        if request.method not in ("GET", "HEAD"):
            return HttpRefusal(405, "bad_method", (("Allow", "GET, HEAD"),))
        return self.services.in_thread(lambda: len(self.storage.kept)).addCallback(_page)

    # pyryrelay.protocol.RunningProtocol

    def configure(self, options: EchoOptions) -> None:
        """Echo so often from now on."""
        self.times = options.echo_times
        self.has_child = options.echo_child

    def collectors(self) -> Iterable[Collector]:
        """The metrics of the room."""
        return [EchoCollector(self)]

    def figures(self) -> Mapping[str, Figure]:
        """The figures of the room."""
        return {"visitors": len(self.sessions), "echoes_total": self.echoes}

    def panel(self) -> Panel:
        """What is shown of the figures."""
        return Panel(
            "The <b>echo</b> room",
            (Plot("Visitors", {"in the room": "visitors"}), Plot("Echoes", {"sent": "echoes_total"})),
            {"no_visitor": "The visitor did not say who it is."},
        )

    def health(self) -> Mapping[str, object]:
        """The room's part of the health page."""
        return {"echoes": self.echoes}

    def is_healthy(self) -> bool:
        """Whether the room is in order."""
        return not self.is_broken

    def actions(self) -> Mapping[str, Action]:
        """An echo for the operator, who may be told no, and one that a child makes."""
        return {"echo": self._echo, "ask": self._ask}

    def explain_client(self, client: ClientAddress) -> Sequence[Rule]:
        """One rule: how many messages of a client the room keeps, of how many."""
        said = self.said_by.get(client.key, 0)
        return [
            Rule(
                "messages",
                "refuses" if said >= self.most_said else "ok",
                f"{said} of {self.most_said} kept",
                "forget some",
                {"kept": said},
                said,
            )
        ]

    def explain_name(self, name: str) -> Named | None:
        """Rooms within the room have names that begin with a hash sign; each is as full as the room."""
        if not name.startswith("#"):
            return None
        if name == "#":
            raise ActionError("the name of a room is missing: write #NAME")
        state: Literal["ok", "refuses"] = "refuses" if self.is_full else "ok"
        return Named(f"room {name}", [Rule("texts", state, f"{self.echoes} kept", used=self.echoes)])

    def _echo(self, body: bytes) -> bytes:
        if not body:
            raise ActionError("there is nothing to echo: send some JSON")
        return body

    def _ask(self, body: bytes) -> Deferred[bytes]:
        assert self.child is not None
        self.child.send(body)
        answer: Deferred[bytes] = Deferred()
        self.asked.append(answer)
        return answer

    def start(self, predecessor: Predecessor | None = None) -> None:
        """Open the room, and ask for what is remembered in the one that it succeeds."""
        self.started = True
        if predecessor is not None:
            predecessor.ask(b"what was said?").addCallback(self.remembered.append)
            predecessor.when_released().addCallback(self.remembered.append)
        if self.has_child:
            self.child = self.services.start_child(
                ["-c", CHILD], lambda body: self.asked.pop(0).callback(body), self.ended.append
            )

    def held_keys(self) -> Collection[str]:
        """Nobody needs one process rather than another."""
        return ()

    def holds(self, key: str) -> bool:
        """Nothing is held."""
        return False

    def evict(self, key: str) -> None:
        """Nothing is held."""

    def move(self, key: str) -> None:
        """Nothing is held."""

    def drain(self) -> Deferred[None] | None:
        """Say goodbye to the visitors."""
        for session in self.sessions:
            session.say(b"goodbye")
        return self.drained

    def hand_over(self, over_s: float) -> Deferred[None] | None:
        """Tell the visitors about the other room; they are closed at the end."""
        self.handed_over_s = over_s
        for session in self.sessions:
            session.say(b"next door")
        return self.drained

    def answer(self, question: bytes) -> bytes:
        """Answer the other room."""
        return question + b" " + str(self.echoes).encode()

    def take_back(self) -> None:
        """Open the room again."""
        self.handed_over_s = None

    def stop(self) -> Deferred[None] | None:
        """The end of the relay."""
        self.stopped = True
        if self.child is not None:
            self.child.close()
        return None


def _page(kept: int) -> Page:
    return Page(200, (("Content-Type", "application/json"), *FOR_PAGES), json.dumps({"kept": kept}).encode())


SHUT: Final = Check("echo-shut", Severity.ERROR, "The door of the room is shut.")
LOUD: Final = Check("echo-loud", Severity.WARNING, "The echo is too much.")
TAKEN: Final = Check("echo-taken", Severity.CONFLICT, "Somebody else has the room.")
MISSING: Final = Check("echo-missing", Severity.WARNING, "There is no room.")


class EchoProbe:
    """A visitor from elsewhere."""

    visitor = "a visitor"

    def add_options(self, parser: Any) -> None:
        """What the visitor says."""
        parser.add_argument("--say", default="hello")

    def visit(self, prober: Prober, arguments: Any) -> None:
        """Say it, and wait for it."""
        peer = prober.connect("visitor", PATH, {"X-Visitor": "probe"}, {})
        with prober.step("echo") as step:
            peer.send(arguments.say)
            step.detail = peer.receive()
        with prober.step("visitor: close"):
            peer.close()


class EchoKind:
    """The protocol as it is listed."""

    name = "echo"
    refusal_words = ("no_visitor",)
    log_fields = frozenset({"echo_bytes"})
    checks = (SHUT, LOUD, TAKEN, MISSING)

    def is_on(self, options: EchoOptions) -> bool:
        """Whether there is a room."""
        return options.echo

    def routes(self, options: EchoOptions) -> Mapping[str, RoutePolicy]:
        """What is enforced on visitors."""
        frames = options.throttle(frames=Quota.parse("600/minute"), size=None)
        deflate = None if options.echo_deflate == "off" else options.echo_deflate
        policy = RoutePolicy(
            max_connections=options.echo_visitors,
            throttle=frames,
            max_message_bytes=1024,
            deflate=deflate,
            answer_fields=FOR_PAGES,
        )
        return {"echo": policy}

    def probe(self) -> Probe:
        """A visitor who says something."""
        return EchoProbe()

    def findings(self, options: EchoOptions, base: Path) -> Sequence[Finding]:
        """A door that is shut, a room that is missing or taken, and an echo that is too much."""
        found = [
            (SHUT, "the door", "it is shut", "open it: rm door", (base / "door").exists()),
            (LOUD, "--echo-times 9", "that is loud", "write 3", options.echo_times == 9),
            (TAKEN, "the room", "it is taken", "wait until it is free", (base / "taken").exists()),
            (MISSING, "the room", f"there is none in {str(base)!r}", "mkdir room", not (base / "room").is_dir()),
        ]
        return [Finding(check, what, why, fix) for check, what, why, fix, is_so in found if is_so]

    def shared_children(self, options: EchoOptions) -> Mapping[str, Sequence[str]]:
        """Nothing."""
        return {}

    def build(self, options: EchoOptions, services: Services) -> EchoRoom:
        """A room without visitors."""
        return EchoRoom(services)


ECHO: Final = EchoKind()


@dataclass(frozen=True, kw_only=True)
class EchoSettings(EchoOptions, Settings):
    """A relay that has the room beside everything else."""

    protocols: ClassVar[tuple[ProtocolKind, ...]] = (*Settings.protocols, ECHO)


@dataclass(frozen=True, kw_only=True)
class OnlyEchoSettings(EchoOptions, MountedSettings):
    """A relay that has nothing but the room."""

    protocols: ClassVar[tuple[ProtocolKind, ...]] = (ECHO,)
