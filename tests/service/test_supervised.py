"""A relay of several workers, from the side of their supervisor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.ports import worker_ports
from tests.support.rpc import FakeStarter
from tests.support.service import Machine
from twisted.internet.defer import Deferred

from pyryrelay.config.sources import SettingsError
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet
from pyryrelay.guard.address.keys import address_key
from pyryrelay.listen.inherited import Inherited
from pyryrelay.mounts import Settings
from pyryrelay.service.relay import MOVE_LATE_S, STOP_S
from pyryrelay.service.supervised import GONE_S, SupervisedRelay
from pyryrelay.workers.supervisor import ANSWER_S, END_LOOK_S

KEY = address_key(IPv4Address("192.0.2.7"), 32)


class Old:
    """The process before this one."""

    def __init__(self) -> None:
        self.sockets = Inherited()
        self.is_gone = self.is_taken = False
        self.seed = 77
        self.lines: list[str] = []

    def failed(self, line: str) -> None:
        self.lines.append(line)


class House:
    """A supervised relay in memory; `told` is what its workers are told, as index, name and body."""

    def __init__(self, machine: Machine, folder: Path, old: Old | None = None, **more: Any) -> None:
        self.machine, self.starter = machine, FakeStarter()
        self.wanted = replace(
            Settings(),
            jail_file=str(folder / "jail"),
            admin_listen="",
            listen=("tcp:0:interface=127.0.0.1",),
            workers=2,
            **more,
        )
        self.content = b"grace = 1"
        predecessor: Any = old
        self.relay = SupervisedRelay(
            self.wanted,
            machine,
            machine.seconds,
            reread=self.read,
            base=folder,
            warnings=("careful",),
            predecessor=predecessor,
        )
        MADE.append(self)
        self.relay.starter = self.start
        self.relay.configuration = lambda: self.content
        self.told: list[tuple[int, str, Mapping[str, Any]]] = []
        self.greetings: list[Any] = []
        self.answer: dict[str, Any] = {"changed": ["grace"], "needs_restart": [], "error": None}

    def read(self) -> Settings:
        return self.wanted

    def start(self, index: int, boot: int, ended: Any) -> Any:
        self.greetings.append(self.relay.greeting(index, boot))
        process = self.starter(index, boot, ended)
        for name in ("serve", "stop", "skip_drain", "worker_lost"):
            process.worker.on(name, partial(self.hear, index, name))
        process.worker.on("reload", lambda body: self.reloaded(index, body))
        return process

    def hear(self, index: int, name: str, body: Mapping[str, Any]) -> None:
        self.told.append((index, name, body))

    def reloaded(self, index: int, body: Mapping[str, Any]) -> Any:
        self.told.append((index, "reload", body))
        return self.answer

    def names(self) -> list[tuple[int, str]]:
        """Return what was told, without bodies, once."""
        told, self.told = self.told, []
        return [(index, name) for index, name, _ in told]

    def started(self) -> Deferred[None]:
        self.relay.startService()
        return self.relay.start_workers()

    def complete(self) -> House:
        ready = self.started()
        self.starter.get_ready()
        assert ready.called
        return self


MADE: list[House] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the sockets between workers."""
    yield
    while MADE:
        relay = MADE.pop().relay
        relay.sockets.close()
        relay._mesh.close()


@pytest.fixture
def house(machine: Machine, tmp_path: Path) -> House:
    """A relay that has not started."""
    return House(machine, tmp_path)


