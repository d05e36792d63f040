"""A protocol that no file of the relay knows is mounted, and gets everything that pyry has."""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.admin import Client
from tests.support.capture import Captured
from tests.support.echo_room import ECHO, PATH, EchoRoom, EchoSettings, OnlyEchoSettings
from tests.support.panels import check_panel
from tests.support.probing import FakePeer, FakeProber, visit
from tests.support.service import Connection, Machine, body, close_frame, status, text_frame
from twisted.internet.defer import Deferred, succeed
from twisted.web.server import Site

from pyryrelay.cli.twistd_options import TwistdOptions
from pyryrelay.config.settings import effective
from pyryrelay.config.sources import SettingsError
from pyryrelay.guard import CidrSet, ClientAddress, Quota, client_address
from pyryrelay.mounts import MountedSettings
from pyryrelay.preflight.inspection import Situation, inspect, of_settings
from pyryrelay.preflight.report import report
from pyryrelay.service import RelayService, Times

PUBLIC, ADMIN = 8080, 9090
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class EchoCommandLine(TwistdOptions):
    """The command line of a relay that has the room."""

    settings_type = EchoSettings


class Running:
    """A relay with the room, and the settings that a reload finds."""

    def __init__(self, machine: Machine, settings: MountedSettings | None = None, **given: Any) -> None:
        self.machine = machine
        self.wanted: Any = EchoSettings(**given) if settings is None else settings
        self.service = RelayService(self.wanted, machine, machine.seconds, Times(), lambda: self.wanted)
        self.service.startService()
        (self.room,) = [protocol for protocol in self.service.protocols if isinstance(protocol, EchoRoom)]

    def visit(self, host: str = "192.0.2.7") -> Connection:
        """Return a visitor of the room."""
        visitor = self.machine.connect(PUBLIC, host)
        assert status(visitor.upgrade(PATH, X_Visitor="v")) == 101
        return visitor


def test_messages_are_stored_before_they_are_answered(machine: Machine) -> None:
    """While storage is busy the peer is not read from, and goes on with nothing lost when it is done."""
    running = Running(machine)
    machine.threads.held = True
    visitor = running.visit()
    visitor.send(b"one")
    assert visitor.transport.producerState == "paused"
    assert visitor.received() == b""
    machine.advance(100)
    assert not visitor.lost
    machine.threads.go_on()
    assert visitor.received().endswith(text_frame(b"one"))
    assert visitor.transport.producerState == "producing"
    visitor.send(b"two")
    assert visitor.received() == text_frame(b"two")
    assert running.room.storage.kept == [b"one", b"two"]


def test_storage_that_fails_costs_one_connection(machine: Machine, log: Captured) -> None:
    """The peer whose message could not be stored is closed with 1011, with a traceback in the log; others stay."""
    running = Running(machine)
    unlucky, lucky = running.visit(), running.visit("192.0.2.8")
    running.room.storage.is_full = True
    unlucky.send(b"one")
    assert unlucky.received().endswith(close_frame(1011, "internal error"))
    assert any("No space left on device" in str(event.get("log_failure")) for event in log.events)
    running.room.storage.is_full = False
    lucky.send(b"two")
    assert lucky.received() == text_frame(b"two")
    assert running.room.sessions[0].close == (1011, "internal error")


def test_plain_http_on_its_path(machine: Machine) -> None:
    """A plain request is answered by the protocol, at once or later, and paid from the quota of such requests."""
    running = Running(machine, http_quota=Quota(3, 3600.0, 3))
    machine.threads.held = True
    asking = machine.connect(PUBLIC)
    assert asking.ask(PATH) == b""
    machine.threads.go_on()
    answer = asking.received()
    assert (status(answer), body(answer)) == (200, {"kept": 0})
    assert b"Content-Type: application/json\r\n" in answer
    assert [status(machine.connect(PUBLIC).ask(PATH)) for _ in range(3)] == [200, 200, 429]
    assert status(machine.connect(PUBLIC).upgrade(PATH, X_Visitor="v")) == 101
    machine.pump([1] * 5)
    assert running.service.gate.leases.handshakes == 0


