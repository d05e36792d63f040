"""The jail's copies: its file and the kernel's program follow it, without the reactor waiting for either."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import pytest
from tests.support.pyry import address
from tests.support.service import Threads
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pyryrelay.guard import CidrSet, Jail, client_address
from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.jail import keeper as jailkeeper
from pyryrelay.jail.keeper import MOST_REST_S, REST, JailKeeper, KernelPolicy
from pyryrelay.jail.store import JailStore
from pyryrelay.listen.kernel.drop import KernelDrop, KernelDropError

FIRST, SECOND = address("192.0.2.1"), address("192.0.2.2")


class Kernel:
    """What stands in for `KernelDrop`: notes what it is asked, and may refuse."""

    def __init__(self) -> None:
        self.refuses = False
        self.is_on = self.filters_sockets = True
        self.given_up = 0
        self.jail_exempt: list[str] = []
        self.updates: list[list[str]] = []
        self.stopped = False

    def spare(self, networks: Iterable[IPNetwork]) -> None:
        self.jail_exempt = [str(network) for network in networks]

    def start(self) -> None:
        self.update(())

    def update(self, networks: Sequence[IPNetwork]) -> int:
        if self.refuses:
            raise KernelDropError(1, "jailed sources are dropped at accept, not in the kernel: because")
        self.updates.append([str(network) for network in networks])
        return len(networks)

    def give_up(self) -> None:
        self.given_up += 1

    def stop(self) -> None:
        self.stopped = True


class World:
    """A jail and its keeper, with a file, a clock and threads that can be held."""

    def __init__(self, path: Path | None) -> None:
        self.clock = Clock()
        self.wall_s = 1e9
        self.path = path
        self.lines: list[str] = []
        self.jail = Jail()
        self.threads = Threads()
        store = None if path is None else JailStore(path, self.lines.append)
        self.keeper = JailKeeper(
            self.jail, store, self.clock.seconds, lambda: self.wall_s, self.lines.append, self.threads.defer
        )

    def keep(self) -> None:
        """One round, which is over at once."""
        done: list[object] = []
        self.keeper.keep().addBoth(done.append)
        assert done == [None]

    def stop(self) -> None:
        """The end, which comes at once."""
        done: list[object] = []
        self.keeper.stop().addBoth(done.append)
        assert done == [None]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A jail with a file."""
    return World(tmp_path / "jail.sqlite")


@pytest.fixture
def kernel() -> Kernel:
    """A kernel that does what it is asked."""
    return Kernel()


def sentences(path: Path) -> dict[str, float]:
    """Who is jailed by the file, and for how much longer."""
    warnings: list[str] = []
    store = JailStore(path, warnings.append)
    found = {str(sentence.network): sentence.until_s for sentence in store.load(0.0, 1e9)}
    store.close()
    assert warnings == []
    return found


# The file


def test_sentences_survive(world: World, tmp_path: Path) -> None:
    """Who was jailed when the relay ended is jailed when it starts again, for the rest of the time."""
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.stop()
    again = World(tmp_path / "jail.sqlite")
    again.wall_s += 40
    again.keeper.start()
    assert again.jail.is_jailed(FIRST.key, 59.0)
    assert not again.jail.is_jailed(FIRST.key, 61.0)


def test_the_file_follows(world: World, tmp_path: Path) -> None:
    """Each round writes what is new, and what is gone."""
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.keep()
    assert sentences(tmp_path / "jail.sqlite") == {"192.0.2.1/32": 100.0, "192.0.2.2/32": 200.0}
    world.jail.release(FIRST.key)
    world.keep()
    assert sentences(tmp_path / "jail.sqlite") == {"192.0.2.2/32": 200.0}


def test_nothing_new_is_nothing_to_do(world: World) -> None:
    """No thread is asked."""
    world.keeper.start()
    world.keep()
    assert world.threads.calls == 0


