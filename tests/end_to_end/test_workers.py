"""A relay of several processes: it starts, serves, is upgraded and ends as one, whatever is killed."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.generations import Crowd, Generations, Start, adopted_orphans, starting
from tests.end_to_end.harness import (
    DEADLINE_S,
    LOCALHOST,
    answers,
    assert_clean,
    asynchronous,
    environment,
    eventually,
    http_get,
    reserve_port,
    run_twistd,
    twistd,
    until,
)
from tests.end_to_end.peers import Pair, binary, fresh_id, pair, phone
from tests.end_to_end.processes import children_of, runs
from tests.end_to_end.service_manager import assert_main_process_is_told, passed_socket
from tests.end_to_end.test_upgrade import assert_nobody_lost, upgraded

from pyryrelay.workers.steering import owner_of, steer

pytestmark = pytest.mark.thorough

COUNT = 2
SOURCES = [
    next(text for number in range(250) if steer(ipaddress.ip_address(text := f"127.0.{number}.9"), COUNT) == index)
    for index in range(COUNT)
]
"""An address for each worker."""


@pytest.fixture(autouse=True)
def orphans() -> Iterator[None]:
    """Collect the processes that a relay leaves to its successor."""
    with adopted_orphans():
        yield


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a relay with two workers, in a folder with a short name."""
    with starting("--workers", str(COUNT), "--drain-over", "1", is_up=has_all_workers) as started:
        yield started


def id_of(index: int) -> str:
    """Return a new server-id that belongs to a worker."""
    while owner_of(server_id := fresh_id(), COUNT) != index:
        pass
    return server_id


def workers_of(relay: Generations) -> dict[int, int]:
    """Return the processes of the workers that are ready, by index."""
    _, status = relay.ask("GET", "/status")
    return {row["index"]: row["pid"] for row in status["workers"] if row["state"] == "running" and row["pid"]}


def has_all_workers(relay: Generations) -> bool:
    """Tell whether all workers of a relay are ready."""
    return len(workers_of(relay)) == COUNT


def process_of(relay: Generations, index: int) -> int:
    """Return the process of a worker. One that is slow to answer is not shown as running meanwhile."""
    return until(lambda: workers_of(relay).get(index), f"worker {index} is ready") or 0


@pytest.mark.parametrize("owner", range(COUNT))
def test_peers_of_all_addresses_meet(start: Start, owner: int) -> None:
    """Binary and phone come from addresses of different workers, and whichever owns their server-id serves both."""
    relay = start()

    @asynchronous
    async def scenario() -> None:
        server_id = id_of(owner)
        async with (
            binary(relay.uri, server_id, source=SOURCES[0]) as one,
            phone(relay.uri, server_id, source=SOURCES[1]) as other,
        ):
            await Pair(server_id, one, other).exchange()

    scenario()


def test_upgrades_under_load(start: Start) -> None:
    """Three upgrades in a row: no attempt to connect fails, and each peer is only ever closed with 1001."""
    relay = start()

    @asynchronous
    async def scenario() -> None:
        async with (
            Crowd(relay.uri, options={"source": SOURCES[0]}, groups=2).running() as one,
            Crowd(relay.uri, options={"source": SOURCES[1]}, groups=2, name="other").running() as other,
        ):
            await upgraded(relay)
        assert_nobody_lost(one)
        assert_nobody_lost(other)

    scenario()


def test_a_worker_that_is_killed(start: Start) -> None:
    """Its index is served again soon, connections of the meantime wait, and the peers of the other one stay."""
    relay = start()
    killed = process_of(relay, 0)

    @asynchronous
    async def scenario() -> None:
        async with pair(relay.uri, id_of(1), source=SOURCES[1]) as other:
            await other.exchange()
            os.kill(killed, signal.SIGKILL)
            began = time.monotonic()
            async with pair(relay.uri, id_of(0), source=SOURCES[0]) as again:
                await again.exchange()
            sys.stdout.write(f"served again after {time.monotonic() - began:.2f} s\n")
            await other.exchange()

    scenario()
    relay.log_has("worker 0 ended: signal 9")
    assert process_of(relay, 0) != killed


