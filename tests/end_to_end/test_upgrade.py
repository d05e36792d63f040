"""Upgrades under load: nobody is refused or lost while one process takes over from another."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.end_to_end.generations import Crowd, Generations, Record, Start, adopted_orphans, starting
from tests.end_to_end.harness import (
    DEADLINE_S,
    LOCALHOST,
    Launch,
    answers,
    assert_clean,
    asynchronous,
    environment,
    eventually,
    http_get,
    reserve_port,
    twistd,
    until,
)
from tests.end_to_end.nostr.peers import Author
from tests.end_to_end.peers import binary, closed, fresh_id, pair, phone
from tests.end_to_end.processes import children_of
from tests.end_to_end.proxies import haproxy, needs_haproxy, needs_nginx, nginx
from tests.end_to_end.service_manager import assert_main_process_is_told, passed_socket
from tests.support.other_users import NOBODY, needs_python_of_nobody
from tests.support.tls_peers import client_context, endpoint_arguments
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake


@pytest.fixture(autouse=True)
def orphans() -> Iterator[None]:
    """Collect the processes that a relay leaves to its successor."""
    with adopted_orphans():
        yield


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a relay that moves its peers within a second, in a folder with a short name."""
    with starting("--drain-over", "1") as started:
        yield started


async def upgraded(relay: Generations, times: int = 3) -> None:
    """Upgrade several times in a row."""
    for _ in range(times):
        await asyncio.to_thread(relay.upgrade)
        await relay.will_have_moved()


def assert_nobody_lost(record: Record) -> None:
    """Check that nobody was refused, and that all were moved by 1001."""
    # `pytest -rP` shows how many there were.
    sys.stdout.write(f"attempts {record.attempts}, failures {len(record.failures)}, closes {record.closes}\n")
    assert record.failures == []
    assert set(record.closes) == {1001}


@asynchronous
async def _crowd(relay: Generations, uri: str, times: int = 3, **options: object) -> None:
    async with Crowd(uri, options=dict(options)).running() as record:
        await upgraded(relay, times)
    assert_nobody_lost(record)


def test_plain(start: Start) -> None:
    """Three upgrades in a row: no attempt to connect fails, and each peer is only ever closed with 1001."""
    relay = start()
    _crowd(relay, relay.uri)


def test_tls(start: Start, tmp_path: Path) -> None:
    """The same on an ``ssl:`` endpoint, where handshakes are under way when the process changes."""
    endpoint = f"ssl:{{port}}:{endpoint_arguments(tmp_path)}:interface={LOCALHOST}"
    relay = start(launch=Launch(listen=(endpoint,)))
    _crowd(relay, f"wss://{LOCALHOST}:{relay.port}", ssl=client_context())


@needs_nginx
def test_behind_nginx(start: Start, tmp_path: Path) -> None:
    """The same behind nginx."""
    relay = start("--trust-x-forwarded-for", "--trusted-proxy", LOCALHOST)
    with nginx(tmp_path / "nginx", f"{LOCALHOST}:{relay.port}") as proxy:
        _crowd(relay, proxy.uri)


@needs_haproxy
def test_behind_haproxy(start: Start, tmp_path: Path) -> None:
    """The same behind haproxy, with PROXY headers."""
    relay = start(launch=Launch(listen=(f"haproxy:tcp:{{port}}:interface={LOCALHOST}",)))
    with haproxy(tmp_path / "haproxy", f"{LOCALHOST}:{relay.port} send-proxy-v2", "tcp") as proxy:
        _crowd(relay, proxy.uri)


def test_a_unix_socket(start: Start) -> None:
    """The same on a UNIX socket, whose file and mode stay."""
    launch = Launch(listen=("unix:{directory}/relay.sock:mode=660",))
    relay = start("--trust-x-forwarded-for", "--trusted-proxy", "unix", launch=launch)
    path = relay.directory / "relay.sock"
    _crowd(relay, "ws://relay", unix=path, additional_fields=[("x-forwarded-for", "192.0.2.7")])
    assert path.stat().st_mode & 0o777 == 0o660
    relay.stop()
    assert not path.exists()


def test_sockets_that_drop_in_the_kernel(start: Start) -> None:
    """The same with drop sockets beside the listening ones; who is in jail stays there."""
    relay = start("--kernel-drop", "--jail-after", "9/day", "--jail-file", "")
    _jail(relay, "192.0.2.7")
    _crowd(relay, relay.uri)
    assert [entry["network"] for entry in _jailed(relay)] == ["192.0.2.7/32"]