def test_a_round_is_bounded(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many transactions and no more; the next round goes on, and the end writes the rest."""
    monkeypatch.setattr(jailkeeper, "SLICES", 2)
    world.keeper.start()
    for number in range(1000):
        world.jail.add(address(f"198.51.{number // 250}.{number % 250}").key, 100.0, 0.0)
    world.keep()
    assert len(sentences(tmp_path / "jail.sqlite")) == 400
    world.keep()
    assert len(sentences(tmp_path / "jail.sqlite")) == 800
    world.stop()
    assert len(sentences(tmp_path / "jail.sqlite")) == 1000


def test_the_end_waits_for_the_thread(world: World, tmp_path: Path) -> None:
    """A file is never used twice at a time, and is complete in the end."""
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.threads.held = True
    world.keeper.keep()
    world.jail.add(SECOND.key, 100.0, 0.0)
    done: list[object] = []
    world.keeper.stop().addBoth(done.append)
    assert done == []
    world.threads.go_on()
    assert done == [None]
    assert sentences(tmp_path / "jail.sqlite").keys() == {"192.0.2.1/32", "192.0.2.2/32"}


def test_without_a_file() -> None:
    """The jail is in memory, and what changed is not hoarded."""
    world = World(None)
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keep()
    assert world.jail.changes() == ([], [])
    world.stop()
    assert (world.threads.calls, world.lines) == (0, [])


def test_a_file_that_cannot_be_had(tmp_path: Path) -> None:
    """One clear line, and the relay goes on with a jail in memory."""
    world = World(tmp_path / "nowhere" / "jail.sqlite")
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keep()
    world.stop()
    (line,) = world.lines
    assert line.startswith(f"jail file {str(world.path)!r} cannot be used: ")
    assert line.endswith("; bans are kept in memory only")
    assert world.jail.is_jailed(FIRST.key, 1.0)


# The kernel


def start(world: World, kernel: Kernel, *jail_exempt: str) -> None:
    """Begin, with a kernel that spares some."""
    world.keeper.start(cast(KernelDrop, kernel), sparing(*jail_exempt))


def sparing(*networks: str) -> KernelPolicy:
    """A policy that never drops these."""
    return KernelPolicy([CidrSet([text]) for text in networks])


def test_the_kernel_follows(world: World, kernel: Kernel) -> None:
    """Who is jailed is dropped, the longest first; a round without news is none for it."""
    start(world, kernel, "10.0.0.0/8", "::1")
    assert kernel.jail_exempt == ["10.0.0.0/8", "::1/128"]
    assert world.keeper.filters_sockets
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.keep()
    world.keep()
    world.clock.advance(150)
    world.keep()
    assert kernel.updates == [[], ["192.0.2.2/32", "192.0.2.1/32"], ["192.0.2.2/32"]]


def test_others_are_spared(world: World, kernel: Kernel) -> None:
    """From the next round on, also where nobody else was jailed meanwhile."""
    start(world, kernel)
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keep()
    world.keeper.follow(sparing("192.0.2.0/24"))
    assert kernel.jail_exempt == []
    world.keep()
    world.keep()
    assert kernel.jail_exempt == ["192.0.2.0/24"]
    assert kernel.updates == [[], ["192.0.2.1/32"], ["192.0.2.1/32"]]


def test_sparing_without_a_kernel(world: World) -> None:
    """Nothing to do."""
    world.keeper.start()
    world.keeper.follow(sparing("192.0.2.0/24"))
    world.keep()
    assert not world.keeper.filters_sockets


@pytest.mark.parametrize(("took_s", "rest_s"), [(0.04, 0.04 * REST), (1.0, MOST_REST_S)])
def test_a_dear_program_is_not_built_each_second(kernel: Kernel, took_s: float, rest_s: float) -> None:
    """What a thread computes is taken from everybody; so it rests for a multiple of that, up to some seconds."""
    world = World(None)
    start(world, kernel)
    world.threads.held = True
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keeper.keep()
    world.clock.advance(took_s)
    world.threads.go_on()
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.clock.advance(rest_s * 0.99)
    world.keep()
    assert len(kernel.updates) == 2
    world.clock.advance(rest_s * 0.02)
    world.keep()
    assert len(kernel.updates) == 3


@pytest.mark.parametrize("way", ["release", "spare"])
def test_whoever_is_free_does_not_wait(kernel: Kernel, way: str) -> None:
    """However dear the last program was: who is jailed no more is let in the next second, and so is who is spared."""
    world = World(None)
    start(world, kernel)
    world.threads.held = True
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keeper.keep()
    world.clock.advance(1.0)
    world.threads.go_on()
    if way == "release":
        world.jail.release(FIRST.key)
    else:
        world.keeper.follow(sparing("192.0.2.1"))
    world.keep()
    assert len(kernel.updates) == 3


def test_a_kernel_that_refuses_at_the_start(world: World, kernel: Kernel) -> None:
    """One line, and the relay goes on without it."""
    kernel.refuses, kernel.is_on = True, False
    start(world, kernel)
    kernel.refuses = False
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keep()
    assert world.lines == ["--kernel-drop: jailed sources are dropped at accept, not in the kernel: because"]
    assert not world.keeper.filters_sockets
    assert kernel.updates == []


def test_a_kernel_that_refuses_later(world: World, kernel: Kernel) -> None:
    """As when privileges went meanwhile: one line too, and it is not asked again."""
    start(world, kernel)
    kernel.refuses, kernel.is_on = True, False
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keep()
    world.jail.add(SECOND.key, 100.0, 0.0)
    world.keep()
    assert len(world.lines) == 1
    assert not world.keeper.filters_sockets


def test_a_kernel_that_refuses_for_one_socket(world: World, kernel: Kernel) -> None:
    """It is told, and the others are kept up to date."""
    start(world, kernel)
    kernel.refuses = True
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keep()
    kernel.refuses = False
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.keep()
    assert len(world.lines) == 1
    assert kernel.given_up == 1
    assert kernel.updates[-1] == ["192.0.2.2/32", "192.0.2.1/32"]


def test_a_program_that_cannot_be_built_is_tried_again(
    world: World, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever that was: it is reported where periodic work is, and nobody believes that it was done."""
    start(world, kernel)
    world.jail.add(FIRST.key, 100.0, 0.0)
    failures: list[Failure] = []
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "update", lambda networks: 1 / 0)
        world.keeper.keep().addErrback(failures.append)
    assert [failure.type for failure in failures] == [ZeroDivisionError]
    world.keep()
    assert kernel.updates == [[], ["192.0.2.1/32"]]


