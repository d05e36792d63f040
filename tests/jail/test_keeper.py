"""The copies of the jail in a file and in the kernel follow it, and the reactor never waits for them."""

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
from pyryrelay.jail import keeper as keeper_module
from pyryrelay.jail.keeper import MAX_PAUSE_S, PAUSE_FACTOR, JailKeeper, KernelPolicy
from pyryrelay.jail.store import JailStore
from pyryrelay.listen.kernel.drop import KernelDrop, KernelDropError

FIRST, SECOND = address("192.0.2.1"), address("192.0.2.2")


class Kernel:
    """A stand-in for `KernelDrop` that records calls, and may refuse them."""

    def __init__(self) -> None:
        self.refuses = False
        self.is_on = self.filters_sockets = True
        self.removals = 0
        self.jail_exempt: list[str] = []
        self.updates: list[list[str]] = []
        self.stopped = False

    def set_exempt(self, networks: Iterable[IPNetwork]) -> None:
        self.jail_exempt = [str(network) for network in networks]

    def start(self) -> None:
        """Record the start."""
        self.update(())

    def update(self, networks: Sequence[IPNetwork]) -> int:
        if self.refuses:
            raise KernelDropError(1, "jailed sources are dropped at accept, not in the kernel: because")
        self.updates.append([str(network) for network in networks])
        return len(networks)

    def remove_failed(self) -> None:
        self.removals += 1

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

    def sync(self) -> None:
        """Run one round, which is over at once."""
        done: list[object] = []
        self.keeper.sync().addBoth(done.append)
        assert done == [None]

    def stop(self) -> None:
        """Stop the keeper, at once."""
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
    """Return the jailed addresses of the file with the remaining seconds of each."""
    warnings: list[str] = []
    store = JailStore(path, warnings.append)
    found = {str(sentence.network): sentence.until_s for sentence in store.load(0.0, 1e9)}
    store.close()
    assert warnings == []
    return found


# The file


def test_sentences_survive(world: World, tmp_path: Path) -> None:
    """An address that was jailed when the relay stopped is jailed after the start, for the rest of its time."""
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.stop()
    again = World(tmp_path / "jail.sqlite")
    again.wall_s += 40
    again.keeper.start()
    assert again.jail.is_jailed(FIRST.key, 59.0)
    assert not again.jail.is_jailed(FIRST.key, 61.0)


def test_the_file_follows(world: World, tmp_path: Path) -> None:
    """Each round writes new bans and deletes those that ended."""
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.sync()
    assert sentences(tmp_path / "jail.sqlite") == {"192.0.2.1/32": 100.0, "192.0.2.2/32": 200.0}
    world.jail.release(FIRST.key)
    world.sync()
    assert sentences(tmp_path / "jail.sqlite") == {"192.0.2.2/32": 200.0}


def test_nothing_new_is_nothing_to_do(world: World) -> None:
    """A round without changes uses no thread."""
    world.keeper.start()
    world.sync()
    assert world.threads.calls == 0


