"""What every query has in common: it ends once, and its client is told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_queries import OTHER, opened
from tests.support.nostr_relay import event


@pytest.mark.parametrize(
    ("aborted", "text"),
    [
        ("expensive", "error: query too expensive, name authors, kinds, tags or times"),
        ("timeout", "error: query took too long"),
        ("error", "error: could not read the store"),
    ],
)
def test_a_query_that_fails_closes_its_subscription(aborted: Any, text: str) -> None:
    """The client is told, and nothing is delivered any more."""
    world, client = opened()
    world.readers.running[0].done(None, aborted=aborted)
    assert client.take() == [["CLOSED", "s", text]]
    assert world.relay.subscriptions == 0
    world.client(OTHER).publish(event())
    assert client.take() == []
