"""The files for nginx, haproxy and Caddy, run by the real servers in front of a relay with the settings beside them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.contrib.front import (
    CADDY,
    CONTRIB,
    Front,
    caddy,
    haproxy,
    needs_caddy,
    nginx,
    text_of,
    trusting,
    with_changes,
)
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, SLOW, Launch, Relay, asynchronous, reserve_port
from tests.end_to_end.peers import binary, conn_id_of, fresh_id, phone, received
from tests.end_to_end.proxies import needs_haproxy, needs_nginx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

THERE: dict[str, Any] = {"ssl": trusting(), "host": LOCALHOST}
"""How a client reaches the proxy under its public name."""
OWN_LISTENER = "listen = "


@contextlib.contextmanager
def _relay_behind(
    settings: str, folder: Path, proxy: Callable[[Path, int, int], AbstractContextManager[Front]]
) -> Iterator[tuple[Relay, Front]]:
    """Run a relay with a file of contrib/toml, on a port of its own, and the proxy in front of it."""
    text = (CONTRIB / "toml" / settings).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(OWN_LISTENER)]
    assert len(lines) == len(text.splitlines()) - 1
    config = folder / "relay.toml"
    config.write_text("\n".join(lines), encoding="utf-8")
    relay = Relay(folder / "relay", [*SLOW, "--config", str(config), "--max-connections", "200"])
    try:
        with reserve_port() as held:
            inside = folder / "front"
            inside.mkdir()
            with proxy(inside, held.getsockname()[1], relay.port) as front:
                yield relay, front
        relay.stop()
    finally:
        relay.discard()


PROXIES = [
    pytest.param(partial(nginx, "nginx/pyryrelay.conf"), id="nginx", marks=needs_nginx),
    pytest.param(haproxy, id="haproxy", marks=needs_haproxy),
    pytest.param(caddy, id="caddy", marks=needs_caddy),
]


@pytest.mark.thorough
@pytest.mark.parametrize("proxy", PROXIES)
@asynchronous
async def test_peers_meet_behind_the_proxy(
    proxy: Callable[[Path, int, int], AbstractContextManager[Front]], tmp_path: Path
) -> None:
    """A pair relays over TLS through the proxy; each address has its own quota, whatever a client writes."""
    with _relay_behind("behind-proxy.toml", tmp_path, proxy) as (relay, front):
        server_id = fresh_id()
        async with binary(front.uri, server_id, **THERE) as home, phone(front.uri, server_id, **THERE) as away:
            conn_id = await conn_id_of(away, home)
            await home.send(json.dumps({"conn_id": conn_id, "frame": {"answer": "☃"}}, ensure_ascii=False))
            assert json.loads(await received(away)) == {"answer": "☃"}
        attempts = [await _refusal(front, "127.0.0.5", f"203.0.113.{number}") for number in range(22)]
        assert attempts == [400] * 20 + [429] * 2
        assert await _refusal(front, "127.0.0.6", "203.0.113.7") == 400
        assert relay.log_has("refused 127.0.0.5 429 rate_limit")


async def _refusal(front: Front, source: str, made_up: str) -> int:
    """Return the status of an upgrade without a server-id, from this address, that claims to come from another one."""
    fields = [("X-Forwarded-For", made_up)]
    options: dict[str, Any] = {
        "local_addr": (source, 0),
        "additional_headers": fields,
        "proxy": None,
        "open_timeout": DEADLINE_S,
    }
    with pytest.raises(InvalidStatus) as refused:
        await asyncio.wait_for(connect(f"{front.uri}/v1/client", **THERE, **options), DEADLINE_S)
    return refused.value.response.status_code


WORKERS_PROXIES = [
    pytest.param(partial(nginx, "nginx/workers.conf"), id="nginx", marks=needs_nginx),
    pytest.param(partial(haproxy, file="haproxy/workers.cfg"), id="haproxy", marks=needs_haproxy),
]


@pytest.mark.thorough
@pytest.mark.parametrize("proxy", WORKERS_PROXIES)
@asynchronous
async def test_workers_behind_the_proxy(
    proxy: Callable[[Path, int, Path], AbstractContextManager[Front]], tmp_path: Path
) -> None:
    """Peers of any workers meet, and each client has exactly its quota, because the proxy chooses by its network."""
    config = tmp_path / "relay.toml"
    text = with_changes(text_of("toml/workers.toml"), {"/run/pyryrelay": str(tmp_path)})
    config.write_text(text, encoding="utf-8")
    options = ["--upgrade-quota", "3/day burst 3", "--prefix-quota", "off", "--config", str(config)]
    relay = Relay(tmp_path / "relay", [*options, "--max-connections", "200"], Launch(listen=()))
    try:
        with reserve_port() as held:
            inside = tmp_path / "front"
            inside.mkdir()
            with proxy(inside, held.getsockname()[1], tmp_path) as front:
                for number in range(12):
                    attempts = [await _refusal(front, f"127.6.{number}.5", "203.0.113.9") for _ in range(5)]
                    assert attempts == [400] * 3 + [429] * 2
                server_id = fresh_id()
                for number in range(4):
                    source = {"source": f"127.7.{number}.1", **THERE}
                    other = {"source": f"127.8.{number}.1", **THERE}
                    async with (
                        binary(front.uri, f"{server_id}-{number}", **other) as home,
                        phone(front.uri, f"{server_id}-{number}", **source) as away,
                    ):
                        assert await conn_id_of(away, home)
        relay.stop()
    finally:
        relay.discard()


@pytest.mark.thorough
@needs_nginx
@asynchronous
async def test_a_nostr_client_reaches_the_relay_behind_nginx(tmp_path: Path) -> None:
    """A subscription over TLS through nginx is answered, and other paths stay nginx's."""
    with _relay_behind("nostr.toml", tmp_path, partial(nginx, "nginx/nostr.conf")) as (_, front):
        async with connect(f"{front.uri}/", proxy=None, open_timeout=DEADLINE_S, **THERE) as client:
            await client.send(json.dumps(["REQ", "x", {"limit": 1}]))
            assert json.loads(await received(client))[0] == "EOSE"


@needs_caddy
def test_caddy_finds_its_file_valid(tmp_path: Path) -> None:
    """`caddy validate` accepts the file as it is."""
    command = [str(CADDY), "validate", "--adapter", "caddyfile", "--config", str(CONTRIB / "caddy" / "Caddyfile")]
    environment = {name: str(tmp_path) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "Valid configuration" in done.stdout + done.stderr
