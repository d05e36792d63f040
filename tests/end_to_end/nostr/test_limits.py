"""The numbers of the information document are the limits that are enforced: each is tried from both sides."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from typing import Any

import pytest
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Relay, asynchronous
from tests.end_to_end.nostr.conftest import OPEN
from tests.end_to_end.nostr.peers import Author, Event, client

SLACK_S = 50
"""More than a test needs between signing an event and having it checked."""
OTHERS = (
    *("--nostr-max-message-bytes", "20000", "--nostr-max-subscriptions", "16"),
    *("--nostr-max-limit", "30", "--nostr-default-limit", "10"),
    *("--nostr-max-tags", "20", "--nostr-max-content-chars", "1000"),
    *("--nostr-reject-older", "1000", "--nostr-reject-newer", "200", "--nostr-min-pow", "3"),
)


@pytest.fixture(scope="module", params=[(), OTHERS], ids=["defaults", "others"])
def relay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay without quotas, with the default limits and with others."""
    relay = Relay(tmp_path_factory.mktemp("limits"), (*OPEN, *request.param))
    yield relay
    relay.stop()


@pytest.fixture
def limitation(relay: Relay) -> dict[str, Any]:
    """What the document says."""
    with contextlib.closing(HTTPConnection(LOCALHOST, relay.port, DEADLINE_S)) as connection:
        connection.request("GET", "/", headers={"Accept": "application/nostr+json"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())["limitation"]
    return found


def zero_bits(event: Event) -> int:
    """Return the difficulty of an event's id (NIP-13)."""
    return 256 - int(event["id"], 16).bit_length()


def mined(
    limitation: dict[str, Any], content: str = "", tags: Sequence[Sequence[str]] = (), created_at: int | None = None
) -> Event:
    """Return an event of a new author with enough work, and one tag more than was asked for."""
    author, difficulty = Author(), limitation["min_pow_difficulty"]
    for nonce in itertools.count():
        event = author.event(content, tags=[*tags, ["nonce", str(nonce), str(difficulty)]], created_at=created_at)
        if zero_bits(event) >= difficulty:
            return event
    raise AssertionError


@asynchronous
async def test_max_message_length(relay: Relay, limitation: dict[str, Any]) -> None:
    """A message of so many bytes is taken, and a longer one ends the connection."""
    async with client(relay.uri) as peer:
        await peer.connection.send(" " * limitation["max_message_length"])
        await peer.settled()
        await peer.connection.send(" " * (limitation["max_message_length"] + 1))
        assert (await peer.closed())[0] == 1009


@asynchronous
async def test_max_subscriptions(relay: Relay, limitation: dict[str, Any]) -> None:
    """A connection may have so many subscriptions; any of them may be replaced or closed."""
    most = limitation["max_subscriptions"]
    async with client(relay.uri) as peer:
        for number in range(most):
            await peer.subscribe(str(number), {"limit": 0})
        assert (await peer.request("more", {"limit": 0}))[1] == [
            "CLOSED",
            "more",
            f"rate-limited: more than {most} subscriptions",
        ]
        await peer.subscribe("0", {"limit": 0})
        await peer.send("CLOSE", "1")
        await peer.subscribe("more", {"limit": 0})


@asynchronous
async def test_limits_of_filters(relay: Relay, limitation: dict[str, Any]) -> None:
    """Without a limit a filter yields so many events, and with any at most so many."""
    author, most, default = Author(), limitation["max_limit"], limitation["default_limit"]
    mark = ["t", author.pubkey]
    wanted = {"#t": [author.pubkey]}
    async with client(relay.uri) as peer:
        now = int(time.time())
        events = [mined(limitation, f"{number}", [mark], now - number % 60) for number in range(most + 60)]
        assert set(await peer.publish_all(events)) == {(True, "")}
        # A cap may be exceeded a little, so that it does not split the events of one second.
        assert default <= len(await peer.fetch(wanted)) <= default + 50
        assert most <= len(await peer.fetch(wanted | {"limit": most + 60})) <= most + 50
        assert len(await peer.fetch(wanted | {"limit": 5})) == 5


@asynchronous
async def test_max_subid_length(relay: Relay, limitation: dict[str, Any]) -> None:
    """A subscription id may have so many characters."""
    most = limitation["max_subid_length"]
    async with client(relay.uri) as peer:
        await peer.subscribe("é" * most, {"limit": 0})
        _, end = await peer.request("é" * (most + 1), {"limit": 0})
        assert end[2] == f"invalid: subscription id must have 1 to {most} characters"


@asynchronous
async def test_max_event_tags(relay: Relay, limitation: dict[str, Any]) -> None:
    """An event may have so many tags."""
    most = limitation["max_event_tags"]
    async with client(relay.uri) as peer:
        assert await peer.publish(mined(limitation, tags=[["t"]] * (most - 1))) == (True, "")
        refusal = await peer.publish(mined(limitation, tags=[["t"]] * most))
        assert refusal == (False, f"invalid: event has more than {most} tags")


@asynchronous
async def test_max_content_length(relay: Relay, limitation: dict[str, Any]) -> None:
    """A content may have so many characters, which may be of several bytes as long as the event is not too long."""
    most = limitation["max_content_length"]
    text = "é" * min(most, 10_000) + "x" * max(0, most - 10_000)
    async with client(relay.uri) as peer:
        assert await peer.publish(mined(limitation, text)) == (True, "")
        refusal = await peer.publish(mined(limitation, text + "x"))
        assert refusal == (False, f"invalid: content is longer than {most} characters")


@asynchronous
async def test_created_at_limits(relay: Relay, limitation: dict[str, Any]) -> None:
    """An event may be so old, and so new."""
    past, future = limitation["created_at_lower_limit"], limitation["created_at_upper_limit"]
    async with client(relay.uri) as peer:
        for beyond, limit_s, word in ((-1, past, "past"), (1, future, "future")):
            now = int(time.time())
            within = mined(limitation, created_at=now + beyond * (limit_s - SLACK_S))
            assert await peer.publish(within) == (True, "")
            refusal = await peer.publish(mined(limitation, created_at=now + beyond * (limit_s + SLACK_S)))
            assert refusal == (False, f"invalid: created_at is more than {limit_s} s in the {word}")


@asynchronous
async def test_min_pow_difficulty(relay: Relay, limitation: dict[str, Any]) -> None:
    """An event needs so much work, and has to aim at it."""
    least, author = limitation["min_pow_difficulty"], Author()
    assert limitation["restricted_writes"] == (least > 0)
    async with client(relay.uri) as peer:
        assert await peer.publish(mined(limitation)) == (True, "")
        if not least:
            return
        lazy = next(event for event in author.notes(1000) if zero_bits(event) == least - 1)
        assert await peer.publish(lazy) == (False, f"pow: difficulty {least - 1} is less than {least}")
        lucky = next(
            event
            for number in range(1000)
            if zero_bits(event := author.event(str(number), tags=[["nonce", "0", str(least - 1)]])) >= least
        )
        assert await peer.publish(lucky) == (False, f"pow: committed target {least - 1} is less than {least}")
