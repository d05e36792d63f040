"""`/healthz`: its status for load balancers, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from tests.support.pyry import World
from twisted.internet.task import Clock

from pyryrelay import __version__
from pyryrelay.observe.health import Health


def parts(world: World) -> Callable[[], Mapping[str, object]]:
    """What a protocol tells of itself."""
    return lambda: {"connected_binaries": world.registry.binaries, "connected_phones": world.registry.phone_count}


def test_the_page() -> None:
    """The page is one JSON object with the keys of the specification, in their order."""
    world, clock = World(), Clock()
    clock.advance(1000)
    health = Health(clock.seconds, clock.seconds(), [parts(world)])
    world.binary()
    world.phone()
    world.phone()
    clock.advance(61.9)
    page = health.page()
    assert page.status == 200
    assert dict(page.fields) == {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
    assert list(json.loads(page.body).items()) == [
        ("status", "ok"),
        ("version", __version__),
        ("connected_binaries", 1),
        ("connected_phones", 2),
        ("uptime_seconds", 61),
    ]


def test_draining() -> None:
    """While the relay shuts down the status is 503, and the page is otherwise unchanged."""
    health = Health(Clock().seconds, 0.0)
    health.drain()
    page = health.page()
    assert page.status == 503
    assert next(iter(json.loads(page.body))) == "status"
    assert json.loads(page.body)["status"] == "draining"
    assert ("Cache-Control", "no-store") in page.fields


def test_it_follows_the_registry() -> None:
    """The page is not cached: peers that have left are not counted."""
    world = World()
    health = Health(world.clock.seconds, 0.0, [parts(world)])
    binary = world.binary()
    binary.drops()
    assert json.loads(health.page().body)["connected_binaries"] == 0


def test_a_protocol_that_cannot_serve() -> None:
    """While a protocol cannot serve the status is 503; the end is told rather than that."""
    healthy = False
    health = Health(Clock().seconds, 0.0, [], lambda: healthy)
    assert (health.page().status, json.loads(health.page().body)["status"]) == (503, "failing")
    health.drain()
    assert json.loads(health.page().body)["status"] == "draining"
    healthy = True
    assert Health(Clock().seconds, 0.0, [], lambda: healthy).page().status == 200


def test_readiness() -> None:
    """A process is ready while it accepts connections and does not drain, whatever its protocols say."""
    health = Health(Clock().seconds, 0.0, [], lambda: False)
    pages = [health.ready_page()]
    health.is_accepting = True
    pages.append(health.ready_page())
    health.drain()
    pages.append(health.ready_page())
    health.undrain()
    pages.append(health.ready_page())
    found = [(page.status, json.loads(page.body)["status"]) for page in pages]
    assert found == [(503, "starting"), (200, "ready"), (503, "draining"), (200, "ready")]


def test_the_object_is_that_of_the_page() -> None:
    """A supervisor merges the objects of its workers."""
    health = Health(lambda: 5.5, 1.0, [lambda: {"peers": 3}])
    assert health.object() == json.loads(health.page().body)
    assert health.object() == {"status": "ok", "version": __version__, "peers": 3, "uptime_seconds": 4}


def test_a_process_that_serves_without_its_cluster_is_degraded() -> None:
    """Connections should come all the same, and the page of health says nothing of it."""
    is_away = True
    health = Health(Clock().seconds, 0.0, is_degraded=lambda: is_away)
    assert json.loads(health.ready_page().body)["status"] == "starting"
    health.is_accepting = True
    page = health.ready_page()
    assert (page.status, json.loads(page.body)["status"]) == (200, "degraded")
    assert (health.page().status, json.loads(health.page().body)["status"]) == (200, "ok")
    is_away = False
    assert json.loads(health.ready_page().body)["status"] == "ready"
