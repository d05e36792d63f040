"""Where an upgrade is served in a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.instances import Instance, World
from tests.support.resp import RespClient, needs_resp_server
from twisted.internet.defer import Deferred

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.directory.placement import DirectoryPlacement
from pyryrelay.cluster.directory.routes import LIFE_S
from pyryrelay.http.placement import HERE, Place
from pyryrelay.protocol import HttpRefusal, Page

pytestmark = needs_resp_server
BINARY, PHONE = "server", "client"


@pytest.fixture
def world(client: RespClient) -> World:
    """Return instances ``a`` and ``b``; ``a`` holds ``x``."""
    world = World(client)
    world.start("a:1")
    world.start("b:1")
    world.settle()
    world.instances["a:1"].seat("x")
    return world


def way_to(member: Member, key: str) -> Place:
    """Return a place that names the instance."""
    return Page(200, (("Way", f"{member.name} {key}"),))


def placement_of(instance: Instance, *, refuses: bool = False) -> DirectoryPlacement:
    """Return the placement of an instance."""
    clock = instance.world.clock
    return DirectoryPlacement(
        instance.directory,
        instance.held,
        lambda route: route == BINARY,
        way_to,
        clock.seconds,
        refuses_on_outage=refuses,
    )


def found(place: Place | Deferred[Place]) -> Any:
    """Return a place that is known now, in short."""
    if isinstance(place, Deferred):
        places: list[Any] = []
        place.addBoth(places.append)
        (place,) = places
    if isinstance(place, HttpRefusal):
        return place.status, place.reason
    return place.fields[0][1] if isinstance(place, Page) else place


def test_what_is_held_here_is_served_here(world: World) -> None:
    """Nobody is asked."""
    a = world.instances["a:1"]
    calls = len(a.redis.calls)
    place = placement_of(a).place
    assert (place(BINARY, "x"), place(PHONE, "x")) == (HERE, HERE)
    assert len(a.redis.calls) == calls


def test_what_is_held_elsewhere_is_taken_there(world: World) -> None:
    """Claims and looks alike; what nobody holds is served here, where a claim holds it and a look finds nobody."""
    place = placement_of(world.instances["b:1"]).place
    assert found(place(BINARY, "x")) == "a:1 x"
    assert found(place(PHONE, "x")) == "a:1 x"
    assert found(place(PHONE, "y")) is HERE
    assert found(place(BINARY, "y")) is HERE
    assert world.entry("y") == "b:1"


def test_a_route_is_used_for_a_while(world: World) -> None:
    """Looks ask again after some seconds, and claims always."""
    b = world.instances["b:1"]
    placement = placement_of(b)
    found(placement.place(PHONE, "x"))
    asked = len(b.redis.calls)
    assert found(placement.place(PHONE, "x")) == "a:1 x"
    assert len(b.redis.calls) == asked
    world.instances["a:1"].vacate("x")
    assert found(placement.place(PHONE, "x")) == "a:1 x"
    world.pass_time(LIFE_S)
    assert found(placement.place(PHONE, "x")) is HERE
    found(placement.place(BINARY, "x"))
    assert world.entry("x") == "b:1"


def test_an_outage_with_local(world: World) -> None:
    """Claims are served here, and looks go where they went last."""
    b = world.instances["b:1"]
    placement = placement_of(b)
    found(placement.place(PHONE, "x"))
    b.redis.is_up = False
    world.pass_time(LIFE_S)
    assert found(placement.place(PHONE, "x")) == "a:1 x"
    assert found(placement.place(BINARY, "x")) is HERE
    assert found(placement.place(PHONE, "y")) is HERE


def test_an_outage_with_refuse(world: World) -> None:
    """Claims are refused for the moment; what is held and what is known goes on."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    placement = placement_of(b, refuses=True)
    found(placement.place(PHONE, "x"))
    a.redis.is_up = b.redis.is_up = False
    assert found(placement.place(BINARY, "x")) == (503, "owner_unavailable")
    assert found(placement.place(PHONE, "y")) == (503, "owner_unavailable")
    assert found(placement.place(PHONE, "x")) == "a:1 x"
    assert placement_of(a, refuses=True).place(BINARY, "x") is HERE


def test_a_woken_instance_asserts_before_it_serves(world: World) -> None:
    """What it has lost meanwhile is served by the other one; what it still holds is served here."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("y")
    a.is_stopped = True
    world.pass_time(6.1)
    b.seat("x")
    place = placement_of(a).place
    assert found(place(PHONE, "x")) == "b:1 x"
    assert found(place(PHONE, "y")) is HERE
    a.is_stopped = True
    world.pass_time(6.1)
    assert found(place(BINARY, "y")) is HERE


def test_an_unproven_owner_is_not_used(world: World) -> None:
    """The client may try again soon."""
    b = world.instances["b:1"]
    b.directory._secret = b"other"
    place = placement_of(b).place(PHONE, "x")
    assert found(place) == (503, "owner_unavailable")


def test_a_key_that_is_seated_while_another_client_waits(world: World) -> None:
    """An answer that is no answer does not send away what is held here by now."""
    b = world.instances["b:1"]
    placement = placement_of(b)
    b.redis.is_held = True
    waiting = placement.place(BINARY, "z")
    b.held.keys["z"] = None
    b.redis.fail_held()
    assert found(waiting) is HERE
