"""Peers of several real instances, which find each other wherever they come in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.end_to_end.cluster import SECRET, Cluster, cluster
from tests.end_to_end.harness import (
    DEADLINE_S,
    GENEROUS,
    LOCALHOST,
    Relay,
    asynchronous,
    eventually,
    reserve_port,
    run,
    until,
)
from tests.end_to_end.peers import binary, closed, conn_id_of, forwarded, phone, received
from tests.end_to_end.proxies import NGINX_CONFIGURATION, needs_nginx, nginx
from tests.support.ports import worker_ports
from tests.support.redis_server import needs_redis
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.splice.header import header
from pyryrelay.cluster.splice.ticket import NONCE_BYTES, Ticket, write

pytestmark = [needs_redis, pytest.mark.thorough]


async def talk(binary_peer: ClientConnection, phone_peer: ClientConnection) -> None:
    """Send a frame each way."""
    conn_id = await conn_id_of(phone_peer, binary_peer)
    await binary_peer.send(json.dumps({"conn_id": conn_id, "frame": "answer"}))
    assert await received(phone_peer) == '"answer"'


async def seated(relay: Relay, server_id: str) -> ClientConnection:
    """Return a binary that is served, however often it must try."""

    async def attempt() -> ClientConnection | None:
        try:
            return await binary(relay.uri, server_id)
        except (InvalidStatus, OSError):
            return None

    end = time.monotonic() + DEADLINE_S
    while (peer := await attempt()) is None:
        assert time.monotonic() < end, f"no binary of {server_id} is served"
        await asyncio.sleep(0.2)
    return peer


async def reaches(relay: Relay, server_id: str, binary_peer: ClientConnection) -> bool:
    """Tell whether a phone that comes to a relay reaches this binary."""
    with contextlib.suppress(ConnectionClosed, InvalidStatus, OSError, asyncio.TimeoutError):
        async with phone(relay.uri, server_id) as peer:
            await peer.send('"ping"')
            envelope = json.loads(await asyncio.wait_for(forwarded(binary_peer), 2.0))
            return bool(envelope["frame"] == "ping")
    return False


@asynchronous
async def test_peers_meet_wherever_they_come_in(tmp_path: Path) -> None:
    """A phone at each instance reaches the one binary, both ways; a second binary is refused wherever it comes in."""
    with cluster(tmp_path, "a", "b", "c") as world:
        a, b, c = world.relays.values()
        await asyncio.sleep(3.0)
        async with binary(a.uri, "x") as daemon:
            for relay in (a, b, c, b):
                async with phone(relay.uri, "x") as visitor:
                    await talk(daemon, visitor)
            async with binary(c.uri, "x") as second:
                assert (await closed(second))[0] == 4409
            async with phone(b.uri, "nobody") as lost:
                assert (await closed(lost))[0] == 4404
        for relay in (a, b, c):
            relay.stop()


@asynchronous
async def test_large_messages_and_many(tmp_path: Path) -> None:
    """Backpressure goes through a splice, and no byte is lost."""
    with cluster(tmp_path, "a", "b") as world:
        a, b = world.relays.values()
        async with binary(a.uri, "x", max_size=None) as daemon, phone(b.uri, "x") as visitor:
            conn_id = await conn_id_of(visitor, daemon)
            text = json.dumps("y" * 20_000)

            async def send() -> None:
                for _ in range(100):
                    await daemon.send(f'{{"conn_id": "{conn_id}", "frame": {text}}}')

            sending = asyncio.create_task(send())
            for number in range(100):
                if number == 10:
                    await asyncio.sleep(0.5)
                assert await received(visitor) == text
            await sending


@asynchronous
async def test_the_keys_of_an_instance_that_dies_are_served_by_others(tmp_path: Path) -> None:
    """After kill -9 its ids are free when its lease is over, and others notice nothing."""
    with cluster(tmp_path, "a", "b") as world:
        a, b = world.relays.values()
        async with binary(b.uri, "y") as other, binary(a.uri, "x") as daemon:
            async with phone(b.uri, "y") as visitor:
                a.process.kill()
                await daemon.wait_closed()
                again = await seated(b, "x")
                await eventually_reaches(b, "x", again)
                await talk(other, visitor)
            await again.close()


async def eventually_reaches(relay: Relay, server_id: str, binary_peer: ClientConnection) -> None:
    """Wait until a phone that comes to a relay reaches this binary."""
    end = time.monotonic() + DEADLINE_S
    while not await reaches(relay, server_id, binary_peer):
        assert time.monotonic() < end, f"no phone at {relay.port} reaches {server_id}"
        await asyncio.sleep(0.2)


@asynchronous
async def test_an_instance_that_ends_moves_its_peers(tmp_path: Path) -> None:
    """SIGTERM: binary and phone are closed with 1001 together, and served by another instance at once."""
    with cluster(tmp_path, "a", "b", options=("--drain-over", "1")) as world:
        a, b = world.relays.values()
        async with binary(a.uri, "x") as daemon, phone(b.uri, "x") as visitor:
            await talk(daemon, visitor)
            a.signal()
            assert (await closed(daemon))[0] == 1001
            assert (await closed(visitor))[0] == 1001
        async with binary(b.uri, "x") as again:
            await eventually_reaches(b, "x", again)
        a.wait()
        assert f"{LOCALHOST}:{world.ports['a']}" not in leases(world)


def leases(world: Cluster) -> str:
    """Return the names of the instances that have a lease."""
    return world.redis.ask("HKEYS", "pyry:relay:{0}leases").decode()


@asynchronous
async def test_nobody_is_disconnected_by_an_outage_of_redis(tmp_path: Path) -> None:
    """While Redis is away, and when it comes back empty, pairs go on talking, also across instances."""
    with cluster(tmp_path, "a", "b") as world:
        a, b = world.relays.values()
        async with binary(a.uri, "x") as daemon, phone(b.uri, "x") as visitor:
            await talk(daemon, visitor)
            world.redis.kill()
            for _ in range(5):
                await talk(daemon, visitor)
                await asyncio.sleep(0.2)
            assert b.admin_get("/healthz")[0] == 200
            await eventually(lambda: _readiness(b) == (200, "degraded"), "the outage is told")
            async with binary(b.uri, "new") as local:
                world.redis.start()
                await eventually(lambda: f"{LOCALHOST}:{world.ports['b']}" in leases(world), "b has a lease again")
                await eventually_reaches(a, "new", local)
                await eventually_reaches(b, "x", daemon)
                await talk(daemon, visitor)


def _readiness(relay: Relay) -> tuple[int, str]:
    status, body = relay.admin_get("/readyz")
    return status, json.loads(body)["status"]


@asynchronous
async def test_a_stopped_instance_gives_way(tmp_path: Path) -> None:
    """An instance that was stopped for longer than its lease loses what was claimed meanwhile, and nothing else."""
    with cluster(tmp_path, "a", "b") as world:
        a, b = world.relays.values()
        async with binary(a.uri, "x", ping_timeout=None) as daemon, binary(a.uri, "y", ping_timeout=None) as kept:
            await eventually_reaches(b, "x", daemon)
            a.signal(signal.SIGSTOP)
            again = await seated_after(b, "x", 6.5)
            a.signal(signal.SIGCONT)
            assert (await closed(daemon))[0] == 1011
            await eventually_reaches(a, "x", again)
            await eventually_reaches(b, "y", kept)
            await again.close()


async def seated_after(relay: Relay, server_id: str, seconds: float) -> ClientConnection:
    """Return a binary that is served after a while."""
    await asyncio.sleep(seconds)
    return await seated(relay, server_id)


@asynchronous
async def test_an_upgrade_keeps_the_keys(tmp_path: Path) -> None:
    """A process that takes over on the same host has the same lease: peers of other instances are sent there."""
    with cluster(tmp_path, "a", "b", options=("--drain-over", "0.5")) as world:
        a, b = world.relays.values()
        captured = opening_for(world, "a")
        assert (await asyncio.to_thread(arriving, world, captured)).startswith(b"HTTP/1.1 404 ")
        assert await asyncio.to_thread(arriving, world, captured) == b""
        async with binary(a.uri, "x") as daemon:
            await eventually_reaches(b, "x", daemon)
            a.signal(signal.SIGUSR2)
            assert (await closed(daemon))[0] == 1001
        again = await seated(b, "x")
        await eventually_reaches(a, "x", again)
        await eventually_reaches(b, "x", again)
        # The new process has the same boot id, and takes no ticket of before.
        assert await asyncio.to_thread(arriving, world, captured) == b""
        assert (await asyncio.to_thread(arriving, world, opening_for(world, "a"))).startswith(b"HTTP/1.1 404 ")
        await again.close()
        await asyncio.to_thread(a.process.wait, DEADLINE_S)
        pid = int((a.directory / "twistd.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        await eventually(lambda: not (a.directory / "twistd.pid").exists(), "the successor has ended")


def opening_for(world: Cluster, name: str) -> bytes:
    """Return what another instance sends to that one, now, about a client that asks for nothing that there is."""
    address = f"{LOCALHOST}:{world.ports[name]}"
    boot = next(boot for member, boot in boots(world) if member == address)
    ticket = Ticket(f"{LOCALHOST}:1", "192.0.2.1", time.time(), os.urandom(NONCE_BYTES))
    raw = write(ticket, Member(address, boot, address), Keys("relay", SECRET.encode()).signing_key)
    return header(IPv4Address("192.0.2.1"), raw) + b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"


def arriving(world: Cluster, data: bytes) -> bytes:
    """Return what the first instance answers at its port for others."""
    with socket.create_connection((LOCALHOST, world.ports["a"]), 10) as sock:
        sock.sendall(data)
        with contextlib.suppress(ConnectionError):
            return sock.recv(1000)
    return b""


def test_others_get_no_answer_at_the_cluster_port(tmp_path: Path) -> None:
    """Requests without a ticket are cut off without a byte, whatever they are."""
    with cluster(tmp_path, "a") as world:
        for data in (
            b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\nGET / HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection((LOCALHOST, world.ports["a"]), DEADLINE_S) as sock:
                sock.sendall(data)
                with contextlib.suppress(ConnectionError):
                    assert sock.recv(100) == b""
        world.relays["a"].stop()


REDIRECTING_NGINX = NGINX_CONFIGURATION.replace(
    "        location / {{",
    """\
        location ~ ^/pyryrelay-hop/(?<owner>[^/]+)/(?<ticket>[0-9a-f]+)$ {{
            internal;
            proxy_pass http://$owner$request_uri;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Pyryrelay-Ticket $ticket;
            proxy_read_timeout 1h;
        }}
        location / {{""",
)


@needs_nginx
@asynchronous
async def test_nginx_takes_connections_to_their_instance(tmp_path: Path) -> None:
    """With ``--cluster-redirect`` the bytes of a phone do not go through the instance that it came to."""
    options = (
        *("--cluster-redirect", "/pyryrelay-hop/", "--trust-x-forwarded-for", "--trusted-proxy", LOCALHOST),
        *("--upgrade-quota", "5/day burst 5"),
    )
    with cluster(tmp_path, "a", "b") as world:
        a = world.relays["a"]
        c = world.start("c", options)
        world.settle()
        with nginx(tmp_path / "nginx", f"{LOCALHOST}:{c.port}", REDIRECTING_NGINX) as proxy:
            d = world.start("d", options)
            world.settle()
            async with binary(d.uri, "x", additional_fields=[("X-Forwarded-For", "192.0.2.7")]) as daemon:
                for _ in range(3):
                    async with phone(proxy.uri, "x", additional_fields=[("X-Forwarded-For", "192.0.2.7")]) as visitor:
                        await talk(daemon, visitor)
                found = c.metrics(), d.metrics()
        assert found[0]["pyryrelay_cluster_redirects_total"] == 3
        assert found[0]["pyryrelay_cluster_splices_total"] == 0
        assert found[1]["pyryrelay_cluster_arrivals_total"] == 3
        assert a.process.poll() is None


@asynchronous
async def test_each_worker_is_an_instance(tmp_path: Path) -> None:
    """A relay with two workers meets one without: each key is at one process, wherever its peers come in."""
    with cluster(tmp_path, "b") as world:
        b = world.relays["b"]
        with reserved_for_workers() as base:
            # The last value of an option counts.
            options = world.options("w")
            options += ["--cluster-listen", f"tcp:{base}{{worker}}:interface={LOCALHOST}"]
            options += ["--cluster-advertise", f"{LOCALHOST}:{base}{{worker}}"]
            options += ["--workers", "2", "--drain-over", "0.5"]
            several = Relay(tmp_path / "workers", [*GENEROUS, *options])
            try:
                until(lambda: leases(world).count(f":{base}") == 2, "both workers have a lease")
                await asyncio.sleep(3.0)
                for number in range(6):
                    home, away = (several, b) if number % 2 else (b, several)
                    async with binary(home.uri, f"key-{number}") as daemon, phone(away.uri, f"key-{number}") as one:
                        await talk(daemon, one)
                        async with phone(home.uri, f"key-{number}") as other:
                            await talk(daemon, other)
                url = f"http://{LOCALHOST}:{several.admin_port}"
                program = [sys.executable, "-m", "pyryrelay", "--admin", url, "cluster"]
                listed = await asyncio.to_thread(run, *program)
                assert len(listed.stdout.splitlines()) == 3, listed
                await upgraded_workers(world, several)
            finally:
                several.discard()


def boots(world: Cluster) -> set[tuple[str, str]]:
    """Return the instances that have a lease, with their boot ids."""
    leases = world.redis.ask("HGETALL", "pyry:relay:{0}leases").decode()
    return set(re.findall(rf"({LOCALHOST}:\d+)\r\n\$\d+\r\n(\S+) ", leases))


async def upgraded_workers(world: Cluster, relay: Relay) -> None:
    """Upgrade a relay with workers, and then end it: each worker's successor has its lease, and its socket."""
    before = boots(world)
    assert len(before) == 3
    relay.signal(signal.SIGUSR2)
    await asyncio.to_thread(relay.process.wait, 2 * DEADLINE_S)
    await eventually(lambda: boots(world) == before, "the successors have the leases")
    assert "in use" not in relay.log()
    os.kill(int((relay.directory / "twistd.pid").read_text()), signal.SIGTERM)
    await eventually(lambda: not (relay.directory / "twistd.pid").exists(), "the successor has ended")


@contextlib.contextmanager
def reserved_for_workers() -> Iterator[int]:
    """Yield a number to which the digit of either worker is appended for its port."""
    with contextlib.ExitStack() as held:
        base = worker_ports(2)
        for worker in range(2):
            held.enter_context(reserve_port(port=base * 10 + worker))
        yield base


def test_the_command_shows_the_cluster(tmp_path: Path) -> None:
    """``pyryrelay cluster`` lists the instances, and finds a key."""
    with cluster(tmp_path, "a", "b") as world:
        url = f"http://{LOCALHOST}:{world.relays['b'].admin_port}"
        program = [sys.executable, "-m", "pyryrelay", "--admin", url, "cluster"]
        listed = run(*program)
        assert sorted(line.split("\t")[0] for line in listed.stdout.splitlines()) == sorted(
            f"{LOCALHOST}:{port}" for port in world.ports.values()
        )
        time.sleep(3.0)
        nobody = run(*program, "where", "x")
        assert (nobody.returncode, nobody.stdout) == (1, "")

        async def hold() -> str:
            async with binary(world.relays["a"].uri, "x"):
                return (await asyncio.to_thread(run, *program, "where", "x")).stdout

        assert asyncio.run(hold()) == f"{LOCALHOST}:{world.ports['a']}\n"
