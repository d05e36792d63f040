"""The context that connections of one application share."""

from __future__ import annotations

import pytest
from tests.support.harness import BOB, World

from pyryrelay.websocket.context import ConnectionContext, WebSocketLimits


def test_connections_share_one_context() -> None:
    """Each connection of an application is in the ``open`` set of the same context while it lives."""
    world = World()
    first, _ = world.upgraded()
    second, _ = world.upgraded(BOB)
    context = world.factory.context
    assert isinstance(context, ConnectionContext)
    assert {id(connection.context) for connection in world.factory.open} == {id(context)}
    assert len(context.open) == 2
    first.transport.lose()
    second.transport.lose()
    assert not context.open


def test_contexts_are_not_mixed_up() -> None:
    """Two contexts are never equal, whatever is in them, and each has a set of its own."""
    one, other = World().factory.context, World().factory.context
    assert one != other
    assert one.open is not other.open


def test_limits_cannot_be_changed() -> None:
    """The limits that are read at the start cannot be replaced in place."""
    with pytest.raises(AttributeError):
        WebSocketLimits().fragments = 1  # type: ignore[misc]