def test_workers_that_are_killed_at_random(start: Start) -> None:
    """Whatever a worker was doing, the relay has all of them again, and ends in an orderly way."""
    relay, chance = start(), random.Random(7)
    for _ in range(12):
        victims = until(lambda: [pid for pid in children_of(relay.pid) if runs(pid)], "there are workers")
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)
        time.sleep(chance.uniform(0.0, 0.4))
    until(lambda: has_all_workers(relay), "all workers are ready again", 4 * DEADLINE_S)
    assert answers(relay.port)


def test_a_supervisor_that_is_killed(start: Start) -> None:
    """Nothing is left of it within a second or so, and its ports are free."""
    relay = start()
    until(lambda: len(children_of(relay.pid)) == COUNT + 1, "one process is started in advance")
    left = children_of(relay.pid)
    os.kill(relay.pid, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: not any(map(runs, left)), "all workers end")
    sys.stdout.write(f"all ended after {time.monotonic() - began:.2f} s\n")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind((LOCALHOST, relay.port))
        free.listen()


def test_a_supervisor_that_is_killed_while_its_workers_start(start: Start) -> None:
    """A worker that has not come so far does not become a relay of its own."""
    relay = start()
    killed = set(children_of(relay.pid))
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len({*children_of(relay.pid)} - killed) >= COUNT, "others start")
    left = children_of(relay.pid)
    os.kill(relay.pid, signal.SIGKILL)
    until(lambda: not any(map(runs, left)), "all of them end")


def test_a_second_signal(start: Start) -> None:
    """The first one drains, and the second one ends the relay at once."""
    relay = start()

    @asynchronous
    async def scenario() -> None:
        async with pair(relay.uri, source=SOURCES[0]) as peers:
            await peers.exchange()
            pids = [relay.pid, *children_of(relay.pid)]
            os.kill(relay.pid, signal.SIGTERM)
            os.kill(relay.pid, signal.SIGTERM)
            await eventually(lambda: not any(map(runs, pids)), "all end")

    scenario()


def test_a_signal_for_one_worker(start: Start) -> None:
    """It ends in an orderly way, and another one takes its place."""
    relay = start()
    pid = process_of(relay, 1)
    os.kill(pid, signal.SIGTERM)
    relay.log_has("worker 1 ended: exit code 0")
    until(lambda: workers_of(relay).get(1, pid) != pid, "another one is ready")


def test_a_reload_reaches_all(start: Start, tmp_path: Path) -> None:
    """SIGHUP has all workers read what the supervisor has read, also those that are started later."""
    config = tmp_path / "relay.toml"
    config.write_text("grace = 5\n")
    relay = start("--config", str(config))
    config.write_text("grace = 6\n")
    os.kill(relay.pid, signal.SIGHUP)
    relay.log_has("reloaded, changed: grace", times=1 + COUNT)
    config.write_text("grace = 'broken'\n")
    os.kill(process_of(relay, 0), signal.SIGKILL)
    relay.log_has("worker 0]", "reloaded, changed: grace", times=2)
    status, outcome = relay.ask("POST", "/reload")
    assert status == 409 or outcome.get("error")


def test_the_log_names_the_worker(start: Start) -> None:
    """In JSON, too, where the lines of workers have the same keys as others."""
    relay = start("--log-format", "json")
    http_get(relay.port, "/", source=SOURCES[1])
    found = [json.loads(line) for line in relay.log_has('"worker":1', '"client"')]
    assert found[0]["logger"] == "pyryrelay"
    assert found[0]["client"] == SOURCES[1]


