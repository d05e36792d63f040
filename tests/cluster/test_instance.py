"""This process as an instance of a cluster."""

from __future__ import annotations

import socket
from typing import Any

from tests.support.harness import World
from tests.support.instances import Held
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.instance import Instance, Terms, boot_of
from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.redis.interface import DownError
from pyryrelay.cluster.splice.carrier import OwnerCarrier
from pyryrelay.cluster.splice.ticket import TicketError
from pyryrelay.guard import CidrSet
from pyryrelay.protocol import Page
from pyryrelay.runtime.periodic import Periodic
from pyryrelay.runtime.timer_wheel import TimerWheel

OWNER = Member("10.0.0.2:7000", "b2", "10.0.0.2:7000")


class AwayRedis:
    """A server that is never there."""

    is_up = False
    ahead_s = None

    def call(self, *args: object) -> Deferred[Any]:
        """Fail."""
        return fail(DownError("away"))


class Servers:
    """Two servers that are away."""

    def __init__(self) -> None:
        self.all = (AwayRedis(), AwayRedis())

    def __len__(self) -> int:
        return len(self.all)

    def of(self, number: int) -> AwayRedis:
        """Return one."""
        return self.all[number % 2]


def instance(redirect: str = "") -> tuple[Instance, Clock]:
    """Return an instance, and its clock."""
    clock = Clock()
    terms = Terms(address="10.0.0.1:7000", peers=CidrSet(["10.0.0.0/24"]), redirect=redirect)
    servers: Any = Servers()
    wheel = TimerWheel(clock, clock.seconds)
    keys = Keys("relay", b"s" * 32)
    made = Instance(terms, servers, keys, Held(), lambda route: True, clock, wheel, clock.seconds, clock.seconds)
    return made, clock


def test_a_boot_id_is_that_of_the_socket() -> None:
    """A process with the same listening socket has the same id, and one with another socket has not."""
    with socket.socket() as one, socket.socket() as other, socket.socket(fileno=one.dup().detach()) as same:
        assert boot_of(one) == boot_of(same)
        assert boot_of(one) != boot_of(other)
        assert boot_of(None) != boot_of(None)


def test_others_are_spliced_or_redirected() -> None:
    """With a location of the proxy it takes connections there; otherwise their bytes are passed on."""
    spliced, _ = instance()
    spliced.begin("boot")
    assert isinstance(spliced._way_to(OWNER, "key"), OwnerCarrier)
    redirected, _ = instance("/hop/")
    redirected.begin("boot")
    assert isinstance(redirected._way_to(OWNER, "key"), Page)
    assert redirected.figures.redirected == 1


def test_a_way_that_fails_is_forgotten() -> None:
    """The next connection asks again."""
    made, _ = instance()
    made.begin("boot")
    made.placement.routes.note("key", OWNER, 0.0)
    carrier = made._way_to(OWNER, "key")
    assert isinstance(carrier, OwnerCarrier)
    carrier._failed()
    assert made.placement.routes.last("key") is None


def test_the_life_of_an_instance() -> None:
    """It looks after its lease, leaves it to a successor, and may end before it has begun."""
    made, clock = instance()
    made.vacated("early")
    made.begin("boot")
    made.start(Periodic(clock))
    clock.advance(1.0)
    made.vacated("key")
    made.hand_over()
    handed_over = made.directory.is_left
    made.take_back()
    assert (handed_over, made.directory.is_left) == (True, False)
    ended: list[object] = []
    made.leave().addCallback(ended.append)
    made.cut_off()
    assert ended
    assert made.spliced_bytes == 0


def test_no_ticket_is_taken_by_two_processes() -> None:
    """Each takes those that are made while it serves."""
    made, clock = instance()
    made.begin("boot")
    clock.advance(100.0)
    made.start(Periodic(clock))

    def takes(made_at: float) -> bool:
        try:
            made.nonces.take(str(made_at).encode(), made_at, clock.seconds())
        except TicketError:
            return False
        return True

    assert (takes(99.9), takes(100.0)) == (False, True)
    made.hand_over()
    clock.advance(1.0)
    assert not takes(101.0)
    made.take_back()
    assert (takes(100.9), takes(101.5)) == (False, True)


def test_arrivals_know_this_instance() -> None:
    """What they share is made once, for the first of them."""
    made, _ = instance("/hop/")
    context = World().context
    factory = made.arrivals(context, context)
    made.begin("boot")
    arrivals = factory._new()
    assert (arrivals.me.boot, arrivals.redirected is not None, arrivals.accepts("10.0.0.9")) == ("boot", True, True)


def test_partitions_are_where_others_look_for_them() -> None:
    """The directory and the limits agree which server has a partition."""
    made, _ = instance()
    made.begin("boot")
    for number in range(64):
        assert made.directory.shards[number % 2].redis is made.servers.of(number)
