"""Limits of several workers, as clients see them: exact for each address and network, and one jail for all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Launch, Relay, asynchronous, until
from tests.end_to_end.network import SERVER_V4, Network, network_or_skip
from tests.end_to_end.processes import workers_of
from tests.end_to_end.proxies import needs_nginx, nginx
from tests.end_to_end.raw import head, statuses, upgrade
from tests.end_to_end.service_manager import passed_socket

WORKERS = ("--workers", "4")
ATTEMPT = upgrade("/v1/client", "unclaimed")
NOTHING = head("/nothing", ("Host", "relay"))
OWN_PATHS = Launch(listen=["unix:{directory}/{{worker}}.sock"])
FORWARDED = ("--trust-x-forwarded-for", "--trusted-proxy", "unix")
CLIENT = ("X-Forwarded-For", "198.51.100.7")
SILENCE_S = 0.7
NGINX = """\
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    map $remote_addr $client_network {{ "~^(?<v4>[0-9]+\\.[0-9]+\\.[0-9]+)\\." $v4; default $remote_addr; }}
    upstream relay {{
        hash $client_network;
        {upstream}
    }}
    server {{
        listen {port};
        location / {{
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_next_upstream off;
        }}
    }}
}}
"""


async def outcomes(address: tuple[str, int], sources: list[str], count: int) -> dict[str, list[int]]:
    """Return the statuses of so many attempts of each source, all sources at once."""
    found = await asyncio.gather(*(statuses(address, ATTEMPT, count, source=source) for source in sources))
    return dict(zip(sources, found, strict=True))


@pytest.mark.thorough
@asynchronous
async def test_quotas_are_exact(start_relay: StartRelay) -> None:
    """Each of forty addresses, which reach all four workers, has its burst and not one attempt more."""
    relay = await asyncio.to_thread(
        start_relay, *WORKERS, "--upgrade-quota", "5/day burst 5", "--prefix-quota", "off", "--jail-after", "off"
    )
    sources = [f"127.1.{number}.9" for number in range(40)]
    for statuses_of_one in (await outcomes(relay.address, sources, 8)).values():
        assert statuses_of_one == [101] * 5 + [429] * 3


@pytest.mark.thorough
@asynchronous
async def test_quotas_of_networks_are_exact(start_relay: StartRelay) -> None:
    """All addresses of a /24 share its quota, because they reach one worker."""
    relay = await asyncio.to_thread(
        start_relay, *WORKERS, "--upgrade-quota", "off", "--prefix-quota", "10/day burst 10", "--jail-after", "off"
    )
    for network in range(8):
        sources = [f"127.2.{network}.{number}" for number in range(1, 21)]
        found = [status for each in (await outcomes(relay.address, sources, 1)).values() for status in each]
        assert sorted(found) == [101] * 10 + [429] * 10


@pytest.mark.thorough
def test_caps_of_addresses_are_exact(start_relay: StartRelay) -> None:
    """Each address may hold three connections, and not one more."""
    relay = start_relay(*WORKERS, "--upgrade-quota", "off", "--max-connections-per-address", "3", "--jail-after", "off")
    with contextlib.ExitStack() as held:
        for number in range(20):
            found: list[int] = []
            for _ in range(5):
                sock = held.enter_context(socket.create_connection(relay.address, DEADLINE_S, (f"127.3.{number}.1", 0)))
                sock.sendall(upgrade("/v1/server", f"of-{number}-{len(found)}"))
                found.append(int(sock.recv(4096).split()[1]))
            assert found == [101] * 3 + [429] * 2


def answer_at(path: Path) -> int:
    """Return the status that a client has who comes through the proxy to one worker's socket; 0 for none."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(str(path))
        with contextlib.suppress(ConnectionError):
            sock.sendall(head("/nothing", ("Host", "relay"), CLIENT))
            answer = sock.recv(4096)
            return int(answer.split()[1]) if answer else 0
    return 0


