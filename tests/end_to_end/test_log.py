"""What is in the log after a flood, and the forms of client addresses."""

from __future__ import annotations

import re
import socket

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, SLOW, Relay, asynchronous
from tests.end_to_end.peers import Pair, binary, closed, fresh_id, phone
from tests.end_to_end.raw import ask, head, statuses, upgrade

ATTEMPT = upgrade("/v1/client", "unclaimed")


def _attempt(relay: Relay, request: bytes, source: str) -> bytes:
    """Make one attempt over a plain socket, which is the fastest way, and return the beginning of its answer."""
    with socket.create_connection(relay.address, DEADLINE_S, (source, 0)) as connection:
        connection.sendall(request)
        return connection.recv(12)


def test_flood_of_refusals(start_relay: StartRelay) -> None:
    """Thousands of refusals of one address are counted one by one, and logged in a few lines for each 10 s."""
    relay = start_relay(*SLOW)
    requests = [ATTEMPT, head("/nothing", ("Host", "relay")), b"nonsense\r\n\r\n", upgrade("/v1/server", "a b")]
    for number in range(2400):
        _attempt(relay, requests[number % 4], "127.0.0.2")
    metrics = relay.metrics()
    refused = sum(value for name, value in metrics.items() if name.startswith("pyryrelay_refusals_total"))
    upgraded = 'pyrycode_relay_ws_upgrade_attempts_total{endpoint="client",outcome="reject_404"}'
    assert refused + metrics[upgraded] == 2400
    log = relay.log()
    assert "127.0.0.2" in log
    assert len(log.splitlines()) < 300


@asynchronous
async def test_flood_of_bad_envelopes(start_relay: StartRelay) -> None:
    """Thousands of envelopes that cannot be delivered are logged in a few lines."""
    relay = start_relay("--dropped-envelope-quota", "off")
    async with binary(relay.uri, "x") as one, phone(relay.uri, "x") as other:
        for _ in range(3000):
            await one.send('{"conn_id":"unknown","frame":1}')
        await Pair("x", one, other).exchange()
    assert relay.metrics()['pyryrelay_envelopes_dropped_total{kind="unknown_conn_id"}'] == 3000
    assert len(relay.log().splitlines()) < 300


def _addresses(relay: Relay) -> set[str]:
    """Return everything in the log that looks like an address of the client's network."""
    return set(re.findall(r"127\.0\.77\.\d+(?:/\d+)?", relay.log()))


@pytest.mark.parametrize(
    ("form", "found"),
    [("full", {"127.0.77.7"}), ("prefix", {"127.0.77.0/24"}), ("hashed", set()), ("none", set())],
)
@asynchronous
async def test_log_client_address(form: str, found: set[str], start_relay: StartRelay) -> None:
    """The whole log shows addresses in the chosen form only, for accepted, refused and lost clients alike."""
    relay = start_relay("--log-client-address", form)
    source = "127.0.77.7"
    async with binary(relay.uri, "x", source=source) as one, phone(relay.uri, "x", source=source) as other:
        await Pair("x", one, other).exchange()
        await one.send("nonsense")
        await other.send("nonsense")
        assert (await closed(other))[0] == 1007
        await closed(await binary(relay.uri, "x", source=source))
    await statuses(relay.address, ATTEMPT, 21, source=source)
    for request in (b"nonsense\r\n\r\n", head("/nothing", ("Host", "relay")), upgrade("/v1/client", "a b")):
        await ask(relay.address, request, source=source)
    relay.stop()
    assert "rate_limit" in relay.log()
    assert _addresses(relay) == found


@asynchronous
async def test_hashed_addresses_can_be_told_apart(start_relay: StartRelay) -> None:
    """With hashed, one address is the same word throughout, and another address another word."""
    relay = start_relay("--log-client-address", "hashed")
    for source in ("127.0.77.7", "127.0.77.8", "127.0.77.7"):
        async with binary(relay.uri, fresh_id(), source=source) as one:
            await one.send("{}")
    words = re.findall(r"binary claimed .* from (\w+)", relay.log())
    assert len(words) == 3
    assert words[0] == words[2] != words[1]


@asynchronous
async def test_nothing_confidential(start_relay: StartRelay) -> None:
    """No frame, token or unknown header reaches the log, not even of refused requests."""
    relay = start_relay()
    fields = (("x-pyrycode-token", "marker-token"), ("Cookie", "marker-cookie"), ("Authorization", "marker-auth"))
    async with binary(relay.uri, "x", *fields) as one, phone(relay.uri, "x", *fields) as other:
        await other.send('"marker-frame"')
        await one.send('{"conn_id":"marker-conn-id","frame":"marker-reply"}')
        await one.send('{"push_wake":{"platform":"fcm","token":"marker-wake"}}')
        await one.send("marker-nonsense")
        await other.send("marker-nonsense")
        assert (await closed(other))[0] == 1007
    await ask(relay.address, upgrade("/v1/client", "marker id", *fields))
    await ask(relay.address, head("/marker-path?marker=query", ("Host", "marker-host"), *fields))
    await ask(relay.address, b"GET /marker\x00 HTTP/1.1\r\n\r\n")
    relay.stop()
    assert "marker" not in relay.log()


@asynchronous
async def test_no_line_can_be_forged(start_relay: StartRelay) -> None:
    """Text of clients is quoted in the log, with line ends and control characters escaped."""
    relay = start_relay()
    fields = [("x-pyrycode-device-name", "\x9b31m\x85[forged] {server_id} %s"), ("User-Agent", "{count}")]
    async with binary(relay.uri, "{log_level}%n") as one, phone(relay.uri, "{log_level}%n", *fields) as other:
        await Pair("x", one, other).exchange()
    relay.stop()
    log = relay.log()
    assert "\x9b" not in log
    assert "\x85" not in log
    assert not any(line.startswith("[forged]") for line in log.splitlines())
    assert "{log_level}%n" in log
