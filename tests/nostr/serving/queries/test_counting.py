"""COUNT."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_queries import OTHER
from tests.support.nostr_relay import World, event

from pyryrelay.guard import Quota
from pyryrelay.nostr.serving import recent


def test_count_is_answered() -> None:
    """The number that the reader found."""
    world = World()
    client = world.client()
    client.send(["COUNT", "c", {"kinds": [1]}])
    (query,) = world.readers.running
    assert query.query.count is not None
    assert query.query.count.max_count == 1_000_000
    query.listener.counted(42, False, None)
    query.done()
    assert client.take() == [["COUNT", "c", {"count": 42}]]
    assert world.relay.subscriptions == 0


@pytest.mark.parametrize(
    ("filters", "options", "expected"),
    [
        ([{"#e": ["e" * 64]}], {}, True),
        ([{"#e": ["e" * 64]}], {"nostr_hll": False}, False),
        ([{"kinds": [7]}], {}, False),
        ([{"#e": ["e" * 64]}, {"#t": ["x"]}], {}, False),
    ],
)
def test_registers_are_made_for_one_filter_with_a_tag(
    filters: list[dict[str, Any]], options: dict[str, Any], expected: bool
) -> None:
    """HyperLogLog needs one filter with a tag, and can be turned off."""
    world = World(**options)
    world.client().send(["COUNT", "c", *filters])
    count = world.readers.running[0].query.count
    assert count is not None
    assert count.hll is expected


def test_an_approximate_count_says_so() -> None:
    """The answer has the third member then."""
    world = World()
    client = world.client()
    client.send(["COUNT", "c", {}])
    world.readers.running[0].listener.counted(9, True, None)
    world.readers.running[0].done()
    assert client.take() == [["COUNT", "c", {"count": 9, "approximate": True}]]


def test_counting_can_be_off() -> None:
    """With a limit of 0 there is no counting."""
    client = World(nostr_max_count=0).client()
    assert client.ask(["COUNT", "c", {}]) == [["CLOSED", "c", "unsupported: counting is off here"]]


def test_counts_have_a_quota() -> None:
    """Refused with CLOSED, as always."""
    world = World(nostr_count_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    client.send(["COUNT", "a", {}])
    assert client.ask(["COUNT", "b", {}]) == [["CLOSED", "b", "rate-limited: too many counts"]]


def test_close_cancels_a_count() -> None:
    """There is no answer then."""
    world = World()
    client = world.client()
    client.send(["COUNT", "c", {}], ["CLOSE", "c"])
    assert world.readers.running == []
    assert client.take() == []


def test_a_count_of_private_kinds_needs_authentication() -> None:
    """The challenge comes first."""
    client = World().client()
    challenge, refused = client.ask(["COUNT", "c", {"kinds": [4]}])
    assert challenge[0] == "AUTH"
    assert refused == ["CLOSED", "c", "auth-required: these kinds are for their recipients"]


def test_counts_count_as_open() -> None:
    """Waiting counts are bounded with the subscriptions."""
    world = World(nostr_max_subscriptions=16)
    client = world.client()
    client.send(*[["COUNT", str(number), {}] for number in range(16)])
    assert client.ask(["COUNT", "x", {}]) == [["CLOSED", "x", "rate-limited: more than 16 subscriptions"]]


def test_count_counts_ephemerals_in_memory() -> None:
    """What REQ would send is counted."""
    world = World(nostr_ephemeral_lifetime_s=60)
    world.client(OTHER).publish(event("1", kind=20001), event("2", kind=20001))
    client = world.client()
    client.send(["COUNT", "c", {"kinds": [20001], "limit": 1}])
    world.readers.running[0].listener.counted(0, False, None)
    world.readers.running[0].done()
    assert client.take() == [["COUNT", "c", {"count": 2}]]


def test_a_count_that_leaves_out_ephemerals_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message looks at so many of them; then the count is approximate, and has no registers."""
    monkeypatch.setattr(recent, "MAX_EXAMINED", 3)
    world = World(nostr_ephemeral_lifetime_s=60)
    world.client(OTHER).publish(*(event(str(number), kind=20001, tags=[["t", "x"]]) for number in range(4)))
    client = world.client()
    client.send(["COUNT", "c", {"#t": ["x"]}])
    world.readers.running[0].listener.counted(5, False, "00" * 256)
    world.readers.running[0].done()
    assert client.take() == [["COUNT", "c", {"count": 8, "approximate": True}]]