def jail_of(file: str) -> str:
    """Return the jailed networks of a file."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return " ".join(row[0] for row in database.execute("SELECT network FROM jail"))


def all_have_heard(relay: Relay) -> bool:
    """Tell whether all workers have the sentence. Requests would tell, too, but the fifth would be jailed anew."""
    found = relay.metrics()
    return all(found.get(f'pyryrelay_jailed_addresses{{worker="{index}"}}') == 1 for index in range(4))


@pytest.mark.thorough
def test_one_jail(tmp_path: Path, start_relay: StartRelay) -> None:
    """A client that one worker jails is dropped by all, also by one that is started anew, and after a restart."""
    jail = str(tmp_path / "jail.sqlite")
    options = (*WORKERS, *FORWARDED, "--jail-after", "5/day", "--http-quota", "off", "--jail-file", jail)
    relay = start_relay(*options, launch=OWN_PATHS)
    paths = [relay.directory / f"{index}.sock" for index in range(4)]
    assert [answer_at(paths[1]) for _ in range(5)] == [404] * 5
    assert answer_at(paths[1]) == 0
    until(lambda: CLIENT[1] in jail_of(jail), "the supervisor has saved it")
    until(lambda: all_have_heard(relay), "all workers have heard of it")
    assert [answer_at(path) for path in paths] == [0] * 4
    victim = workers_of(relay.process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in workers_of(relay.process.pid), "the worker is gone")
    assert [answer_at(path) for path in paths] == [0] * 4
    relay.stop()
    again = start_relay(*options, launch=OWN_PATHS)
    assert [answer_at(again.directory / f"{index}.sock") for index in range(4)] == [0] * 4


@pytest.fixture
def network() -> Iterator[Network]:
    """A network with the test on its server."""
    with network_or_skip() as found:
        yield found


def status_over(network: Network, relay: Relay, source: str, patience_s: float = DEADLINE_S) -> int | None:
    """Return the status of an answer; 0 if the connection ends without a byte, None if the kernel does not answer."""
    try:
        sock = network.connection(source, relay.port, patience_s)
    except TimeoutError:
        return None
    except ConnectionError:
        return 0
    with sock, contextlib.suppress(ConnectionError):
        sock.settimeout(DEADLINE_S)
        sock.sendall(NOTHING)
        answer = sock.recv(4096)
        return int(answer.split()[1]) if answer else 0
    return 0


@pytest.mark.thorough
def test_a_flood_of_the_jailed_is_not_answered(network: Network, start_relay: StartRelay) -> None:
    """The kernel answers no SYN of a jailed address, whichever worker it was steered to, and serves its neighbour."""
    launch = Launch(listen=[f"tcp:{{port}}:interface={SERVER_V4}"])
    relay = start_relay(*WORKERS, "--jail-after", "5/day", "--http-quota", "off", launch=launch)
    offenders = [f"198.51.100.{number}" for number in range(1, 9)]
    for source in offenders:
        assert [status_over(network, relay, source) for _ in range(5)] == [404] * 5

    def is_silent(source: str) -> bool:
        with contextlib.ExitStack() as held:
            for _ in range(60):
                try:
                    held.enter_context(network.connection(source, relay.port, SILENCE_S))
                except TimeoutError:
                    return True
                except ConnectionError:
                    continue
        return False

    for source in offenders:
        until(lambda source=source: is_silent(source), f"the kernel drops {source}")  # type: ignore[misc]
    assert status_over(network, relay, "198.51.100.99") == 404
    # A worker that is killed changes nothing: the program belongs to the sockets, which the supervisor has.
    victim = workers_of(relay.process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: is_silent(offenders[0]), "the kernel still drops")
    until(lambda: victim not in workers_of(relay.process.pid), "the worker is gone")
    until(lambda: is_silent(offenders[-1]), "the kernel still drops")


@needs_nginx
@pytest.mark.thorough
@asynchronous
async def test_quotas_behind_nginx(tmp_path: Path, start_relay: StartRelay) -> None:
    """nginx sends all clients of a network to one worker, so each client has exactly its quota."""
    relay = await asyncio.to_thread(
        start_relay,
        *(*WORKERS, *FORWARDED, "--upgrade-quota", "4/day burst 4", "--prefix-quota", "off", "--jail-after", "off"),
        launch=OWN_PATHS,
    )
    servers = " ".join(f"server unix:{relay.directory}/{index}.sock max_fails=0;" for index in range(4))
    with nginx(tmp_path / "proxy", servers, NGINX) as proxy:
        sources = [f"127.4.{number}.1" for number in range(24)]
        for statuses_of_one in (await outcomes((LOCALHOST, proxy.port), sources, 6)).values():
            assert statuses_of_one == [101] * 4 + [429] * 2


@pytest.mark.thorough
@asynchronous
async def test_quotas_at_a_socket_that_was_handed_down(start_relay: StartRelay) -> None:
    """All workers accept from one socket, and pass connections on, so quotas are exact there, too."""
    with passed_socket(backlog=512) as (port, launch):
        options = (*WORKERS, "--upgrade-quota", "5/day burst 5", "--prefix-quota", "off", "--jail-after", "off")
        await asyncio.to_thread(start_relay, *options, launch=launch)
        sources = [f"127.5.{number}.9" for number in range(40)]
        for statuses_of_one in (await outcomes((LOCALHOST, port), sources, 8)).values():
            assert statuses_of_one == [101] * 5 + [429] * 3


@pytest.mark.thorough
def test_a_jailed_client_is_counted_and_served_when_it_is_released(network: Network, start_relay: StartRelay) -> None:
    """What waits at the drop socket reaches the worker that it is steered to, which resets it, or serves it."""
    launch = Launch(listen=[f"tcp:{{port}}:interface={SERVER_V4}"])
    options = ("--jail-after", "5/day", "--jail-time", "5", "--http-quota", "off")
    relay = start_relay(*WORKERS, *options, launch=launch)
    source = "198.51.100.7"
    assert [status_over(network, relay, source) for _ in range(5)] == [404] * 5
    until(lambda: status_over(network, relay, source) == 0, "it is jailed")
    until(lambda: status_over(network, relay, source) == 404, "it is free again")