def test_a_round_is_bounded(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round makes a bounded number of transactions; the next round goes on, and the end writes the rest."""
    monkeypatch.setattr(keeper_module, "MAX_TRANSACTIONS", 2)
    world.keeper.start()
    for number in range(1000):
        world.jail.add(address(f"198.51.{number // 250}.{number % 250}").key, 100.0, 0.0)
    world.sync()
    assert len(sentences(tmp_path / "jail.sqlite")) == 400
    world.sync()
    assert len(sentences(tmp_path / "jail.sqlite")) == 800
    world.stop()
    assert len(sentences(tmp_path / "jail.sqlite")) == 1000


def test_the_end_waits_for_the_thread(world: World, tmp_path: Path) -> None:
    """The end waits for the thread, so that the file is complete and never used twice at a time."""
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.threads.held = True
    world.keeper.sync()
    world.jail.add(SECOND.key, 100.0, 0.0)
    done: list[object] = []
    world.keeper.stop().addBoth(done.append)
    assert done == []
    world.threads.go_on()
    assert done == [None]
    assert sentences(tmp_path / "jail.sqlite").keys() == {"192.0.2.1/32", "192.0.2.2/32"}


def test_without_a_file() -> None:
    """Without a file the jail is in memory, and changes are not collected."""
    world = World(None)
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.sync()
    assert world.jail.changes() == ([], [])
    world.stop()
    assert (world.threads.calls, world.lines) == (0, [])


@pytest.mark.parametrize("has_file", [True, False])
def test_changes_are_reported(tmp_path: Path, has_file: bool) -> None:
    """Each round reports new sentences and releases, with or without a file; the end of a sentence is neither."""
    world = World(tmp_path / "jail.sqlite" if has_file else None)
    reported: list[tuple[list[str], int]] = []
    world.keeper.on_changes.append(
        lambda kept, released: reported.append(([str(one.network) for one in kept], len(released)))
    )
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.jail.add(SECOND.key, 100.0, 0.0)
    world.jail.release(SECOND.key)
    world.sync()
    world.sync()
    assert reported == [(["192.0.2.1/32"], 1)]
    world.jail.sweep(1000.0)
    world.sync()
    world.jail.add(SECOND.key, 100.0, 1000.0)
    world.stop()
    assert reported == [(["192.0.2.1/32"], 1), (["192.0.2.2/32"], 0)]


def test_a_file_that_cannot_be_had(tmp_path: Path) -> None:
    """A file that cannot be used causes one line, and the jail is kept in memory."""
    world = World(tmp_path / "nowhere" / "jail.sqlite")
    world.keeper.start()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.sync()
    world.stop()
    (line,) = world.lines
    assert line.startswith(f"jail file {str(world.path)!r} cannot be used: ")
    assert line.endswith("; bans are kept in memory only")
    assert world.jail.is_jailed(FIRST.key, 1.0)


# The kernel


def start(world: World, kernel: Kernel, *jail_exempt: str) -> None:
    """Start the keeper with a kernel and exempt addresses."""
    world.keeper.configure(exempting(*jail_exempt))
    world.keeper.start(cast(KernelDrop, kernel))


def exempting(*networks: str) -> KernelPolicy:
    """Return a policy that exempts these networks from kernel drops."""
    return KernelPolicy([CidrSet([text]) for text in networks])


def test_the_kernel_follows(world: World, kernel: Kernel) -> None:
    """Jailed addresses are dropped in the kernel, the longest bans first; a round without changes updates nothing."""
    start(world, kernel, "10.0.0.0/8", "::1")
    assert kernel.jail_exempt == ["10.0.0.0/8", "::1/128"]
    assert world.keeper.filters_sockets
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.sync()
    world.sync()
    world.clock.advance(150)
    world.sync()
    assert kernel.updates == [[], ["192.0.2.2/32", "192.0.2.1/32"], ["192.0.2.2/32"]]


def test_exempt_networks_are_not_dropped(world: World, kernel: Kernel) -> None:
    """A change of exempt networks counts from the next round on, even without new bans."""
    start(world, kernel)
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.sync()
    world.keeper.configure(exempting("192.0.2.0/24"))
    assert kernel.jail_exempt == []
    world.sync()
    world.sync()
    assert kernel.jail_exempt == ["192.0.2.0/24"]
    assert kernel.updates == [[], ["192.0.2.1/32"], ["192.0.2.1/32"]]


def test_exempt_networks_without_a_kernel(world: World) -> None:
    """Without a kernel filter a change of exempt networks does nothing."""
    world.keeper.start()
    world.keeper.configure(exempting("192.0.2.0/24"))
    world.sync()
    assert not world.keeper.filters_sockets


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.04, 0.04 * PAUSE_FACTOR), (1.0, MAX_PAUSE_S)])
def test_an_expensive_program_is_not_built_each_second(kernel: Kernel, took_s: float, pause_s: float) -> None:
    """After an expensive build the keeper waits for a multiple of its duration, up to a few seconds."""
    world = World(None)
    start(world, kernel)
    world.threads.held = True
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keeper.sync()
    world.clock.advance(took_s)
    world.threads.go_on()
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.clock.advance(pause_s * 0.99)
    world.sync()
    assert len(kernel.updates) == 2
    world.clock.advance(pause_s * 0.02)
    world.sync()
    assert len(kernel.updates) == 3


@pytest.mark.parametrize("way", ["release", "exempt"])
def test_a_release_does_not_wait(kernel: Kernel, way: str) -> None:
    """An address that is released or exempt gets through in the next round, however expensive the last build was."""
    world = World(None)
    start(world, kernel)
    world.threads.held = True
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keeper.sync()
    world.clock.advance(1.0)
    world.threads.go_on()
    if way == "release":
        world.jail.release(FIRST.key)
    else:
        world.keeper.configure(exempting("192.0.2.1"))
    world.sync()
    assert len(kernel.updates) == 3


def test_a_kernel_that_refuses_at_the_start(world: World, kernel: Kernel) -> None:
    """A refusal at the start is one line, and the relay runs without a kernel filter."""
    kernel.refuses, kernel.is_on = True, False
    start(world, kernel)
    kernel.refuses = False
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.sync()
    assert world.lines == ["--kernel-drop: jailed sources are dropped at accept, not in the kernel: because"]
    assert not world.keeper.filters_sockets
    assert kernel.updates == []


def test_a_kernel_that_refuses_later(world: World, kernel: Kernel) -> None:
    """A later refusal, such as after privileges were dropped, is one line, and the kernel is not asked again."""
    start(world, kernel)
    kernel.refuses, kernel.is_on = True, False
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.sync()
    world.jail.add(SECOND.key, 100.0, 0.0)
    world.sync()
    assert len(world.lines) == 1
    assert not world.keeper.filters_sockets


def test_a_kernel_that_refuses_for_one_socket(world: World, kernel: Kernel) -> None:
    """A refusal for one socket is reported, and the other sockets are updated."""
    start(world, kernel)
    kernel.refuses = True
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.sync()
    kernel.refuses = False
    world.jail.add(SECOND.key, 200.0, 0.0)
    world.sync()
    assert len(world.lines) == 1
    assert kernel.removals == 1
    assert kernel.updates[-1] == ["192.0.2.2/32", "192.0.2.1/32"]


def test_a_program_that_cannot_be_built_is_tried_again(
    world: World, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed build is reported as a failure of periodic work, and tried again."""
    start(world, kernel)
    world.jail.add(FIRST.key, 100.0, 0.0)
    failures: list[Failure] = []
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "update", lambda networks: 1 / 0)
        world.keeper.sync().addErrback(failures.append)
    assert [failure.type for failure in failures] == [ZeroDivisionError]
    world.sync()
    assert kernel.updates == [[], ["192.0.2.1/32"]]