def test_answers_to_other_methods(machine: Machine) -> None:
    """A protocol answers any method, also one with a body; each answer is the last one of its connection."""
    Running(machine, http_quota=Quota(4, 3600.0, 4))
    answers = []
    for method, text in (("OPTIONS", b""), ("POST", b"body"), ("HEAD", b""), ("PUT", b""), ("GET", b"")):
        asking = machine.connect(PUBLIC)
        head = f"{method} {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
        asking.protocol.dataReceived(head.encode() + text)
        answers.append(asking.received())
    assert [status(answer) for answer in answers] == [204, 415, 200, 405, 429]
    assert all(b"\r\nConnection: close\r\n" in answer for answer in answers)
    assert all(answer.count(b"\r\nAccess-Control-Allow-Origin: *\r\n") == 1 for answer in answers)
    assert b"Content-Length" not in answers[0]
    assert answers[1].endswith(b"\r\n\r\nthe room reads no bodies\n")
    assert b"\r\nContent-Length: 11\r\n" in answers[2]
    assert answers[2].endswith(b"\r\n\r\n")
    assert b"\r\nAllow: GET, HEAD\r\n" in answers[3]
    assert b"\r\nRetry-After: " in answers[4]


def test_its_refusals_are_refusals_like_any(machine: Machine, log: Captured) -> None:
    """A word of the protocol is counted, logged and can be dropped."""
    running = Running(machine)
    assert status(machine.connect(PUBLIC).upgrade(PATH)) == 400
    machine.advance(0)
    assert "refused 192.0.2.7 400 no_visitor on echo (0 more left out)" in log.texts
    assert running.service.refusals.counts["echo", "no_visitor"] == 1
    running.wanted = EchoSettings(refusal={"no_visitor": "drop"})
    running.service.reload()
    assert machine.connect(PUBLIC).upgrade(PATH) == b""
    assert EchoSettings.from_sources(None, {}, {"refusal": ["no_visitor=drop"]}).refusal == {"no_visitor": "drop"}
    with pytest.raises(SettingsError):
        EchoSettings.from_sources(None, {}, {"refusal": ["no_guest=drop"]})


def test_its_caps_and_sizes_are_enforced(machine: Machine) -> None:
    """The guard caps its connections, and the transport bounds its messages."""
    running = Running(machine, echo_visitors=1)
    visitor = running.visit()
    assert status(machine.connect(PUBLIC, "192.0.2.8").upgrade(PATH, X_Visitor="v")) == 503
    visitor.protocol.dataReceived(bytes([0x81, 0xFE, 0x04, 0x01]) + bytes(4))
    assert close_frame(1009, "")[2:4] in visitor.received()


def test_metrics_and_health(machine: Machine) -> None:
    """Its metrics and its keys of the health page stand beside those of pyry."""
    visitor = Running(machine).visit()
    visitor.send(b"one")
    page = machine.connect(ADMIN).ask("/metrics", Connection="close")
    assert b"pyryrelay_echoes_total 1.0\n" in page
    assert b'pyryrelay_connections{kind="echo"} 1.0\n' in page
    assert b'pyryrelay_refused_upgrades_total{endpoint="echo",reason="no_visitor"} 0.0\n' in page
    health = body(machine.connect(PUBLIC).ask("/healthz"))
    assert list(health) == ["status", "version", "connected_binaries", "connected_phones", "echoes", "uptime_seconds"]
    assert health["echoes"] == 1