def _jail(relay: Generations, address: str) -> None:
    connection = http.client.HTTPConnection(LOCALHOST, relay.admin_port)
    body = f'{{"address": "{address}", "seconds": 600}}'
    connection.request("POST", "/jail", body, {"X-Pyryrelay-Admin": "1", "Content-Type": "application/json"})
    assert connection.getresponse().status == 201
    connection.close()


def _jailed(relay: Generations) -> list[dict[str, object]]:
    _, found = relay.ask("GET", "/jail")
    assert isinstance(found, list)
    return found


def _serves(relay: Generations) -> bool:
    try:
        return http_get(relay.port, "/readyz")[0] == 200
    except OSError:
        return False


@asynchronous
async def _kill_new_ones(relay: Generations, seconds: random.Random, times: int) -> None:
    """Kill the new process at a random moment of each upgrade, as long as there is an old one."""
    crowd = Crowd(relay.uri, groups=2, phones=2, allowed=(1001, 1006, 4404))
    async with crowd.running() as record:
        for _ in range(times):
            old = relay.pid
            # A process that has moved all peers ends, and then nobody is left to serve. It waits for the first one of
            # these, which nobody visits; the newest group moves at once.
            quiet = [await binary(relay.uri, fresh_id()) for _ in range(2)]
            upgrade = asyncio.create_task(asyncio.to_thread(relay.try_upgrade))
            await asyncio.sleep(seconds.uniform(0.0, 1.5))
            killed = children_of(old)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError, http.client.HTTPException):
                await upgrade
            if killed:
                relay.pids = [old]
            await eventually(lambda: _serves(relay), "the relay serves")
            for connection in quiet:
                await connection.close()
            await relay.will_have_moved()
            record.failures.clear()


def test_a_new_process_that_is_killed(start: Start) -> None:
    """Whenever the new process is killed, the old one serves."""
    relay = start("--drain-over", "3600")
    _kill_new_ones(relay, random.Random(1), 8)
    relay.log_has("upgrade failed")


def test_an_old_process_that_is_killed(start: Start) -> None:
    """If the old process is killed while it drains, the new one serves all."""
    relay = start("--drain-over", "3600")

    @asynchronous
    async def scenario() -> None:
        # The newest group moves at once, and the other one keeps the old process.
        async with pair(relay.uri) as there, binary(relay.uri, fresh_id()):
            await there.exchange()
            await asyncio.to_thread(relay.upgrade)
            os.kill(relay.pids[0], signal.SIGKILL)
            await relay.will_have_moved()
            async with pair(relay.uri, there.server_id) as here:
                await here.exchange()

    scenario()


def test_a_bad_configuration(start: Start, tmp_path: Path) -> None:
    """A new process that refuses its configuration changes nothing, and the answer says why."""
    config = tmp_path / "relay.toml"
    config.write_text("grace = 5\n")
    relay = start("--config", str(config))
    config.write_text('grace = "long"\n')

    @asynchronous
    async def scenario() -> None:
        async with pair(relay.uri) as peers:
            status, body = await asyncio.to_thread(relay.try_upgrade)
            assert status == 409
            assert "grace" in body["error"]
            await peers.exchange()
        config.write_text("grace = 6\n")
        await upgraded(relay, 1)
        async with pair(relay.uri) as peers:
            await peers.exchange()

    scenario()
    relay.log_has("upgrade failed", "grace")


def test_a_phone_brings_its_group(start: Start) -> None:
    """A phone that arrives at the new process meets its binary there, although that is not due to move for an hour."""
    relay = start("--drain-over", "3600")

    @asynchronous
    async def scenario() -> None:
        # The last group of several moves last.
        ids = [fresh_id() for _ in range(3)]
        binaries = [await binary(relay.uri, server_id) for server_id in ids]
        await asyncio.to_thread(relay.upgrade)
        moved = await closed(binaries.pop())
        assert moved == (1001, "shutting down")
        async with phone(relay.uri, ids[0]) as early:
            await early.send('"early"')
            assert await closed(binaries[0]) == (1001, "shutting down")
            async with binary(relay.uri, ids[0]) as again:
                assert '"frame":"early"' in str(await again.recv())
        rival = await binary(relay.uri, ids[1])
        assert await closed(rival) == (4409, "server-id already claimed")
        os.kill(relay.pids[0], signal.SIGTERM)
        assert await closed(binaries[1]) == (1001, "shutting down")
        await relay.will_have_moved()

    scenario()


def test_a_second_upgrade_waits(start: Start) -> None:
    """While one process still drains, the next upgrade is refused with the reason."""
    relay = start("--drain-over", "3600")

    @asynchronous
    async def scenario() -> None:
        async with binary(relay.uri, fresh_id()), binary(relay.uri, fresh_id()):
            await asyncio.to_thread(relay.upgrade)
            status, body = await asyncio.to_thread(relay.try_upgrade)
            assert status == 409
            assert (
                f"process {relay.pids[0]}, from which this one has taken over, still moves its peers" in body["error"]
            )

    scenario()