def test_keys_of_another_prefix_length(world: World, kernel: Kernel) -> None:
    """After a change of --ipv6-prefix, keys of another length are not dropped, but a /48 always is."""
    start(world, kernel)
    for bits in (48, 56, 64):
        client = client_address("2001:db8:1:2::3", ipv6_prefix=bits)
        assert client is not None
        world.jail.add(client.key, 100.0 + bits, 0.0)
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.sync()
    world.keeper.configure(KernelPolicy(ipv6_prefix=56))
    world.sync()
    assert kernel.updates == [
        [],
        ["2001:db8:1:2::/64", "2001:db8:1::/48", "192.0.2.1/32"],
        ["2001:db8:1::/56", "2001:db8:1::/48", "192.0.2.1/32"],
    ]


def test_the_kernel_is_left_clean(world: World, kernel: Kernel) -> None:
    """The filter is removed after the work in progress and before the sockets are closed."""
    start(world, kernel)
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.threads.held = True
    world.keeper.sync()
    done: list[object] = []
    world.keeper.stop_dropping().addBoth(done.append)
    assert not kernel.stopped
    world.threads.go_on()
    assert (done, kernel.stopped) == ([None], True)
    world.jail.add(SECOND.key, 100.0, 0.0)
    world.sync()
    world.stop()
    assert len(kernel.updates) == 2


def test_the_end_without_a_filter(world: World) -> None:
    """Without a filter the end does not ask the kernel."""
    world.keeper.start()
    done: list[object] = []
    world.keeper.stop_dropping().addBoth(done.append)
    assert done == [None]


def test_another_process_takes_the_jail_over(world: World, kernel: Kernel, tmp_path: Path) -> None:
    """What is left is complete in the file and in the rows, and the kernel keeps dropping; it can be taken back."""
    world.keeper.start(cast(KernelDrop, kernel))
    world.jail.add(FIRST.key, 100.0, 0.0)
    found: list[Sequence[Sequence[object]]] = []
    world.keeper.leave().addCallback(found.append)
    (rows,) = found
    assert sentences(tmp_path / "jail.sqlite") == {"192.0.2.1/32": 100.0}
    other = World(None)
    other.keeper.start(rows=[*rows, ("no network", 1.0, 1, 0.5)])
    assert other.jail.is_jailed(FIRST.key, 99.0)
    world.jail.add(SECOND.key, 200.0, 0.0)
    updates = len(kernel.updates)
    world.sync()
    assert len(kernel.updates) == updates
    world.keeper.take_back()
    world.sync()
    assert kernel.updates[-1] == ["192.0.2.2/32", "192.0.2.1/32"]
    assert sentences(tmp_path / "jail.sqlite") == {"192.0.2.1/32": 100.0, "192.0.2.2/32": 200.0}


def test_the_end_of_a_process_that_left(world: World, kernel: Kernel, tmp_path: Path) -> None:
    """It neither writes the file nor takes the filters off: both are another process's."""
    world.keeper.start(cast(KernelDrop, kernel))
    world.keeper.leave()
    world.jail.add(FIRST.key, 100.0, 0.0)
    world.keeper.stop_dropping()
    world.stop()
    assert not kernel.stopped
    assert sentences(tmp_path / "jail.sqlite") == {}
