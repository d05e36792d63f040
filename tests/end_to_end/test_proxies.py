"""Real nginx and haproxy in front: peers relay through them, and the address that they saw counts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, SLOW, Launch, Relay, asynchronous
from tests.end_to_end.peers import Pair, binary, closed, fresh_id, pair, phone
from tests.end_to_end.proxies import SYSTEM_PATH, Proxy, haproxy, needs_haproxy, needs_nginx, nginx
from tests.end_to_end.raw import statuses, upgrade

FORWARDED = ("--trust-x-forwarded-for", "--trusted-proxy", LOCALHOST)
PROXY_PROTOCOL = f"haproxy:tcp:{{port}}:interface={LOCALHOST}"


@contextlib.contextmanager
def _nginx_over_tcp(directory: Path) -> Iterator[tuple[Relay, Proxy]]:
    with _relay(directory, *FORWARDED) as relay, nginx(directory / "proxy", f"{LOCALHOST}:{relay.port}") as proxy:
        yield relay, proxy


@contextlib.contextmanager
def _nginx_over_unix(directory: Path) -> Iterator[tuple[Relay, Proxy]]:
    options = ("--trust-x-forwarded-for", "--trusted-proxy", "unix")
    with (
        _relay(directory, *options, endpoint="unix:{directory}/relay.sock") as relay,
        nginx(directory / "proxy", f"unix:{relay.directory}/relay.sock:") as proxy,
    ):
        yield relay, proxy


@contextlib.contextmanager
def _haproxy_http(directory: Path) -> Iterator[tuple[Relay, Proxy]]:
    with (
        _relay(directory, *FORWARDED) as relay,
        haproxy(directory / "proxy", f"{LOCALHOST}:{relay.port}", "http", "option forwardfor") as proxy,
    ):
        yield relay, proxy


@contextlib.contextmanager
def _haproxy_tcp(directory: Path, send: str) -> Iterator[tuple[Relay, Proxy]]:
    with (
        _relay(directory, endpoint=PROXY_PROTOCOL) as relay,
        haproxy(directory / "proxy", f"{LOCALHOST}:{relay.port} {send}", "tcp") as proxy,
    ):
        yield relay, proxy


@contextlib.contextmanager
def _relay(directory: Path, *options: str, endpoint: str = "") -> Iterator[Relay]:
    relay = Relay(directory / "relay", [*SLOW, *options], Launch(listen=[endpoint]) if endpoint else Launch())
    try:
        yield relay
    finally:
        relay.stop()


SETUPS: Mapping[str, Callable[[Path], contextlib.AbstractContextManager[tuple[Relay, Proxy]]]] = {
    "nginx": _nginx_over_tcp,
    "nginx-unix": _nginx_over_unix,
    "haproxy-http": _haproxy_http,
    "haproxy-v1": functools.partial(_haproxy_tcp, send="send-proxy"),
    "haproxy-v2": functools.partial(_haproxy_tcp, send="send-proxy-v2"),
}


@pytest.fixture(scope="module", params=SETUPS)
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Proxy]]:
    """A relay and a proxy in front of it, set up in each usual way; each test uses addresses of its own."""
    program = request.param.partition("-")[0]
    if shutil.which(program, path=SYSTEM_PATH) is None:
        pytest.skip(f"{program} is not installed")
    with SETUPS[request.param](tmp_path_factory.mktemp(request.param)) as pair_of_servers:
        yield pair_of_servers


@asynchronous
async def test_relaying_through_a_proxy(proxied: tuple[Relay, Proxy]) -> None:
    """Frames of all sizes and close codes pass, and the log shows the client's address."""
    relay, proxy = proxied
    async with pair(proxy.uri, source="127.0.0.9") as peers:
        conn_id = await peers.exchange()
        for size in (0, 125, 126, 70_000, 260_000):
            text = f'"{"x" * size}"'
            await peers.phone.send(text)
            assert await asyncio.wait_for(peers.binary.recv(), DEADLINE_S) == (
                f'{{"conn_id":"{conn_id}","frame":{text}}}'
            )
        await peers.binary.send(f'{{"conn_id":"{conn_id}","frame":"bye","close_code":4401}}')
        assert await asyncio.wait_for(peers.phone.recv(), DEADLINE_S) == '"bye"'
        assert (await closed(peers.phone))[0] == 4401
    assert "127.0.0.9" in relay.log()


@asynchronous
async def test_forged_address_behind_a_proxy(proxied: tuple[Relay, Proxy]) -> None:
    """Entries of X-Forwarded-For that a client sends itself are left of the proxy's, and do not count."""
    _, proxy = proxied
    found = []
    for number in range(21):
        forged = f"192.0.2.{number}, {LOCALHOST}"
        attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", forged), ("Forwarded", f"for={forged}"))
        found += await statuses(proxy.address, attempt, 1, source="127.0.0.4")
    assert found == [101] * 20 + [429]


@asynchronous
async def test_flood_through_a_proxy(proxied: tuple[Relay, Proxy]) -> None:
    """A flood from 127.0.0.2 is held to its burst and does not affect 127.0.0.3."""
    relay, proxy = proxied
    server_id = fresh_id()
    attempt = upgrade("/v1/client", "unclaimed")
    before = relay.refusals("rate_limit", "queue_full")
    floods = [asyncio.create_task(statuses(proxy.address, attempt, 40, source="127.0.0.2")) for _ in range(8)]
    async with binary(proxy.uri, server_id, source="127.0.0.3") as one:
        for _ in range(15):
            async with phone(proxy.uri, server_id, source="127.0.0.3") as other:
                await Pair(server_id, one, other).exchange()
    found = [status for flood in await asyncio.gather(*floods) for status in flood]
    assert set(found) == {101, 429}
    assert found.count(101) == 20
    assert relay.refusals("rate_limit", "queue_full") - before == found.count(429)


@needs_nginx
@asynchronous
async def test_chain_of_proxies(start_relay: StartRelay, tmp_path: Path) -> None:
    """Behind two trusted proxies, the client is the entry that the outer one added."""
    relay = start_relay(*FORWARDED, *SLOW)
    inner_directory, outer_directory = tmp_path / "inner", tmp_path / "outer"
    with (
        nginx(inner_directory, f"{LOCALHOST}:{relay.port}") as inner,
        nginx(outer_directory, f"{LOCALHOST}:{inner.port}") as outer,
    ):
        attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", "192.0.2.1"))
        assert await statuses(outer.address, attempt, 21, source="127.0.0.5") == [101] * 20 + [429]
        assert await statuses(outer.address, attempt, 1, source="127.0.0.6") == [101]


@needs_haproxy
@asynchronous
async def test_forwarded_for_inside_a_proxy_header(start_relay: StartRelay, tmp_path: Path) -> None:
    """Without --trust-x-forwarded-for only the PROXY header counts."""
    relay = start_relay(*SLOW, launch=Launch(listen=[PROXY_PROTOCOL]))
    with haproxy(tmp_path / "proxy", f"{LOCALHOST}:{relay.port} send-proxy-v2", "http", "option forwardfor") as proxy:
        attempt = upgrade("/v1/client", "unclaimed")
        assert await statuses(proxy.address, attempt, 21, source="127.0.0.7") == [101] * 20 + [429]
        assert await statuses(proxy.address, attempt, 1, source="127.0.0.8") == [101]
