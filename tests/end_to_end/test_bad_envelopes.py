"""Malformed envelopes and simultaneous claims: the binary stays connected, and dropped envelopes are counted.

`unharmed` is the second half of each test: another pair exchanges frames before and after, and every lease is released;
the fixture `relay` checks that the log holds no traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Relay, asynchronous
from tests.end_to_end.peers import binary, conn_id_of, pair, phone, unharmed
from websockets.exceptions import ConnectionClosed

WRONG_ENVELOPES = {
    "malformed": [
        "hello",
        "",
        "[]",
        "null",
        '"conn_id"',
        "1",
        "{",
        '{"conn_id":"ID","frame":}',
        '{"conn_id":1,"frame":1}',
        '{"conn_id":["ID"],"frame":1}',
        '{"conn_id":"ID","frame":1,"close_code":"4401"}',
        '{"conn_id":"ID","frame":1,"close_code":4401.5}',
        '{"conn_id":"ID","frame":1} {}',
        '{"conn_id":"ID","frame":NaN}',
        '{"conn_id":"ID","frame":' + "[" * 5000 + "]" * 5000 + "}",
        "[" * 100_000,
    ],
    "missing_conn_id": ["{}", '{"frame":1}', '{"conn_id":"","frame":1}', '{"conn_id":null,"frame":1}'],
    "nothing_to_do": ['{"conn_id":"ID"}', '{"conn_id":"ID","frame":null}', '{"conn_id":"ID","close_code":0}'],
    "bad_close_code": [
        f'{{"conn_id":"ID","frame":1,"close_code":{code}}}'
        for code in (1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1, 65536, 10**30)
    ],
    "unknown_conn_id": [
        '{"conn_id":"client-ID","frame":1}',
        '{"conn_id":"unknown","close_code":4401}',
        '{"conn_id":"\\u0000","frame":1}',
    ],
}


def _dropped(relay: Relay) -> dict[str, float]:
    name = "pyryrelay_envelopes_dropped_total"
    return {key: value for key, value in relay.metrics().items() if key.startswith(name)}


@pytest.mark.parametrize("kind", WRONG_ENVELOPES)
@asynchronous
async def test_wrong_envelope(kind: str, relay: Relay) -> None:
    """An envelope that cannot be delivered is dropped and counted by its kind; the binary and its phones stay."""
    async with unharmed(relay), pair(relay.uri) as peers:
        conn_id = await peers.exchange()
        before = _dropped(relay)
        for text in WRONG_ENVELOPES[kind]:
            await peers.binary.send(text.replace("ID", conn_id))
            await peers.binary.send(text.replace("ID", conn_id).encode())
        await peers.exchange()
        grown = {name: value - before[name] for name, value in _dropped(relay).items()}
        expected = dict.fromkeys(grown, 0)
        expected[f'pyryrelay_envelopes_dropped_total{{kind="{kind}"}}'] = 2 * len(WRONG_ENVELOPES[kind])
        assert grown == expected


@asynchronous
async def test_too_many_wrong_envelopes(relay: Relay) -> None:
    """A binary that sends too many invalid envelopes is closed, and no other peer is."""
    async with unharmed(relay) as siblings, binary(relay.uri, "babbler") as bad:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await bad.send("{}")
                await asyncio.sleep(0)  # The client reads what it is sent.
        assert (bad.close_code, bad.close_reason) == (1008, "too many undeliverable envelopes")
        await siblings.exchange()


@asynchronous
async def test_envelope_of_a_phone_that_left(relay: Relay) -> None:
    """An envelope for a phone that has left is dropped."""
    async with unharmed(relay), pair(relay.uri) as peers, phone(relay.uri, peers.server_id) as leaving:
        conn_id = await conn_id_of(leaving, peers.binary)
        await leaving.close()
        await peers.binary.send(json.dumps({"conn_id": conn_id, "frame": 1}))
        await peers.exchange()


@asynchronous
async def test_crowd_of_claimers(start_relay: StartRelay) -> None:
    """Of many simultaneous claims for one server-id one holds it, all others get 4409, and no lease is left."""
    relay = start_relay("--upgrade-quota", "1000/minute burst 1000", "--max-binaries-per-address", "off")

    async def claim() -> int | None:
        async with binary(relay.uri, "x") as one:
            done, _ = await asyncio.wait({asyncio.create_task(one.wait_closed()), won}, return_when="FIRST_COMPLETED")
            return one.close_code if won not in done else None

    won: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    claims = [asyncio.create_task(claim()) for _ in range(30)]
    accepted = 'pyrycode_relay_ws_upgrade_attempts_total{endpoint="server",outcome="accept"}'
    conflicts = 'pyrycode_relay_ws_upgrade_attempts_total{endpoint="server",outcome="reject_409"}'
    await relay.metric_will_be(conflicts, 29)
    assert relay.metrics()[accepted] == 1
    assert relay.connections()['pyryrelay_connections{kind="server"}'] >= 1
    won.set_result(None)
    codes = await asyncio.gather(*claims)
    assert codes.count(4409) + codes.count(None) == 30
    await relay.all_leases_end()
