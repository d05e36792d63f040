"""Clients that do not read, floods, forgers, compression, a writer that stands still: others are served all along."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Relay, asynchronous, eventually
from tests.end_to_end.nostr.conftest import OPEN, children
from tests.end_to_end.nostr.peers import Author, client, encoded, ids_of
from tests.end_to_end.raw import TEXT, UPGRADE, Raw, ask, frame, head, raw, silence
from websockets.exceptions import ConnectionClosed

MIB = 1024 * 1024
BEHIND = ("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")


def memory_bytes(relay: Relay) -> int:
    """Return the private memory of all processes of a relay."""
    total = 0
    for pid in [
        relay.process.pid,
        *children(relay, "reader"),
        *children(relay, "writer"),
        *children(relay, "verifier"),
    ]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


@asynchronous
async def test_clients_that_ask_for_everything_and_read_nothing(start_nostr: StartRelay) -> None:
    """Fifty of them cost a bounded amount of memory, and another client is served meanwhile."""
    relay = start_nostr(*OPEN[2:])
    everything = b"".join(frame(TEXT, encoded(["REQ", str(number), {}]).encode()) for number in range(20))
    author = Author()
    async with client(relay.uri) as other, contextlib.AsyncExitStack() as stack:
        notes = author.notes(500, 20_000)
        assert all(accepted for accepted, _ in await other.publish_all(notes))
        before = memory_bytes(relay)
        for _ in range(50):
            peer = await stack.enter_async_context(raw(relay.address, receive_bytes=16_384))
            await peer.send(head("/", *UPGRADE))
            assert (await peer.response()).status == 101
            await peer.send(everything)
        for number in range(20):
            note = author.event("meanwhile", tags=[["t", str(number)]])
            assert await other.publish(note) == (True, "")
            assert await other.fetch({"authors": [author.pubkey], "#t": [str(number)]}) == [note]
        assert memory_bytes(relay) - before < 100 * MIB
    await eventually(lambda: relay.connections()['pyryrelay_connections{kind="nostr"}'] == 0, "everybody has left")


@asynchronous
async def test_a_writer_that_stands_still(start_nostr: StartRelay) -> None:
    """While the writer does nothing events wait, nobody else's reads do, and publishers are not read from for ever."""
    relay = start_nostr(*OPEN[2:])
    author = Author()
    notes = author.notes(2_000, 1_000)
    async with client(relay.uri) as publisher, client(relay.uri) as reader:
        first = author.event("before")
        assert await publisher.publish(first) == (True, "")
        (writer,) = children(relay, "writer")
        os.kill(writer, signal.SIGSTOP)
        try:
            publishing = asyncio.create_task(publisher.publish_all(notes))
            for _ in range(50):
                assert await reader.fetch({"ids": [first["id"]]}) == [first]
                assert (await reader.count({"authors": [author.pubkey]}))[1]["count"] == 1
            # At most 64 events, and those that were read in one piece with the last of them.
            assert 0 < relay.metrics()["pyryrelay_nostr_write_queue"] < 500
            assert not publishing.done()
        finally:
            os.kill(writer, signal.SIGCONT)
        assert await publishing == [(True, "")] * len(notes)
        assert (await reader.count({"authors": [author.pubkey]}))[1]["count"] == len(notes) + 1


async def _upgraded(peer: Raw, forwarded: str) -> int:
    await peer.send(head("/", *UPGRADE, ("X-Forwarded-For", forwarded)))
    return (await peer.response()).status


@asynchronous
async def test_forgers_are_jailed(start_nostr: StartRelay) -> None:
    """Wrong ids and signatures are strikes; a jailed client gets no answer, and others do."""
    relay = start_nostr(*BEHIND, "--jail-after", "20/minute")
    note = Author().event("genuine")
    forgeries = {"192.0.2.1": note | {"sig": "0" * 128}, "192.0.2.2": note | {"content": "forged"}}
    for address, forged in forgeries.items():
        async with raw(relay.address) as peer:
            assert await _upgraded(peer, address) == 101
            await peer.send(frame(TEXT, encoded(["EVENT", forged]).encode()) * 40)
            await relay.log_will_have(f"jailed {address}")
    for address in (*forgeries, "192.0.2.3"):
        request = head("/", ("Host", "relay"), ("Accept", "application/nostr+json"), ("X-Forwarded-For", address))
        if address in forgeries:
            assert await silence(relay.address, request)
        else:
            assert (await ask(relay.address, request)).status == 200