def test_its_figures(machine: Machine) -> None:
    """What operators watch of it is in the status, beside what every relay has."""
    visitor = Running(machine).visit()
    visitor.send(b"one")
    site = machine.ports[ADMIN].factory
    assert isinstance(site, Site)
    found = Client(site).request("GET", "/status").json
    assert found["protocols"]["echo"] == {"visitors": 1, "echoes_total": 1}
    assert (found["connections"]["echo"], found["admitted"]["echo"]) == (1, 1)
    assert (found["messages"], found["bytes"]) == ({"in": 1, "out": 1}, {"in": 9, "out": 5})
    assert found["limits"]["upgrade-quota"] == "10/minute burst 20"
    assert found["certificates"] == []


def test_its_panel(machine: Machine) -> None:
    """The dashboard is told what to show of it, and what its refusal words mean."""
    running = Running(machine)
    check_panel(running.room.panel(), running.room.figures(), ECHO.refusal_words)
    hello = running.service.admin.stream._hello()
    assert hello["panels"]["echo"] == {
        "title": "The <b>echo</b> room",
        "plots": [
            {"title": "Visitors", "unit": "", "series": {"in the room": "visitors"}, "parts_of": ""},
            {"title": "Echoes", "unit": "", "series": {"sent": "echoes_total"}, "parts_of": ""},
        ],
    }
    assert hello["reasons"]["no_visitor"] == "The visitor did not say who it is."


def test_its_messages_can_be_compressed(machine: Machine) -> None:
    """A route may offer compression, and the others do not."""
    Running(machine, echo_deflate="no-context")
    offer = {"Sec_WebSocket_Extensions": "permessage-deflate"}
    assert b"Sec-WebSocket-Extensions" in machine.connect(PUBLIC).upgrade(PATH, X_Visitor="v", **offer)
    assert b"Sec-WebSocket-Extensions" not in machine.connect(PUBLIC).upgrade("/v1/server", **offer)


def test_its_actions(machine: Machine) -> None:
    """Operators reach its actions by the admin API, also those that a child process answers."""
    running = Running(machine)
    site = machine.ports[ADMIN].factory
    assert isinstance(site, Site)
    client = Client(site)
    assert client.change("POST", "/echo/echo", "[1]").json == [1]
    assert client.change("POST", "/echo/echo").error == "there is nothing to echo: send some JSON"
    running.room.child = FakeChild()
    exchange = client.begin("POST", "/echo/ask", "[2]", X_Pyryrelay_Admin="1")
    assert running.room.child.sent == [b"[2]"]
    running.room.asked.pop().callback(b"[2]")
    assert exchange.response.json == [2]


def test_it_explains_refusals(machine: Machine) -> None:
    """Its rules are part of what operators are told about a client, and about what it calls by a name."""
    running = Running(machine)
    site = machine.ports[ADMIN].factory
    assert isinstance(site, Site)
    client, address = Client(site), client_address("192.0.2.7")
    assert address is not None
    running.room.said_by[address.key] = 3
    found = client.request("GET", "/explain?address=192.0.2.7").json
    assert (found["verdict"], found["steps"][-1]) == (
        "admitted",
        {"what": "echo: messages", "state": "refuses", "detail": "3 of 3 kept"},
    )
    assert found["protocols"] == {
        "echo": {
            "refuses": ["messages"],
            "rules": [{"what": "messages", "state": "refuses", "advice": "forget some", "kept": 3}],
        }
    }
    found = client.request("GET", "/explain?address=%23kitchen%20").json
    assert (found["name"], found["verdict"], [step["what"] for step in found["steps"]]) == (
        "room #kitchen",
        "accepted",
        ["echo: texts"],
    )
    wrong = client.request("GET", "/explain?address=%23")
    assert (wrong.status, wrong.error) == (400, "the name of a room is missing: write #NAME")
    assert client.request("GET", "/explain?address=kitchen").status == 400


class FakeChild:
    """A child that only takes what it is sent."""

    pid = None

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, body: bytes) -> None:
        self.sent.append(body)

    def close(self) -> None:
        """End."""

    def kill(self) -> None:
        """End at once."""


