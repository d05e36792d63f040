"""What the relay gets from its surroundings does not change while it runs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
from tests.support.nostr_relay import World

from pyryrelay.nostr.serving.surroundings import Store


def test_the_surroundings_are_fixed() -> None:
    """Neither the machine nor the child processes can be exchanged under what uses them."""
    world = World()
    store = Store(world.relay.store.writer, world.relay.store.readers, world.relay.store.verifiers)
    for one in (world.relay.machine, store):
        for field in fields(one):
            with pytest.raises(FrozenInstanceError):
                setattr(one, field.name, None)


def test_an_open_connection_is_a_member() -> None:
    """The relay knows of each connection who it is, and what it has open, until it ends."""
    world = World()
    client = world.client()
    (member,) = world.relay.members.values()
    assert (member.client, member.subscriptions) == (client.session.client, 0)
    client.send(["REQ", "s", {"limit": 0}])
    assert member.subscriptions == 1