@asynchronous
async def test_rate_limits_are_no_strikes(start_nostr: StartRelay) -> None:
    """An honest client that empties its queue into the relay is refused, and never jailed."""
    relay = start_nostr(*BEHIND, "--jail-after", "5/minute", "--nostr-event-quota", "1/day burst 10")
    async with client(relay.uri, additional_headers={"X-Forwarded-For": "192.0.2.1"}) as peer:
        answers = await peer.publish_all(Author().notes(100))
    assert [accepted for accepted, _ in answers] == [True] * 10 + [False] * 90
    assert all(text.startswith("rate-limited: too many events, try again in ") for _, text in answers[10:])
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 0


@asynchronous
async def test_an_ipv6_network_is_one_client(start_nostr: StartRelay) -> None:
    """All addresses of a /64 share one quota, and those of the next /64 have their own."""
    relay = start_nostr(*BEHIND, "--nostr-event-quota", "1/day burst 10", "--nostr-pubkey-quota", "off")
    accepted: dict[str, int] = {}
    for network in ("2001:db8:0:1", "2001:db8:0:2"):
        for host in range(1, 6):
            async with client(relay.uri, additional_headers={"X-Forwarded-For": f"{network}::{host}"}) as peer:
                answers = await peer.publish_all(Author().notes(5))
                accepted[network] = accepted.get(network, 0) + sum(one for one, _ in answers)
    assert accepted == {"2001:db8:0:1": 10, "2001:db8:0:2": 10}


@asynchronous
async def test_a_flood_of_connections(start_nostr: StartRelay) -> None:
    """Beyond its quota of upgrades a client is refused before the upgrade, and another one connects."""
    relay = start_nostr(*BEHIND, "--upgrade-quota", "1/day burst 10")
    found = []
    for _ in range(30):
        async with raw(relay.address) as peer:
            found.append(await _upgraded(peer, "192.0.2.1"))
    assert found == [101] * 10 + [429] * 20
    async with client(relay.uri, additional_headers={"X-Forwarded-For": "192.0.2.2"}) as other:
        assert await other.publish(Author().event("hello")) == (True, "")


@asynchronous
async def test_compression(start_relay: StartRelay) -> None:
    """Compressed messages are the same messages, and a bomb ends its connection before it is inflated."""
    for mode in ("no-context", "context"):
        relay = start_relay(*OPEN, "--nostr-deflate", mode)
        author = Author()
        async with client(relay.uri, compression="deflate") as peer, client(relay.uri) as plain:
            assert peer.connection.response is not None
            assert "permessage-deflate" in peer.connection.response.headers["Sec-WebSocket-Extensions"]
            await plain.subscribe("live", {"authors": [author.pubkey]})
            await peer.subscribe("live", {"authors": [author.pubkey]})
            notes = [*author.notes(20, 10_000), author.event("é\0\U0001f600" * 1000)]
            assert set(await peer.publish_all(notes)) == {(True, "")}
            for reader in (peer, plain):
                assert [(await reader.live("live"))["id"] for _ in notes] == ids_of(notes)
            assert sorted(ids_of(await peer.fetch({}))) == sorted(ids_of(notes))
            before = memory_bytes(relay)
            async with client(relay.uri, compression="deflate") as bomber:
                with contextlib.suppress(ConnectionClosed):
                    await bomber.connection.send(" " * 50 * MIB)
                assert (await bomber.closed())[0] == 1009
            assert memory_bytes(relay) - before < 16 * MIB
            assert await peer.fetch({"ids": [notes[0]["id"]]}) == [notes[0]]
