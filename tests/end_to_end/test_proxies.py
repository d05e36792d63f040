"""Real nginx and real haproxy in front: the address that counts is the one they saw, and peers relay through them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Launch, Relay, answers, asynchronous, reserve_port, until
from tests.end_to_end.peers import Pair, binary, closed, fresh_id, pair, phone
from tests.end_to_end.raw import statuses, upgrade

SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
NGINX = shutil.which("nginx", path=SYSTEM_PATH)
HAPROXY = shutil.which("haproxy", path=SYSTEM_PATH)
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")

FORWARDED = ("--trust-x-forwarded-for", "--trusted-proxy", LOCALHOST)
PROXY_PROTOCOL = f"haproxy:tcp:{{port}}:interface={LOCALHOST}"

NGINX_CONFIGURATION = """\
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    server {{
        listen {port};
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

HAPROXY_CONFIGURATION = """\
defaults
    mode {mode}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend public
    bind {port}
    default_backend relay
backend relay
    {option}
    server relay {upstream}
"""


@dataclass(frozen=True)
class Proxy:
    """A reverse proxy that runs in front of a relay."""

    port: int

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect."""
        return LOCALHOST, self.port

    @property
    def uri(self) -> str:
        """`address` as the beginning of a WebSocket URI."""
        return f"ws://{LOCALHOST}:{self.port}"


@contextlib.contextmanager
def _running(command: Sequence[str], directory: Path, port: int) -> Iterator[None]:
    """A proxy in the foreground until the end of the block; only this process is ended, by its pid."""
    log_path = directory / "proxy.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ready() -> bool:
        assert process.poll() is None, f"the proxy ended at once:\n{log_path.read_text(encoding='utf-8')}"
        return answers(port)

    try:
        until(ready, "the proxy passes /healthz on")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nginx(directory: Path, upstream: str) -> Iterator[Proxy]:
    """An nginx as people set it up: it appends the peer's address to X-Forwarded-For."""
    directory.mkdir()
    # Workers of a master that runs as root would become a user who cannot enter this directory.
    user = "user root;" if os.getuid() == 0 else ""
    with reserve_port() as held:
        port = held.getsockname()[1]
        text = NGINX_CONFIGURATION.format(user=user, port=f"{LOCALHOST}:{port}", upstream=upstream)
        (directory / "nginx.conf").write_text(text, encoding="utf-8")
        command = [str(NGINX), "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
        with _running(command, directory, port):
            yield Proxy(port)


@contextlib.contextmanager
def haproxy(directory: Path, upstream: str, mode: str, option: str = "") -> Iterator[Proxy]:
    """A haproxy, in mode tcp or http."""
    directory.mkdir()
    with reserve_port() as held:
        port = held.getsockname()[1]
        text = HAPROXY_CONFIGURATION.format(mode=mode, port=f"{LOCALHOST}:{port}", upstream=upstream, option=option)
        (directory / "haproxy.cfg").write_text(text, encoding="utf-8")
        with _running([str(HAPROXY), "-db", "-f", "haproxy.cfg"], directory, port):
            yield Proxy(port)


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
    relay = Relay(directory / "relay", options, Launch(listen=[endpoint]) if endpoint else Launch())
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
    """A relay and a proxy in front of it, set up in each of the usual ways; each test comes from its own addresses."""
    program = request.param.partition("-")[0]
    if shutil.which(program, path=SYSTEM_PATH) is None:
        pytest.skip(f"{program} is not installed")
    with SETUPS[request.param](tmp_path_factory.mktemp(request.param)) as pair_of_servers:
        yield pair_of_servers


@asynchronous
async def test_relaying_through_a_proxy(proxied: tuple[Relay, Proxy]) -> None:
    """Frames of all sizes and close codes pass, and the log shows the address of the client."""
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
    """A client cannot choose its address: its own X-Forwarded-For entries are left of what the proxy saw."""
    _, proxy = proxied
    found = []
    for number in range(21):
        forged = f"192.0.2.{number}, {LOCALHOST}"
        attempt = upgrade("/v1/client", "nobody", ("X-Forwarded-For", forged), ("Forwarded", f"for={forged}"))
        found += await statuses(proxy.address, attempt, 1, source="127.0.0.4")
    assert found == [101] * 20 + [429]


@asynchronous
async def test_flood_through_a_proxy(proxied: tuple[Relay, Proxy]) -> None:
    """A flood from 127.0.0.2 is held to its burst and does not hurt 127.0.0.3."""
    relay, proxy = proxied
    server_id = fresh_id()
    attempt = upgrade("/v1/client", "nobody")
    refused = 'pyryrelay_refusals_total{reason="rate_limit"}'
    before = relay.metrics()[refused]
    floods = [asyncio.create_task(statuses(proxy.address, attempt, 40, source="127.0.0.2")) for _ in range(8)]
    async with binary(proxy.uri, server_id, source="127.0.0.3") as one:
        for _ in range(15):
            async with phone(proxy.uri, server_id, source="127.0.0.3") as other:
                await Pair(server_id, one, other).exchange()
    found = [status for flood in await asyncio.gather(*floods) for status in flood]
    assert set(found) == {101, 429}
    # A token may have come back while the flood went on.
    assert 20 <= found.count(101) <= 24
    assert relay.metrics()[refused] - before == found.count(429)


@needs_nginx
@asynchronous
async def test_chain_of_proxies(start_relay: StartRelay, tmp_path: Path) -> None:
    """Behind two proxies, both named, the client is the entry that the outer one added."""
    relay = start_relay(*FORWARDED)
    inner_directory, outer_directory = tmp_path / "inner", tmp_path / "outer"
    with (
        nginx(inner_directory, f"{LOCALHOST}:{relay.port}") as inner,
        nginx(outer_directory, f"{LOCALHOST}:{inner.port}") as outer,
    ):
        attempt = upgrade("/v1/client", "nobody", ("X-Forwarded-For", "192.0.2.1"))
        assert await statuses(outer.address, attempt, 21, source="127.0.0.5") == [101] * 20 + [429]
        assert await statuses(outer.address, attempt, 1, source="127.0.0.6") == [101]


@needs_haproxy
@asynchronous
async def test_forwarded_for_inside_a_proxy_header(start_relay: StartRelay, tmp_path: Path) -> None:
    """Without --trust-x-forwarded-for a PROXY header is all that counts."""
    relay = start_relay(launch=Launch(listen=[PROXY_PROTOCOL]))
    with haproxy(tmp_path / "proxy", f"{LOCALHOST}:{relay.port} send-proxy-v2", "http", "option forwardfor") as proxy:
        attempt = upgrade("/v1/client", "nobody")
        assert await statuses(proxy.address, attempt, 21, source="127.0.0.7") == [101] * 20 + [429]
        assert await statuses(proxy.address, attempt, 1, source="127.0.0.8") == [101]