def test_its_log_lines(machine: Machine, log: Captured) -> None:
    """Its lines are in the log, and share the limits of lines."""
    visitor = Running(machine).visit()
    for _ in range(3):
        visitor.send(b"one")
    machine.advance(0)
    assert [text for text in log.texts if text.startswith("echoed")] == ["echoed 3 bytes"]


def test_options_from_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    """Its options are on the command line, in the environment, in files, in the help and in what --check prints."""
    options = EchoCommandLine(environ={"PYRYRELAY_ECHO_VISITORS": "7"})
    options.parseOptions(["--echo-times", "3"])
    settings = options.settings
    assert isinstance(settings, EchoSettings)
    assert (settings.echo_times, settings.echo_visitors) == (3, 7)
    assert EchoSettings.from_sources(tomllib.loads(effective(settings)), {}, {}) == settings
    with pytest.raises(SystemExit):
        EchoCommandLine(environ={}).parseOptions(["--help"])
    assert "  --echo-times N\n        How often each message is sent back. [default: 1]" in capsys.readouterr().out


def test_a_reload_reaches_it(machine: Machine) -> None:
    """A reload changes its options as the start sets them."""
    running = Running(machine)
    visitor = running.visit()
    running.wanted = EchoSettings(echo_times=2)
    running.service.reload()
    visitor.send(b"one")
    assert visitor.received() == text_frame(b"one") * 2


def test_warnings_and_preflight(tmp_path: Path) -> None:
    """What it warns of is told at the start and by --check."""
    settings = EchoSettings(echo_times=9, listen=("tcp:0:interface=127.0.0.1",), admin_listen="")
    told = report(inspect(settings, Situation(tmp_path, {}, "", NOW)), settings)
    assert told.warnings == [
        "--echo-times 9: that is loud; write 3",
        f"the room: there is none in {str(tmp_path)!r}; mkdir room",
    ]
    accepted = replace(settings, accept_finding=("echo-loud", "echo-missing"), production=True)
    assert report(inspect(accepted, Situation(tmp_path, {}, "", NOW)), accepted).fatal == []


def test_it_can_be_probed() -> None:
    """It says what ``pyryrelay probe`` does to a relay that speaks it, with options of its own."""
    prober = FakeProber([FakePeer(lambda text: [text])])
    assert visit(ECHO.probe(), prober, "--say", "one") == {"echo": "one", "visitor: close": ""}
    assert prober.connected == [("visitor", PATH, {"X-Visitor": "probe"})]


def test_it_can_be_the_only_one(machine: Machine) -> None:
    """A relay without pyry has neither its paths nor its options nor its metrics."""
    running = Running(machine, OnlyEchoSettings())
    assert running.visit().received() == b""
    assert status(machine.connect(PUBLIC).upgrade("/v1/server")) == 404
    assert "grace" not in OnlyEchoSettings.by_name()
    assert b"pyrycode" not in machine.connect(ADMIN).ask("/metrics", Connection="close")
    assert list(body(machine.connect(PUBLIC).ask("/healthz"))) == ["status", "version", "echoes", "uptime_seconds"]


def test_it_can_be_off(machine: Machine, tmp_path: Path) -> None:
    """A protocol that its options turn off has no paths, metrics, health or warnings, and is not built."""
    service = RelayService(EchoSettings(echo=False, echo_times=9), machine, machine.seconds, Times())
    service.startService()
    assert [type(protocol).__name__ for protocol in service.protocols] == ["Pyry"]
    assert status(machine.connect(PUBLIC).upgrade(PATH, X_Visitor="v")) == 404
    page = machine.connect(ADMIN).ask("/metrics", Connection="close")
    assert b"echo" not in page
    assert b"no_visitor" not in page
    assert "echoes" not in body(machine.connect(PUBLIC).ask("/healthz"))
    assert "loud" not in str(of_settings(service.settings, tmp_path))