def test_the_signal_and_the_pid_file(start: Start) -> None:
    """SIGUSR2 upgrades, and the pid file names the process that serves, which removes it in the end."""
    relay = start()
    pid_file = relay.directory / "twistd.pid"
    os.kill(relay.pid, signal.SIGUSR2)
    relay.log_has("has taken over; moving all peers")
    relay.log_has("Server Shut Down")
    relay.pids.append(int(pid_file.read_text()))
    relay.has_moved()
    assert relay.pid != relay.process.pid
    relay.stop()
    assert not pid_file.exists()


def test_nothing_leaks(start: Start) -> None:
    """After many upgrades a process has as many descriptors as after the first."""
    relay = start()
    counts: list[int] = []

    def has_no_more() -> bool:
        counts.append(len(os.listdir(f"/proc/{relay.pid}/fd")))
        return counts[-1] <= counts[0]

    for _ in range(5):
        relay.upgrade()
        relay.has_moved()
        # It may not have noticed yet that the one before it has ended.
        until(has_no_more, f"no more descriptors are open than {counts}")


def test_nostr(start: Start) -> None:
    """The store changes hands: no event that was answered with OK is lost, and clients only see 1001."""
    relay = start("--nostr")
    stored: list[str] = []
    record = Record()

    async def publisher(author: Author) -> None:
        while not record.is_over:
            record.attempts += 1
            try:
                async with connect(f"{relay.uri}/", compression=None, proxy=None, open_timeout=DEADLINE_S) as peer:
                    await _publish(peer, author, stored, record)
            except ConnectionClosed as error:
                record.closed("publisher", error)
            except (OSError, InvalidHandshake) as error:
                record.failures.append(repr(error))

    @asynchronous
    async def scenario() -> None:
        authors = [Author() for _ in range(3)]
        tasks = [asyncio.create_task(publisher(author)) for author in authors]
        for _ in range(3):
            await eventually(partial(_longer, stored, len(stored) + 5), "events are stored")
            await upgraded(relay, 1)
        count = len(stored)
        await eventually(lambda: len(stored) > count + 5, "events are stored")
        record.is_over = True
        await asyncio.gather(*tasks)
        async with connect(f"{relay.uri}/", compression=None, proxy=None, open_timeout=DEADLINE_S) as peer:
            missing = set(stored)
            for start_at in range(0, len(stored), 100):
                await peer.send(json.dumps(["REQ", "a", {"ids": stored[start_at : start_at + 100]}]))
                while (message := json.loads(await asyncio.wait_for(peer.recv(), DEADLINE_S)))[0] != "EOSE":
                    missing.discard(message[2]["id"])
        assert missing == set()

    scenario()
    assert record.failures == []
    assert set(record.closes) == {1001}


def _longer(stored: list[str], count: int) -> bool:
    return len(stored) > count


async def _publish(peer: ClientConnection, author: Author, stored: list[str], record: Record) -> None:
    while not record.is_over:
        event = author.event(content=str(len(stored)))
        await peer.send(json.dumps(["EVENT", event]))
        while (message := json.loads(await asyncio.wait_for(peer.recv(), DEADLINE_S)))[0] != "OK":
            pass
        if message[2]:
            stored.append(event["id"])
        await asyncio.sleep(0.02)


def test_a_socket_of_systemd(start: Start) -> None:
    """A socket that systemd passed is handed on, although systemd's variables do not name the new process."""
    with passed_socket() as (port, launch):
        relay = start(launch=launch)
    _crowd(relay, f"ws://{LOCALHOST}:{port}", times=2)


def test_the_service_manager_learns_the_main_process(start: Start) -> None:
    """NOTIFY_SOCKET is told MAINPID by the old process and READY by the new one, and never STOPPING by the old one."""
    assert_main_process_is_told(start)