def test_a_socket_of_systemd(start: Start) -> None:
    """A socket that systemd passed is common to all workers, and handed on in upgrades."""
    with passed_socket() as (port, launch):
        relay = start(launch=launch)

    @asynchronous
    async def scenario() -> None:
        async with Crowd(f"ws://{LOCALHOST}:{port}").running() as record:
            await upgraded(relay, 2)
        assert_nobody_lost(record)

    scenario()


def test_the_service_manager(start: Start) -> None:
    """READY comes when all workers are ready; an upgrade tells it the new main process."""
    assert_main_process_is_told(start)


def test_another_number_of_workers(start: Start, tmp_path: Path) -> None:
    """It needs a restart: the running relay goes on, and the answer says so."""
    config = tmp_path / "relay.toml"
    config.write_text("grace = 5\n")
    relay = start("--config", str(config))
    environ_of_others = {"workers": 3}
    config.write_text(f"workers = {environ_of_others['workers']}\n")
    status, _ = relay.ask("POST", "/reload")
    assert status == 200
    until(lambda: has_all_workers(relay), "the workers go on")


def test_nothing_leaks(start: Start) -> None:
    """After more upgrades and deaths, the supervisor has no more descriptors than before."""
    relay = start()

    def settled() -> bool:
        return len(children_of(relay.pid)) == COUNT + 1 and has_all_workers(relay)

    def count() -> int:
        return len(os.listdir(f"/proc/{relay.pid}/fd"))

    counts: list[int] = []
    for _ in range(4):
        relay.upgrade()
        relay.has_moved()
        until(settled, "one process is started in advance")
        os.kill(killed := process_of(relay, 0), signal.SIGKILL)
        until(lambda: workers_of(relay).get(0, killed) != killed, "another one is ready")
        until(settled, "all are there again", 2 * DEADLINE_S)
        counts.append(count())
        until(lambda: count() <= counts[0], f"no more than {counts} descriptors are open")
    for _ in range(4):
        os.kill(killed := process_of(relay, 1), signal.SIGKILL)
        until(lambda: workers_of(relay).get(1, killed) != killed, "another one is ready")
    until(settled, "all are there again", 2 * DEADLINE_S)
    until(lambda: count() <= counts[0], f"no more than {counts} descriptors are open, whatever was killed since")


def test_a_daemon() -> None:
    """twistd in the background: one pid file, one log, and nothing is left at the end."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, reserve_port() as held:
        port, folder = held.getsockname()[1], Path(name)
        words = [twistd(), "--rundir", name, "--pidfile", f"{name}/pid", "--logfile", f"{name}/log", "pyryrelay"]
        words += ["--listen", f"tcp:{port}:interface={LOCALHOST}", "--admin-listen=", "--workers", "2"]
        subprocess.run(words, env=environment(), timeout=DEADLINE_S, check=True)
        until(lambda: answers(port), "the daemon answers")
        # Another worker may have answered.
        until(lambda: "worker 1]" in (folder / "log").read_text(encoding="utf-8"), "worker 1 is there, too")
        pid = int((folder / "pid").read_text(encoding="ascii"))
        pids = [pid, *children_of(pid)]
        os.kill(pid, signal.SIGUSR1)
        until(lambda: (folder / "log.1").exists(), "the log is rotated")
        os.kill(pid, signal.SIGTERM)
        until(lambda: os.waitpid(pid, os.WNOHANG)[0], "the supervisor ends")
        until(lambda: not any(map(runs, pids)), "nothing is left of it")
        assert not (folder / "pid").exists()
        assert "worker 1]" in (folder / "log").read_text() + (folder / "log.1").read_text()
        assert_clean((folder / "log").read_text())


@pytest.mark.parametrize("text", ["0", "two", "1000"])
def test_bad_numbers(tmp_path: Path, text: str) -> None:
    """A bad number is one line, and exit code 2."""
    found = run_twistd(tmp_path, "--workers", text)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"pyryrelay: --workers (from command line): {text!r} ")
