"""What people do every day, by the clients of nostr-sdk, which is rust-nostr with bindings for Python."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Relay, asynchronous, eventually
from tests.end_to_end.nostr.conftest import OPEN, restarted, subscriptions

sdk: Any = pytest.importorskip("nostr_sdk", reason="nostr-sdk is not installed (PyPI)")

CONNECTIONS = 'pyryrelay_connections{kind="nostr"}'
DEADLINE = timedelta(seconds=DEADLINE_S)
Keys, Kind, Tag = sdk.Keys, sdk.Kind, sdk.Tag


def signed(keys: Any, kind: int, content: str = "", tags: Sequence[Any] = (), at: int | None = None) -> Any:
    """Return an event."""
    builder = sdk.EventBuilder(Kind(kind), content).tags(list(tags))
    if at is not None:
        builder = builder.custom_created_at(sdk.Timestamp.from_secs(at))
    return builder.finalize(keys)


@contextlib.asynccontextmanager
async def connected(relay: Relay, keys: Any = None) -> AsyncIterator[Any]:
    """Connect a client, which authenticates with ``keys``, if there are any, once it is asked to."""
    sdk.uniffi_set_event_loop(asyncio.get_running_loop())  # An authenticator is called from another thread.
    builder = sdk.ClientBuilder()
    if keys is not None:
        builder = builder.authenticator(sdk.SignerAuthenticator(keys))
    client = builder.build()
    options = sdk.RelayOptions().retry_interval(timedelta(seconds=5)).adjust_retry_interval(False)
    await client.add_relay(sdk.RelayUrl.parse(relay.uri), opts=options)
    await client.connect(and_wait=DEADLINE)
    try:
        yield client
    finally:
        await client.shutdown()


@pytest.fixture(autouse=True)
def _forget_the_event_loop() -> Iterator[None]:
    """Leave no event loop behind that has ended: other tests use the library too."""
    yield
    sdk.uniffi_set_event_loop(None)


async def publish(client: Any, event: Any) -> str:
    """Publish an event, and return why the relay refused it; nothing if it did not."""
    output = await client.send_event(event, ok_timeout=DEADLINE, authentication_timeout=DEADLINE)
    assert len(output.success) + len(output.failed) == 1
    return "".join(output.failed.values())


async def fetch(client: Any, filter_: Any) -> list[str]:
    """Return the ids of stored events."""
    events = await client.fetch_events(sdk.ReqTarget.auto([filter_]), timeout=DEADLINE)
    assert all(event.verify() for event in events)
    return [event.id().to_hex() for event in events]


async def next_event(notifications: Any) -> str:
    """Return the id of the next event of a subscription."""
    while True:
        notification = await asyncio.wait_for(notifications.next(), DEADLINE_S)
        if notification.is_new_event():
            return str(notification.event.id().to_hex())


@asynchronous
async def test_publishing_and_fetching(relay: Relay) -> None:
    """Notes are fetched newest first, by author, kind, tag, time and id, up to a limit."""
    keys = Keys.generate()
    notes = [signed(keys, 1, f"note {at}", [sdk.Tag.hashtag(f"tag{at % 2}")], 1_700_000_000 + at) for at in range(10)]
    ids = [note.id().to_hex() for note in notes]
    mine = sdk.Filter().author(keys.public_key())
    async with connected(relay) as client:
        assert [await publish(client, note) for note in notes] == [""] * 10
        assert await publish(client, notes[0]) == ""
        assert await fetch(client, mine) == ids[::-1]
        assert await fetch(client, mine.kind(Kind(1)).limit(3)) == ids[:-4:-1]
        assert await fetch(client, mine.hashtag("tag1")) == ids[::-2]
        assert await fetch(client, mine.since(notes[2].created_at()).until(notes[3].created_at())) == ids[3:1:-1]
        assert await fetch(client, sdk.Filter().id(notes[5].id())) == [ids[5]]
        assert await fetch(client, mine.kind(Kind(7))) == []


@asynchronous
async def test_a_live_subscription(relay: Relay) -> None:
    """A subscriber gets what another client publishes, once, and nothing after it has unsubscribed."""
    keys = Keys.generate()
    mine = sdk.Filter().author(keys.public_key())
    async with connected(relay) as publisher, connected(relay) as reader:
        notifications = reader.notifications()
        subscription = await reader.subscribe(sdk.ReqTarget.auto([mine]))
        await fetch(reader, sdk.Filter().limit(0))
        for number in range(5):
            note = signed(keys, 1, f"live {number}")
            assert await publish(publisher, note) == ""
            assert await next_event(notifications) == note.id().to_hex()
        await reader.unsubscribe(subscription.id)
        await fetch(reader, sdk.Filter().limit(0))
        assert await publish(publisher, signed(keys, 1, "unheard")) == ""
        await reader.subscribe(sdk.ReqTarget.auto([mine.kind(Kind(7))]))
        await fetch(reader, sdk.Filter().limit(0))
        reaction = signed(keys, 7, "+")
        assert await publish(publisher, reaction) == ""
        assert await next_event(notifications) == reaction.id().to_hex()


@asynchronous
async def test_replacing(relay: Relay) -> None:
    """Of a profile, and of an article, the newest version is there; an older one is refused."""
    keys = Keys.generate()
    async with connected(relay) as client:
        for kind, tags in ((0, ()), (30023, (Tag.identifier("article"),))):
            versions = [signed(keys, kind, f"version {at}", tags, 1_700_000_000 + at) for at in range(3)]
            assert await publish(client, versions[1]) == ""
            assert await publish(client, versions[2]) == ""
            assert await publish(client, versions[0]) == "duplicate: have a newer version"
            found = await fetch(client, sdk.Filter().author(keys.public_key()).kind(Kind(kind)))
            assert found == [versions[2].id().to_hex()]
        other = signed(keys, 30023, "another article", [Tag.identifier("other")])
        assert await publish(client, other) == ""
        assert len(await fetch(client, sdk.Filter().author(keys.public_key()).kind(Kind(30023)))) == 2


@asynchronous
async def test_deleting(relay: Relay) -> None:
    """What its author deletes, by id or by address, is gone and does not come back; others delete nothing."""
    keys, stranger = Keys.generate(), Keys.generate()
    note = signed(keys, 1, "regretted")
    article = signed(keys, 30023, "regretted", [Tag.identifier("a")])
    address = Tag.coordinate(sdk.Coordinate(Kind(30023), keys.public_key(), "a"))
    regretted = sdk.Filter().author(keys.public_key()).kinds([Kind(1), Kind(30023)])
    async with connected(relay) as client:
        assert [await publish(client, event) for event in (note, article)] == ["", ""]
        assert await publish(client, signed(stranger, 5, "", [Tag.event(note.id()), address])) == ""
        assert len(await fetch(client, regretted)) == 2
        assert await publish(client, signed(keys, 5, "", [Tag.event(note.id()), address])) == ""
        assert await fetch(client, regretted) == []
        assert [await publish(client, event) for event in (note, article)] == ["blocked: deleted by its author"] * 2


@asynchronous
async def test_reading_with_authentication(start_nostr: StartRelay) -> None:
    """Where reading needs authentication, the client authenticates when it is asked to, and then reads."""
    relay = start_nostr("--nostr-read", "auth")
    keys = Keys.generate()
    note = signed(keys, 1, "for all who say who they are")
    async with connected(relay) as stranger, connected(relay, keys) as reader:
        assert await publish(stranger, note) == ""
        assert await fetch(reader, sdk.Filter()) == [note.id().to_hex()]
        assert await fetch(stranger, sdk.Filter()) == []


@asynchronous
async def test_writing_with_authentication(start_nostr: StartRelay) -> None:
    """Where writing needs authentication, the client authenticates when it is asked to, and then writes."""
    relay = start_nostr("--nostr-write", "auth")
    keys = Keys.generate()
    async with connected(relay) as stranger, connected(relay, keys) as writer:
        refused = await publish(stranger, signed(Keys.generate(), 1, "nobody"))
        assert "auth" in refused
        assert await publish(writer, signed(keys, 1, "somebody")) == ""
        assert await publish(writer, signed(keys, 1, "mine alone", [Tag.protected()])) == ""


@asynchronous
async def test_private_messages(relay: Relay) -> None:
    """A gift wrap is seen by its recipient alone: not by another client that authenticates, and by no stranger."""
    alice, bob, eve = (Keys.generate() for _ in range(3))
    wrap = signed(Keys.generate(), 1059, "sealed", [Tag.public_key(bob.public_key())])
    to_bob = sdk.Filter().kind(Kind(1059)).pubkey(bob.public_key())
    async with (
        connected(relay, alice) as sender,
        connected(relay, bob) as recipient,
        connected(relay, eve) as snoop,
        connected(relay) as stranger,
    ):
        notifications = recipient.notifications()
        assert await fetch(recipient, to_bob) == []
        await recipient.subscribe(sdk.ReqTarget.auto([to_bob]))
        await fetch(recipient, sdk.Filter().limit(0))
        assert await publish(sender, wrap) == ""
        assert await next_event(notifications) == wrap.id().to_hex()
        assert await fetch(recipient, to_bob) == [wrap.id().to_hex()]
        for other in (snoop, stranger):
            for filter_ in (to_bob, sdk.Filter().id(wrap.id()), sdk.Filter().author(wrap.author())):
                assert await fetch(other, filter_) == []


@pytest.mark.parametrize("is_killed", [True, False])
@asynchronous
async def test_a_restart(is_killed: bool, tmp_path: Path) -> None:
    """After a restart clients connect again, and find what was stored.

    Their subscriptions go on by themselves after a crash; an orderly end has closed them, so clients open them again.
    """
    keys = Keys.generate()
    before, after = signed(keys, 1, "before"), signed(keys, 1, "after")
    mine = sdk.ReqTarget.auto([sdk.Filter().author(keys.public_key())])
    first = Relay(tmp_path, OPEN)
    try:
        async with connected(first) as other:
            assert await publish(other, before) == ""
        async with connected(first) as client:
            notifications = client.notifications()
            await client.subscribe(mine)
            assert await next_event(notifications) == before.id().to_hex()
            if is_killed:
                first.discard()
            else:
                first.stop()
            second = restarted(first, OPEN)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    while not second.metrics()[CONNECTIONS]:
                        # The library waits for its next attempt in steps that grow, by chance to more than a minute.
                        await client.connect()
                        await asyncio.sleep(0.1)
                if not is_killed:
                    await client.subscribe(mine)
                await eventually(lambda: subscriptions(second) >= 1, "the subscription is open again")
                async with connected(second) as other:
                    assert await fetch(other, sdk.Filter()) == [before.id().to_hex()]
                    assert await publish(other, after) == ""
                assert await next_event(notifications) == after.id().to_hex()
            finally:
                second.stop()
    finally:
        first.discard()
