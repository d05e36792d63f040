"""Plain HTTP: refusals before an upgrade, /healthz, and the metrics on the admin listener."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Relay, asynchronous, http_get
from tests.end_to_end.peers import closed, fresh_id, pair, phone, unharmed
from tests.end_to_end.raw import UPGRADE, Fields, Response, ask, head, raw, statuses, upgrade

SERVER, CLIENT = "/v1/server", "/v1/client"
SERVER_ID = ("x-pyrycode-server", "x")
VERSION = ("x-pyrycode-version", "1")
WITHOUT_AGENT = [field for field in UPGRADE if field[0] != "User-Agent"]

HEALTH_KEYS = ["status", "version", "connected_binaries", "connected_phones", "uptime_seconds"]
"""The keys of the relay and of pyry. Other protocols add theirs."""


def _assert_ends(answer: Response, status: int) -> None:
    """Check that a refusal has this status, an empty body, and announces the end that `ask` has waited for."""
    assert (answer.status, answer.body) == (status, b"")
    assert answer.fields["content-length"] == "0"
    assert answer.fields["connection"] == ("Upgrade, close" if status == 426 else "close")
    age = datetime.now(UTC) - parsedate_to_datetime(answer.fields["date"])
    assert abs(age) < timedelta(minutes=5)
    assert "server" not in answer.fields


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (SERVER, [*UPGRADE, VERSION]),
        (SERVER, [*UPGRADE, SERVER_ID]),
        (SERVER, [*WITHOUT_AGENT, SERVER_ID, VERSION]),
        (SERVER, [*UPGRADE, ("x-pyrycode-server", ""), VERSION]),
        (SERVER, [*UPGRADE, SERVER_ID, ("x-pyrycode-version", "")]),
        (SERVER, [*UPGRADE, SERVER_ID, SERVER_ID, VERSION]),
        (SERVER, [*UPGRADE, SERVER_ID, VERSION, VERSION]),
        ("/v2/server", [*UPGRADE, SERVER_ID]),
        (CLIENT, UPGRADE),
        (CLIENT, [*WITHOUT_AGENT, SERVER_ID]),
        (CLIENT, [*WITHOUT_AGENT, SERVER_ID, ("User-Agent", "")]),
        (CLIENT, [*UPGRADE, ("x-pyrycode-server", "x" * 129)]),
        (CLIENT, [*UPGRADE, ("x-pyrycode-server", "a b")]),
        (CLIENT, [*UPGRADE, ("x-pyrycode-server", "a\tb")]),
        (CLIENT, [*UPGRADE, ("x-pyrycode-server", "caf\xe9")]),
        ("/v2/client", UPGRADE),
        (CLIENT, [*[field for field in UPGRADE if field[0] != "Sec-WebSocket-Key"], SERVER_ID]),
        (CLIENT, [*UPGRADE, SERVER_ID, ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]),
    ],
)
@asynchronous
async def test_header_gate(path: str, fields: Fields, relay: Relay) -> None:
    """A required header that is missing, empty, repeated or unacceptable gets 400, and the registry is untouched."""
    async with unharmed(relay):
        before = relay.metrics()["pyrycode_relay_connected_binaries"]
        _assert_ends(await ask(relay.address, head(path, *fields)), 400)
        assert relay.metrics()["pyrycode_relay_connected_binaries"] == before


@asynchronous
async def test_longest_server_id(relay: Relay) -> None:
    """A server-id may have 128 characters of printable ASCII."""
    async with pair(relay.uri, ("~!" + fresh_id()).ljust(128, "#")) as peers:
        await peers.exchange()


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/server/", "/v3/server", "//v1/server", "/metrics", "*", "/V1/SERVER"]
)
@asynchronous
async def test_unknown_path(path: str, relay: Relay) -> None:
    """Every other path is 404, with or without an upgrade, /metrics included."""
    for fields in ([("Host", "relay")], [*UPGRADE, SERVER_ID, VERSION]):
        _assert_ends(await ask(relay.address, head(path, *fields)), 404)


@pytest.mark.parametrize(
    "fields",
    [
        [("Host", "relay")],
        [field for field in UPGRADE if field[0] != "Upgrade"],
        [field for field in UPGRADE if field[0] != "Connection"],
        [(name, value.replace("13", "8")) for name, value in UPGRADE],
    ],
)
@asynchronous
async def test_no_upgrade(fields: Fields, relay: Relay) -> None:
    """A WebSocket path without an upgrade to version 13 is 426, with the version to upgrade to."""
    for path in (SERVER, CLIENT, "/v2/server", "/v2/client"):
        answer = await ask(relay.address, head(path, *fields, SERVER_ID, VERSION))
        _assert_ends(answer, 426)
        assert answer.fields["upgrade"] == "websocket"
        assert answer.fields["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("Content-Length", "5")], 400),
        ([("Transfer-Encoding", "chunked")], 400),
        ([("Expect", "100-continue"), ("Content-Length", "5")], 400),
        ([("Expect", "100-continue")], 417),
    ],
)
@asynchronous
async def test_an_upgrade_with_a_body(fields: Fields, status: int, relay: Relay) -> None:
    """An upgrade with a body, or one that expects to send it, is refused: the body would be read as frames."""
    _assert_ends(await ask(relay.address, head(CLIENT, *UPGRADE, SERVER_ID, *fields)), status)


@asynchronous
async def test_an_expectation(relay: Relay) -> None:
    """RFC 9110 section 10.1.1: the final status is sent at once, or after 100 where a body is read."""
    expecting = [("Host", "localhost"), ("Expect", "100-continue"), ("Content-Length", "2")]
    assert (await ask(relay.address, head("/healthz", *expecting))).status == 200
    _assert_ends(await ask(relay.address, head("/nowhere", *expecting, method="POST")), 404)
    async with raw(("127.0.0.1", relay.admin_port)) as peer:
        await peer.send(head("/jail", *expecting, method="POST"))
        assert (await peer.response()).status == 100
        await peer.send(b"{}")
        answer = await peer.response()
        assert (answer.status, "date" in answer.fields) == (403, True)


@pytest.mark.parametrize("method", ["POST", "HEAD", "CONNECT", "OPTIONS", "get"])
@asynchronous
async def test_method(method: str, relay: Relay) -> None:
    """An upgrade with another method than GET gets 405."""
    answer = await ask(relay.address, head(CLIENT, *UPGRADE, SERVER_ID, method=method))
    _assert_ends(answer, 405)
    assert answer.fields["allow"] == "GET"


@asynchronous
async def test_upgrade_shows_nothing_of_the_server(relay: Relay) -> None:
    """The 101 names neither software nor version, and offers no extension that was not asked for."""
    async with phone(relay.uri, fresh_id(), compression="deflate") as peer:
        assert peer.response is not None
        assert "Server" not in peer.response.headers
        assert "Sec-WebSocket-Extensions" not in peer.response.headers
        await closed(peer)


@asynchronous
async def test_target_forms(relay: Relay) -> None:
    """A query is not part of the path, and an absolute target, as proxies send, is understood."""
    for target in ("/healthz?probe=1", "http://relay/healthz", "http://relay/healthz?"):
        assert (await ask(relay.address, head(target, ("Host", "relay")))).status == 200


# /healthz


@asynchronous
async def test_health(relay: Relay) -> None:
    """/healthz counts connected peers in this order of keys, is not cached, and closes the connection."""
    async with pair(relay.uri) as peers:
        await peers.exchange()
        answer = await ask(relay.address, head("/healthz", ("Host", "relay")))
        assert answer.status == 200
        assert answer.fields["content-type"] == "application/json; charset=utf-8"
        assert answer.fields["cache-control"] == "no-store"
        assert answer.fields["content-length"] == str(len(answer.body))
        state = json.loads(answer.body)
        assert [key for key in state if key in HEALTH_KEYS] == HEALTH_KEYS
        assert state["status"] == "ok"
        assert min(state["connected_binaries"], state["connected_phones"]) >= 1
        assert isinstance(state["uptime_seconds"], int)


@asynchronous
async def test_health_head(relay: Relay) -> None:
    """HEAD gives the head of GET and no body."""
    answer = await ask(relay.address, head("/healthz", ("Host", "relay"), method="HEAD"))
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.fields["content-length"]) > 0


@asynchronous
async def test_health_by_http_1_0(relay: Relay) -> None:
    """A load balancer that speaks HTTP/1.0, without Host, is answered."""
    answer = await ask(relay.address, head("/healthz", version="1.0"))
    assert json.loads(answer.body)["status"] == "ok"


@asynchronous
async def test_health_by_another_method(relay: Relay) -> None:
    """/healthz accepts GET and HEAD only."""
    answer = await ask(relay.address, head("/healthz", ("Host", "relay"), method="DELETE"))
    _assert_ends(answer, 405)
    assert answer.fields["allow"] == "GET, HEAD"


@asynchronous
async def test_health_is_not_limited(start_relay: StartRelay) -> None:
    """/healthz answers an address without tokens, and costs none."""
    relay = start_relay("--upgrade-quota", "1/hour burst 1")
    attempt = head(CLIENT, *UPGRADE, SERVER_ID)
    health = head("/healthz", ("Host", "relay"))
    assert await statuses(relay.address, health, 30) == [200] * 30
    assert await statuses(relay.address, attempt, 2) == [101, 429]
    assert await statuses(relay.address, health, 30) == [200] * 30


# Metrics

OURS = {
    "pyryrelay_refusals_total",
    "pyryrelay_envelopes_dropped_total",
    "pyryrelay_connections",
    "pyryrelay_tracked_addresses",
    "pyryrelay_uptime_seconds",
}
SPECIFIED = {
    "pyrycode_relay_connected_binaries",
    "pyrycode_relay_connected_phones",
    *(
        f'pyrycode_relay_ws_upgrade_attempts_total{{endpoint="{endpoint}",outcome="{outcome}"}}'
        for endpoint in ("server", "client")
        for outcome in (
            *("accept", "reject_headers", "reject_409"),
            *("reject_404", "reject_429", "reject_rate_limit"),
        )
    ),
    *(
        f'pyrycode_relay_register_failures_total{{kind="{kind}"}}'
        for kind in ("no_server", "server_in_use", "phones_at_cap", "ratelimit")
    ),
    'pyrycode_relay_frames_forwarded_total{direction="phone_to_binary"}',
    'pyrycode_relay_frames_forwarded_total{direction="binary_to_phone"}',
    "pyrycode_relay_grace_expiries_total",
}


def test_metrics_of_a_new_relay(start_relay: StartRelay) -> None:
    """Every name and label of the specification exists at the first scrape, with 0."""
    metrics = start_relay().metrics()
    assert metrics.keys() >= SPECIFIED
    assert {name: metrics[name] for name in SPECIFIED} == dict.fromkeys(SPECIFIED, 0)
    assert {name.partition("{")[0] for name in metrics} >= OURS | {"pyrycode_relay_push_wakes_total"}


def _upgrades(endpoint: str, outcome: str) -> str:
    return f'pyrycode_relay_ws_upgrade_attempts_total{{endpoint="{endpoint}",outcome="{outcome}"}}'


@asynchronous
async def test_metrics_count(start_relay: StartRelay) -> None:
    """Each event is counted once, under the names of the specification."""
    relay = start_relay("--upgrade-quota", "5/hour burst 5")
    async with pair(relay.uri, "x") as peers:
        await peers.exchange()
        await closed(await phone(relay.uri, "unclaimed"))
        await ask(relay.address, head(CLIENT, *UPGRADE))
        await ask(relay.address, head(SERVER, ("Host", "relay")))
        assert await statuses(relay.address, upgrade(CLIENT, "unclaimed"), 2) == [101, 429]
        metrics = relay.metrics()
    counted = {
        _upgrades("server", "accept"): 1,
        _upgrades("client", "accept"): 1,
        _upgrades("client", "reject_404"): 2,
        _upgrades("client", "reject_headers"): 1,
        _upgrades("server", "reject_headers"): 1,
        _upgrades("client", "reject_rate_limit"): 1,
        'pyrycode_relay_register_failures_total{kind="no_server"}': 2,
        'pyrycode_relay_register_failures_total{kind="ratelimit"}': 1,
        'pyrycode_relay_frames_forwarded_total{direction="phone_to_binary"}': 1,
        'pyrycode_relay_frames_forwarded_total{direction="binary_to_phone"}': 1,
        "pyrycode_relay_connected_binaries": 1,
        "pyrycode_relay_connected_phones": 1,
        'pyryrelay_refusals_total{reason="rate_limit"}': 1,
        "pyryrelay_tracked_addresses": 3,  # The address twice, for attempts and for other requests, and its prefix.
    }
    assert {name: metrics[name] for name in counted} == counted


@asynchronous
async def test_metrics_hold_nothing_of_clients(relay: Relay) -> None:
    """No text that a client sent is in the metrics."""
    fields = (("x-pyrycode-token", "marker-token"), ("x-pyrycode-device-name", "marker-device"))
    async with pair(relay.uri, f"marker-{fresh_id()}", additional_fields=fields) as peers:
        await peers.phone.send('"marker-frame"')
        await peers.binary.send('{"conn_id":"marker-conn","frame":"marker-frame"}')
        await ask(relay.address, head("/marker-path", ("Host", "marker-host")))
        status, text = http_get(relay.admin_port, "/metrics")
        assert status == 200
        assert "marker" not in text
        assert "127.0.0" not in text


@asynchronous
async def test_admin_listener_is_apart(relay: Relay) -> None:
    """The admin listener upgrades no connection, and serves the health page as well."""
    admin = (relay.address[0], relay.admin_port)
    # This server keeps connections open unless it is asked to close them.
    plain = [("Host", "localhost"), *(field for field in UPGRADE if field[0] not in ("Connection", "Host"))]
    answer = await ask(admin, head(CLIENT, *plain, SERVER_ID, ("Connection", "close")))
    assert answer.status == 404
    state = json.loads(http_get(relay.admin_port, "/healthz")[1])
    assert [key for key in state if key in HEALTH_KEYS] == HEALTH_KEYS
