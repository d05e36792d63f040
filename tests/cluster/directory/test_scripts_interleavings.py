"""All orders in which three instances can call the scripts, on the model that `test_scripts` holds against Redis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tests.support.directory_model import DirectoryModel

from pyryrelay.cluster.directory.scripts import LEASE_US, SILENCE_US, WARM_UP_US

KEY = "id"
INSTANCES = ("a", "b", "c")
START = 1_790_000_000_000_000


def orders(programs: Sequence[Sequence[str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield every interleaving of some programs, as steps of a number and a word."""
    numbers = [number for number, program in enumerate(programs) for _ in program]
    for order in sorted(set(itertools.permutations(numbers))):
        left = [iter(program) for program in programs]
        yield [(number, next(left[number])) for number in order]


class World:
    """Three instances, and what each believes to hold."""

    def __init__(self) -> None:
        self.model = DirectoryModel(WARM_UP_US, LEASE_US, SILENCE_US, START)
        self.held: dict[str, int] = {}
        self.renew_all()
        self.model.now += WARM_UP_US // 2
        self.renew_all()
        self.model.now += WARM_UP_US // 2

    def renew_all(self) -> None:
        """Every instance renews its lease."""
        for me in INSTANCES:
            self.model.renew(me, "boot", me, "mac")

    def step(self, me: str, word: str) -> None:
        """Do one thing as an instance would."""
        match word:
            case "claim":
                if me not in self.held and (answer := self.model.visit(me, "boot", "claim", KEY))[0] == "here":
                    self.held[me] = int(answer[1])
            case "seat":  # during an outage
                self.held.setdefault(me, 0)
            case "release":
                if (epoch := self.held.pop(me, None)) is not None:
                    self.model.visit(me, "boot", "release", KEY, epoch)
            case "assert":
                if me in self.held:
                    answer = self.model.claim_again(me, "boot", KEY, self.held[me])
                    if answer[0] == "lost":
                        del self.held[me]
                    else:
                        self.held[me] = int(answer[1])
            case "leave":
                self.held.pop(me, None)
                self.model.leave(me, "boot")
            case "lapse":  # stopped for longer than its lease, as the others see it
                self.model.leave(me, "boot")
            case "renew":
                self.model.renew(me, "boot", me, "mac")
            case "empty":
                self.model.restart_empty()
                self.renew_all()


def test_claims_and_releases_seat_one() -> None:
    """Without faults, one instance at most holds a key, in every order."""
    for order in orders([("claim", "release", "claim"), ("claim", "release"), ("claim", "leave")]):
        world = World()
        for number, word in order:
            world.step(INSTANCES[number], word)
            assert len(world.held) <= 1, order


def test_a_data_set_that_was_lost_seats_no_second() -> None:
    """After Redis came back empty, claims wait until the holder has asserted, in every order."""
    for order in orders([("empty", "assert"), ("claim", "claim"), ("claim", "release", "claim")]):
        world = World()
        world.step("a", "claim")
        for number, word in order:
            world.step(INSTANCES[number], word)
            assert len(world.held) <= 1, order
        assert set(world.held) == {"a"}
        assert world.model.holder(KEY) is not None


def test_a_server_that_hung_seats_no_second() -> None:
    """After all leases have lapsed at once, claims wait until the holder is back, in every order."""
    for order in orders([("renew", "assert"), ("renew", "claim", "claim"), ("renew", "claim", "release")]):
        world = World()
        world.step("a", "claim")
        world.model.now += LEASE_US + 1
        for number, word in order:
            world.step(INSTANCES[number], word)
            assert set(world.held) == {"a"}, order
        assert world.model.holder(KEY) is not None


def test_a_key_of_one_that_died_while_the_server_hung_is_served_again() -> None:
    """It is given to one instance, when the warm-up is over."""
    for order in orders([("renew", "claim"), ("renew", "claim")]):
        world = World()
        world.step("c", "claim")
        del world.held["c"]
        world.model.now += LEASE_US + 1
        for number, word in order:
            world.step(INSTANCES[number], word)
            assert not world.held, order
        for _ in range(2):
            world.model.now += WARM_UP_US // 2
            world.step("a", "renew")
            world.step("b", "renew")
        for number, word in order:
            world.step(INSTANCES[number], word)
        assert len(world.held) == 1, order


def test_holders_of_an_outage_converge() -> None:
    """Of instances that seated a key while Redis was away, one is left when each has asserted once."""
    for order in orders([("seat", "assert"), ("seat", "assert"), ("seat", "release")]):
        world = World()
        for number, word in order:
            world.step(INSTANCES[number], word)
        for me in INSTANCES:
            world.step(me, "assert")
        assert len(world.held) == 1, order
        assert {world.model.entries[KEY].instance} == set(world.held), order


def test_an_instance_that_was_stopped_gives_way() -> None:
    """An instance that asserts after its lease was over loses its key only to one that has claimed it since."""
    for order in orders([("lapse", "renew", "assert"), ("claim",), ("claim", "release")]):
        world = World()
        world.step("a", "claim")
        for number, word in order:
            world.step(INSTANCES[number], word)
        for me in INSTANCES:
            world.step(me, "assert")
        assert len(world.held) <= 1, order
        if world.held:
            assert {world.model.entries[KEY].instance} == set(world.held), order


def test_lost_writes_converge() -> None:
    """After a failover that lost a change of hands, the later holder survives, in every order of asserts."""
    for first, second in itertools.permutations(("a", "b")):
        world = World()
        world.step("a", "claim")
        before = world.model.entries[KEY]
        world.model.now += 1
        world.model.leave("a", "boot")
        world.step("b", "claim")
        world.renew_all()
        world.model.entries[KEY] = before  # what the replica had
        for me in (first, second, first):
            world.step(me, "assert")
        assert set(world.held) == {"b"}
