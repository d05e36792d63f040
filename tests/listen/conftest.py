"""Fixtures of the tests of listening sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.asking import SMALL
from tests.support.harness import World
from tests.support.listening import LOCALHOST, Place, Readers, own_reactor

from pyryrelay.guard import ClientAddress
from pyryrelay.listen.accept import Acceptor


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """A reactor for the tests of a module."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture
def world() -> World:
    """A world in which three attempts use up an address."""
    return World(gate=SMALL)


@pytest.fixture
def place(reactor: Any, world: World) -> Iterator[Place]:
    """An acceptor in front of `world`."""
    place = Place(reactor, world, has_acceptor=True)
    yield place
    place.close()


@pytest.fixture
def loopback_can_be_jailed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is exempt from the jail, and these tests have no other addresses."""
    monkeypatch.setattr(ClientAddress, "is_loopback", property(lambda self: False))


@pytest.fixture
def readers() -> Readers:
    """A reactor that does nothing by itself."""
    return Readers()


@pytest.fixture
def port(readers: Readers, world: World) -> Iterator[Acceptor]:
    """An acceptor under `readers`."""
    port = Acceptor(readers, 0, world.http_factory, 5, LOCALHOST)
    port.startListening()
    yield port
    port.stopListening()
    assert not readers.getDelayedCalls()