def outcome(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


def test_sockets_of_instances(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are lent the sockets for other instances, and one that starts again gets a new one."""
    stem = worker_ports(2)
    text = f"tcp:{stem}{{worker}}:interface=127.0.0.1"
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef", encoding="ascii")
    (tmp_path / "secret").chmod(0o600)
    house = House(
        machine,
        tmp_path,
        cluster=("redis://127.0.0.1:1",),
        cluster_secret_file=str(tmp_path / "secret"),
        cluster_listen=text,
        cluster_advertise=f"127.0.0.1:{stem}{{worker}}",
        cluster_peers=TrustedProxies(CidrSet(["127.0.0.1"])),
    ).complete()
    lent = [greeting.sockets.listening[text.format(worker=greeting.index)].fileno() for greeting in house.greetings]
    assert len(lent) == 2
    assert text.format(worker=0) in house.relay.transfer.sockets().listening
    renewed: list[int] = []
    monkeypatch.setattr(house.relay.sockets, "renew", renewed.append)
    house.starter.running(1).end("signal 9")
    assert renewed == [1]
    house.relay.transfer.is_given = True
    house.starter.running(0).end("signal 9")
    assert renewed == [1]


def test_the_start(house: House) -> None:
    """Workers serve as soon as they are ready, with the sentences of the jail; each has its own place in the mesh."""
    with captured() as log:
        ready = house.started()
    assert log.texts[0] == "careful"
    assert [(greeting.index, greeting.count, greeting.boot) for greeting in house.greetings] == [(0, 2, 1), (1, 2, 2)]
    assert [greeting.configuration for greeting in house.greetings] == [b"grace = 1"] * 2
    house.greetings[1].mesh.sending[0].send(b"hello")
    assert house.greetings[0].mesh.receiving.recv(10) == b"hello"
    house.starter.get_ready(house.starter.started[0])
    seen = [ready.called]
    house.starter.get_ready()
    assert [*seen, ready.called] == [False, True]
    assert house.told == [(0, "serve", {"jail": []}), (1, "serve", {"jail": []})]


@pytest.mark.parametrize("dies", [False, True])
def test_all_workers_serve(house: House, dies: bool) -> None:
    """That is known when each has said so, or has ended."""
    house.complete()
    late, asked = house.starter.running(1).worker, list[Deferred[None]]()

    def serve(body: Mapping[str, Any]) -> Deferred[None]:
        asked.append(Deferred())
        return asked[-1]

    late.on("serve", serve)
    began = house.relay.serve()
    assert len(asked) == 1
    assert not began.called
    if dies:
        house.starter.running(1).end("signal 9")
    else:
        asked[0].callback(None)
    assert began.called


def test_a_worker_that_does_not_answer(house: House) -> None:
    """The others are not waited for any longer after a while."""
    house.complete()
    house.starter.running(0).worker.on("serve", lambda body: Deferred())
    began = house.relay.serve()
    house.machine.advance(ANSWER_S - 1.0)
    seen = began.called
    house.machine.advance(1.0)
    assert (seen, began.called) == (False, True)


def test_a_worker_that_dies(house: House) -> None:
    """The others are told which one, the next one serves, and sentences of the meantime reach it."""
    house.complete().names()
    house.starter.running(0).end("signal 9")
    assert house.told == [(1, "worker_lost", {"index": 0, "boot": 1})]
    house.relay.gate.jail.add(KEY, 60.0, house.machine.seconds())
    house.starter.get_ready()
    index, name, body = house.told[-1]
    assert (index, name) == (0, "serve")
    assert body["jail"][0][0] == "192.0.2.7/32"


def test_what_waits_for_a_worker_that_is_not_ready(house: House) -> None:
    """It can be discarded, and nothing of the others is."""
    house.complete()
    house.starter.running(0).end("signal 9")
    lost, kept = (house.relay._mesh.of(index) for index in (0, 1))
    for sending in kept.sending:
        sending.send(b"a message")
    house.relay.discard_waiting()
    with pytest.raises(BlockingIOError):
        lost.receiving.recv(10)
    assert kept.receiving.recv(10) == b"a message"


def test_a_reload(house: House) -> None:
    """All workers read the content that the supervisor has read, and there is one answer for all."""
    house.complete().names()
    house.wanted, house.content = replace(house.wanted, grace_s=7.0), b"grace = 7"
    found = outcome(house.relay.reload())
    assert (found.changed, found.error) == (["grace"], None)
    assert [body for _, _, body in house.told] == [{"configuration": "grace = 7"}] * 2
    house.starter.running(1).end()
    greeting = house.greetings[-1]
    assert (greeting.configuration, greeting.reloaded) == (b"grace = 1", b"grace = 7")


def test_a_reload_that_is_refused(house: House) -> None:
    """No worker hears of it."""
    house.complete().names()

    def refuse() -> Settings:
        raise SettingsError("grace", "here", "is no number", "write one")

    house.read = refuse  # type: ignore[method-assign]
    house.relay.reloader._reread = refuse
    assert "is no number" in outcome(house.relay.reload()).error
    assert house.told == []


def test_the_end(house: House) -> None:
    """Workers are told to stop, and the process ends when the last one has ended."""
    house.complete().names()
    stopped = house.relay.stopService()
    assert house.names() == [(0, "stop"), (1, "stop")]
    house.relay.skip_drain()
    assert house.names() == [(0, "skip_drain"), (1, "skip_drain")]
    for process in house.starter.started:
        assert not stopped.called
        process.end()
    house.machine.advance(1)
    assert stopped.called
    assert len(house.starter.started) == 2
    assert house.machine.listening == []


def test_workers_that_do_not_end(house: House) -> None:
    """They are killed when all their own deadlines have passed."""
    house.complete()
    stopped = house.relay.stopService()
    house.machine.pump([1.0] * int(10 + 2 * STOP_S + GONE_S + 2))
    assert stopped.called
    assert all(process.is_over for process in house.starter.started)


def test_a_worker_that_is_not_ready_at_the_end(house: House) -> None:
    """It has nothing to bring into order."""
    house.started()
    stopped = house.relay.stopService()
    house.machine.advance(1)
    assert stopped.called


def test_taking_over(machine: Machine, tmp_path: Path) -> None:
    """With a process before this one, workers serve when that has stopped, with its sentences."""
    old = Old()
    house = House(machine, tmp_path, old)
    house.complete()
    assert all(greeting.succeeds for greeting in house.greetings)
    assert house.told == []
    old.is_taken = True
    house.relay.serve([["192.0.2.9/32", time.time() + 60.0, 1, time.time()]])
    assert [(index, name, body["jail"][0][0]) for index, name, body in house.told] == [
        (0, "serve", "192.0.2.9/32"),
        (1, "serve", "192.0.2.9/32"),
    ]


def test_workers_that_do_not_start_while_another_process_serves(machine: Machine, tmp_path: Path) -> None:
    """That process goes on, and says why."""
    old = Old()
    house = House(machine, tmp_path, old)
    house.started()
    for _ in range(3):
        house.starter.running(1).end("exit code 2")
        machine.advance(1)
    assert old.lines == ["worker 1 ended (exit code 2) before it was ready; its log says more"]
    assert len(house.starter.started) == 4


class Children:
    """Children that all workers share, which a test plays."""

    addresses: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.stopped = Deferred[None]()
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")
        self.addresses = {"writer": "/folder/writer"}

    def stop(self) -> Deferred[None]:
        self.calls.append("stop")
        return self.stopped


def test_what_workers_share_starts_before_them_and_ends_after_them(machine: Machine, tmp_path: Path) -> None:
    """Workers are told where it is; the relay's end waits for it."""
    house = House(machine, tmp_path)
    children: Any = Children()
    house.relay.children = children
    house.complete()
    assert children.calls == ["start"]
    assert [greeting.children for greeting in house.greetings] == [{"writer": "/folder/writer"}] * 2
    ended = house.relay.stopService()
    assert children.calls == ["start"]
    machine.advance(house.relay._times.drain_s + 2 * STOP_S + GONE_S + 1)
    assert children.calls == ["start", "stop"]
    assert not ended.called
    children.stopped.callback(None)
    assert ended.called


def test_workers_of_an_instance_have_the_time_to_move_their_peers(machine: Machine, tmp_path: Path) -> None:
    """They are killed only after the time that moving peers to other instances may take."""
    house = House(machine, tmp_path)
    house.complete()
    house.relay.settings = replace(house.wanted, cluster_listen="tcp:900{worker}", drain_over_s=100.0)
    ended = house.relay.stopService()
    machine.advance(100 + house.relay._times.drain_s + STOP_S)
    assert not any(process.is_over for process in house.starter.started)
    machine.advance(STOP_S + GONE_S + MOVE_LATE_S + 1)
    assert all(process.is_over for process in house.starter.started)
    assert ended.called


def test_the_seed(machine: Machine, tmp_path: Path) -> None:
    """It is secret and the same for sockets and workers; a process that takes over keeps that of the one before."""
    house = House(machine, tmp_path)
    house.started()
    assert house.relay.seed == house.relay.sockets.steering.seed == house.greetings[0].seed
    assert house.relay.seed > 1 << 64
    assert House(machine, tmp_path, Old()).relay.sockets.steering.seed == 77


def test_workers_that_hang_at_the_end(machine: Machine, tmp_path: Path) -> None:
    """They do not keep the others, and the relay ends some seconds after the signal."""
    house = House(machine, tmp_path)
    house.complete()
    house.starter.running(0).worker.on("alive", lambda body: Deferred())
    ended = house.relay.stopService()
    house.starter.running(1).end()
    for _ in range(10):
        machine.advance(END_LOOK_S)
    assert house.starter.started[0].is_over
    assert machine.seconds() < 30
    assert ended.called