def test_keys_that_are_nobodys(world: World, kernel: Kernel) -> None:
    """After another --ipv6-prefix the jail's keys of before mean no client, and must not mean whole networks.

    A /48 always is one.
    """
    start(world, kernel)
    for bits in (48, 56, 64):
        client = client_address("2001:db8:1:2::3", ipv6_prefix=bits)
        assert client is not None
        world.jail.add(client.key, 100.0 + bits, 0.0)
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keep()
    world.keeper.follow(KernelPolicy(ipv6_prefix=56))
    world.keep()
    assert kernel.updates == [
        [],
        ["2001:db8:1:2::/64", "2001:db8:1::/48", "192.0.2.1/32"],
        ["2001:db8:1::/56", "2001:db8:1::/48", "192.0.2.1/32"],
    ]


def test_the_kernel_is_left_clean(world: World, kernel: Kernel) -> None:
    """After the work that is going on, and before the sockets are closed; the end does not ask it again."""
    start(world, kernel)
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.threads.held = True
    world.keeper.keep()
    done: list[object] = []
    world.keeper.stop_dropping().addBoth(done.append)
    assert not kernel.stopped
    world.threads.go_on()
    assert (done, kernel.stopped) == ([None], True)
    world.jail.add(SECOND.key, 100.0, 0.0)
    world.keep()
    world.stop()
    assert len(kernel.updates) == 2


def test_there_is_nothing_to_leave_clean(world: World) -> None:
    """Without a filter the end is the end."""
    world.keeper.start()
    done: list[object] = []
    world.keeper.stop_dropping().addBoth(done.append)
    assert done == [None]