def test_pyry_can_be_off(machine: Machine) -> None:
    """With --no-pyry, nothing is left of pyry but its options."""
    running = Running(machine, pyry=False)
    assert running.visit().received() == b""
    assert status(machine.connect(PUBLIC).upgrade("/v1/server")) == 404
    assert b"pyrycode" not in machine.connect(ADMIN).ask("/metrics", Connection="close")
    assert list(body(machine.connect(PUBLIC).ask("/healthz"))) == ["status", "version", "echoes", "uptime_seconds"]


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_one_protocol_must_be_on(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A relay without any protocol does not start, and says how to turn one on."""
    options = EchoCommandLine(environ={})
    with pytest.raises(SystemExit) as caught:
        options.parseOptions(["--no-pyry", "--no-echo", "--listen", "tcp:0", "--admin-listen", "", *arguments])
    assert caught.value.code == 2
    line = "pyryrelay: --pyry (from command line): 'false' leaves no protocol; turn one on: --pyry or --nostr or --echo"
    assert line in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_problems_prevent_the_start(
    arguments: list[str], machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a protocol cannot start without ends the start with one line, and --check tells it."""
    (tmp_path / "door").touch()
    with pytest.raises(SystemExit) as caught:
        EchoCommandLine(environ={}).parseOptions(["--listen", "tcp:0", "--admin-listen", "", *arguments])
    assert caught.value.code == 2
    assert "pyryrelay: the door: it is shut; open it: rm door" in capsys.readouterr().err.splitlines()


def test_conflicts_prevent_the_start_alone(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another process has ends the start with one line; --check notes it, and finds no problem."""
    (tmp_path / "taken").touch()
    line = "the room: it is taken; wait until it is free"
    for arguments, code in ([], 2), (["--check"], 0):
        with pytest.raises(SystemExit) as caught:
            EchoCommandLine(environ={}).parseOptions(["--listen", "tcp:0", "--admin-listen", "", *arguments])
        assert caught.value.code == code
        assert any(told.endswith(line) for told in capsys.readouterr().err.splitlines())


def test_it_may_be_unhealthy(machine: Machine) -> None:
    """While it cannot serve, the health page has the status 503 and all of its keys."""
    running = Running(machine)
    running.room.is_broken = True
    answer = machine.connect(PUBLIC).ask("/healthz")
    assert (status(answer), body(answer)["status"], body(answer)["echoes"]) == (503, "failing", 0)
    running.room.is_broken = False
    assert status(machine.connect(PUBLIC).ask("/healthz")) == 200


def test_it_can_have_clients_jailed(machine: Machine, log: Captured) -> None:
    """Offences of a protocol count like refusals; clients on the allow list are exempt, those of loopback not."""
    running = Running(machine, jail_after=Quota(3, 3600.0, 3), allow=CidrSet(["192.0.2.8"]))
    offender, friend, local = (named("192.0.2.7"), named("192.0.2.8"), named("127.0.0.1"))
    services = running.room.services
    assert [services.is_exempt(client) for client in (offender, friend, local)] == [False, True, False]
    for client in (offender, friend):
        for _ in range(4):
            services.strike(client, "too_loud")
    machine.advance(0)
    jail = running.service.gate.jail
    assert [jail.holds(client.key, machine.seconds()) for client in (offender, friend)] == [True, False]
    assert any(text.startswith("jailed 192.0.2.7 for") for text in log.texts)
    assert running.service.refusals.by_reason()["too_loud"] == 0


def named(text: str) -> ClientAddress:
    """Return an address."""
    address = client_address(text)
    assert address is not None
    return address


def test_relative_paths_have_a_base(machine: Machine, tmp_path: Path) -> None:
    """It learns where relative paths of options start."""
    assert Running(machine).room.services.base == tmp_path


def test_it_is_started_and_stopped(machine: Machine) -> None:
    """It begins its work when the relay does, and not when it is built."""
    service = RelayService(EchoSettings(), machine, machine.seconds, Times())
    (room,) = [protocol for protocol in service.protocols if isinstance(protocol, EchoRoom)]
    assert not room.started
    service.startService()
    assert room.started


def test_it_drains_before_its_peers_are_closed(machine: Machine) -> None:
    """What it sends while it drains is delivered before the close frame, which waits for it."""
    running = Running(machine)
    visitor = running.visit()
    running.room.drained = Deferred()
    running.service.stopService()
    assert visitor.received() == text_frame(b"goodbye")
    machine.pump([0.1] * 10)
    running.room.sessions[0].say(b"really")
    running.room.drained.callback(None)
    machine.pump([0.1])
    assert visitor.received() == text_frame(b"really") + close_frame(1001, "shutting down")


@pytest.mark.parametrize("how", ["never", "fails", "raises", "told again"])
def test_draining_is_bounded(machine: Machine, log: Captured, how: str) -> None:
    """A protocol that does not finish, or fails, does not keep its peers from being closed in time."""
    running = Running(machine)
    visitor = running.visit()
    running.room.drained = Deferred()
    if how == "raises":
        running.room.drain = lambda: 1 / 0  # type: ignore[assignment,return-value]
    running.service.stopService()
    visitor.received()
    if how == "fails":
        running.room.drained.errback(OSError(28, "No space left on device"))
    if how == "told again":
        running.service.skip_drain()
    machine.pump([0.1] * (82 if how == "never" else 1))
    assert (close_frame(1001, "shutting down") in visitor.received()) == (how != "raises")
    faults = [event for event in log.events if event.get("log_failure") is not None]
    assert len(faults) == (how in ("fails", "raises"))


def test_stopping_is_waited_for(machine: Machine) -> None:
    """The relay has stopped when its protocols have, or when they have had time enough."""
    running = Running(machine)
    stopped: Deferred[None] = Deferred()
    running.room.stop = lambda: stopped  # type: ignore[method-assign]
    done: list[object] = []
    running.service.stopService().addCallback(done.append)
    machine.pump([1] * 5)
    assert not done
    stopped.callback(None)
    machine.pump([1])
    assert done


def test_the_end(machine: Machine) -> None:
    """Its peers are closed with 1001, and it is told to stop behind them."""
    running = Running(machine)
    visitor = running.visit()
    running.service.stopService()
    assert close_frame(1001, "shutting down") in visitor.received()
    visitor.send_close(1001)
    machine.pump([0.1] * 30)
    assert running.room.stopped
    assert running.room.sessions[0].close is not None
    assert ECHO.name == "echo"


def test_it_hands_over(machine: Machine) -> None:
    """In an upgrade it moves its peers, answers the other process, and can be told that all stays as it was."""
    running = Running(machine)
    visitor = running.visit()
    transfer, released = running.service.transfer, list[str]()
    transfer.move_peers(5.0, released.append)
    assert running.room.handed_over_s == 5.0
    assert "echo" in released
    assert visitor.received() == text_frame(b"next door")
    assert transfer.protocols["echo"].answer(b"said?") == b"said? 0"
    running.room.take_back()
    assert running.room.handed_over_s is None


def test_it_succeeds_another_process(machine: Machine) -> None:
    """It is started with what it may ask, and waits for what only one process can have."""

    class Before:
        """The room in the other process."""

        def __init__(self) -> None:
            self.released: Deferred[None] = Deferred()

        def ask(self, question: bytes) -> Deferred[bytes | None]:
            return succeed(question + b" much")

        def when_released(self) -> Deferred[None]:
            return self.released

    room, before = Running(machine).room, Before()
    room.start(before)
    assert room.remembered == [b"what was said? much"]
    before.released.callback(None)
    assert len(room.remembered) == 2