@needs_python_of_nobody
def test_a_daemon_without_privileges() -> None:
    """A daemon that has become another user hands its port over; its log goes on in the same file."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, reserve_port() as held:
        port, folder = held.getsockname()[1], Path(name)
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
        pid_file = folder / "pid"
        words = [
            twistd(),
            "--rundir",
            name,
            "--pidfile",
            str(pid_file),
            "--logfile",
            str(folder / "log"),
            "--uid=nobody",
        ]
        words += ["pyryrelay", "--listen", f"tcp:{port}:interface={LOCALHOST}", "--admin-listen=", "--drain-over", "0"]
        subprocess.run(words, env=environment(), timeout=DEADLINE_S, check=True)
        until(lambda: answers(port), "the daemon answers")
        first = int(pid_file.read_text(encoding="ascii"))
        # The file belongs to root, who wrote it, so the new process can replace its content only if it may.
        os.chown(pid_file, NOBODY.pw_uid, NOBODY.pw_gid)
        os.kill(first, signal.SIGUSR2)
        until(lambda: os.waitpid(first, os.WNOHANG)[0], "the first process ends")
        second = int(pid_file.read_text(encoding="ascii"))
        try:
            assert second != first
            assert os.stat(f"/proc/{second}").st_uid == NOBODY.pw_uid
            assert answers(port)
        finally:
            os.kill(second, signal.SIGTERM)
            until(lambda: os.waitpid(second, os.WNOHANG)[0], "the second process ends")
        log = (folder / "log").read_text(encoding="utf-8")
        assert_clean(log)
        assert log.count("has taken over; moving all peers") == 1
        assert not pid_file.exists()


@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_told_to_end_at_any_moment(start: Start, seed: int) -> None:
    """SIGTERM to the old process at any moment ends it with 0; a new one serves if it had taken over, or ends, too."""
    relay, when = start("--drain-over", "3600"), random.Random(seed)

    @asynchronous
    async def scenario() -> None:
        async with binary(relay.uri, fresh_id()), binary(relay.uri, fresh_id()):
            upgrade = asyncio.create_task(asyncio.to_thread(relay.try_upgrade))
            await asyncio.sleep(when.uniform(0.0, 1.5))
            os.kill(relay.process.pid, signal.SIGTERM)
            with contextlib.suppress(OSError, http.client.HTTPException):
                await upgrade
            await eventually(partial(relay.has_ended, relay.process.pid), "the old process ends")

    others = children_of(os.getpid())
    scenario()
    assert relay.codes[relay.process.pid] == 0
    # A new process is a child of this one now. If it was just taking over, the old one did not learn that it had.
    relay.pids = [relay.process.pid, *(pid for pid in children_of(os.getpid()) if pid not in others)]
    until(lambda: all(map(relay.has_ended, relay.pids)) or _serves(relay), "the new process ends, or serves")


def test_a_new_process_that_is_told_to_end(start: Start) -> None:
    """SIGTERM to the new process while the old one drains ends both with 0."""
    relay = start("--drain-over", "3600")

    @asynchronous
    async def scenario() -> None:
        async with binary(relay.uri, fresh_id()), binary(relay.uri, fresh_id()) as left:
            await asyncio.to_thread(relay.upgrade)
            os.kill(relay.pid, signal.SIGTERM)
            for pid in relay.pids:
                await eventually(partial(relay.has_ended, pid), "both end")
            assert (await closed(left))[0] == 1001

    scenario()
    assert set(relay.codes.values()) == {0}


def test_a_configuration_with_other_endpoints(start: Start, tmp_path: Path) -> None:
    """The new process opens what is new, and what is not listed any more is closed, file included."""
    config = tmp_path / "relay.toml"
    with reserve_port() as held:
        port = held.getsockname()[1]
        config.write_text('listen = ["unix:old.sock"]\n', encoding="ascii")
        relay = start("--config", str(config), launch=Launch(listen=()))
        assert (relay.directory / "old.sock").exists()
        config.write_text(f'listen = ["tcp:{port}:interface={LOCALHOST}"]\n', encoding="ascii")
        relay.upgrade()
        until(lambda: answers(port), "the new endpoint answers")
        assert not (relay.directory / "old.sock").exists()
        relay.has_moved()


def test_a_reload_while_the_new_process_starts(start: Start, tmp_path: Path) -> None:
    """What a SIGHUP changes while the new process starts is in force in that process."""
    config = tmp_path / "relay.toml"
    config.write_text("grace = 5\n", encoding="ascii")
    relay = start("--config", str(config))
    os.kill(relay.pid, signal.SIGUSR2)
    (new,) = until(lambda: children_of(relay.pid), "the new process starts")
    # Until the old one has read the file again.
    os.kill(new, signal.SIGSTOP)
    config.write_text("grace = 6\n", encoding="ascii")
    os.kill(relay.pid, signal.SIGHUP)
    relay.log_has("reloaded, changed: grace")
    os.kill(new, signal.SIGCONT)
    relay.log_has("taken over from process")
    relay.pids.append(int((relay.directory / "twistd.pid").read_text(encoding="ascii")))
    relay.has_moved()

    def grace() -> str:
        _, settings = relay.ask("GET", "/settings")
        return next(str(setting["value"]) for setting in settings if setting["name"] == "--grace")

    until(lambda: grace() == "6", "the new process has the new value")
