"""Starting `twistd pyryrelay`: without options, as a daemon, from a file, and with an error."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import (
    DEADLINE_S,
    LOCALHOST,
    REACTOR,
    Launch,
    Relay,
    answers,
    assert_clean,
    asynchronous,
    environment,
    http_get,
    reserve_port,
    run,
    run_twistd,
    twistd,
    until,
)
from tests.end_to_end.peers import pair

DEFAULT_PORTS = (8080, 9090)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
            probe.listen()
        except OSError:
            return False
    return True


@pytest.fixture
def default_ports() -> Iterator[None]:
    """Reserve the default ports for one test run of this user at a time."""
    with (Path(tempfile.gettempdir()) / f"pyryrelay-default-ports-{os.getuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(map(_is_free, DEFAULT_PORTS)):
            pytest.skip(f"another program listens on one of the ports {DEFAULT_PORTS}")
        yield


@pytest.mark.usefixtures("default_ports")
def test_without_any_configuration(tmp_path: Path) -> None:
    """`twistd pyryrelay` alone serves peers on 127.0.0.1:8080 and metrics on 127.0.0.1:9090."""
    command = [twistd(), "-n", "--pidfile=", f"--reactor={REACTOR}", "pyryrelay"]
    with (tmp_path / "log").open("wb") as log:
        relay = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    try:
        until(lambda: answers(8080), "the relay answers on its default port")
        until(lambda: answers(9090, "/metrics"), "and its metrics")
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(DEADLINE_S) == 0
    finally:
        if relay.poll() is None:
            relay.kill()
            relay.wait()
    assert_clean((tmp_path / "log").read_text(encoding="utf-8"))


def test_the_command_alone(tmp_path: Path) -> None:
    """`python -m pyryrelay run` serves in the foreground, logs, writes no pid file and ends with 0 at SIGTERM."""
    with reserve_port() as held:
        port = held.getsockname()[1]
        options = (f"--reactor={REACTOR}", "--admin-listen=", "--listen", f"tcp:{port}:interface={LOCALHOST}")
        command = [sys.executable, "-m", "pyryrelay", "run", *options]
        with (tmp_path / "log").open("wb") as log:
            relay = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
        try:
            until(lambda: answers(port), "the relay answers")
            assert not list(tmp_path.glob("*.pid"))
            relay.send_signal(signal.SIGTERM)
            assert relay.wait(DEADLINE_S) == 0
        finally:
            if relay.poll() is None:
                relay.kill()
                relay.wait()
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert_clean(text)
    assert "shutting down, 0 connections to close" in text


# Daemons


def _process_field(pid: int, name: str) -> list[str]:
    """Return the values of one line of /proc/PID/status; none once the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return []
    return next((line.split()[1:] for line in status.splitlines() if line.startswith(f"{name}:")), [])


def _is_gone(pid: int) -> bool:
    # A daemon that has ended counts as gone, even if its new parent has not collected it yet.
    return _process_field(pid, "State")[:1] in ([], ["Z"])


@contextlib.contextmanager
def _daemon(directory: Path, *options: str, reactor: str = REACTOR) -> Iterator[tuple[int, int]]:
    """Run a relay in the background, and return its pid and port. It must remove its pid file when it stops."""
    pid_file, log_file = directory / "relay.pid", directory / "relay.log"
    with reserve_port() as held:
        port = held.getsockname()[1]
        arguments: list[str | Path] = [
            "--pidfile",
            pid_file,
            "--logfile",
            log_file,
            "--rundir",
            directory,
            "--reactor",
            reactor,
        ]
        arguments += [*options, "pyryrelay", "--listen", f"tcp:{port}:interface={LOCALHOST}", "--admin-listen="]
        subprocess.run([twistd(), *arguments], env=environment(), timeout=DEADLINE_S, check=True)
        until(lambda: answers(port), "the daemon answers /healthz")
        pid = int(pid_file.read_text(encoding="ascii"))
        try:
            yield pid, port
        finally:
            os.kill(pid, signal.SIGTERM)
            until(lambda: _is_gone(pid), "the daemon ends")
    assert not pid_file.exists()
    assert_clean(log_file.read_text(encoding="utf-8"))


@asynchronous
async def test_daemon(tmp_path: Path) -> None:
    """Without -n it serves in the background, writes its own log and removes its pid file at the end."""
    with _daemon(tmp_path) as (pid, port):
        assert pid != os.getpid()
        assert os.readlink(f"/proc/{pid}/cwd") == str(tmp_path)
        async with pair(f"ws://{LOCALHOST}:{port}") as peers:
            await peers.exchange()
    assert f"listens on tcp:{port}" in (tmp_path / "relay.log").read_text(encoding="utf-8")


@asynchronous
async def test_daemon_on_the_asyncio_reactor(tmp_path: Path) -> None:
    """--reactor=asyncio works in the background."""
    with _daemon(tmp_path, reactor="asyncio") as (_, port):
        async with pair(f"ws://{LOCALHOST}:{port}") as peers:
            await peers.exchange()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change the user")
@asynchronous
async def test_daemon_without_privileges(tmp_path: Path) -> None:
    """--uid and --gid drop root's privileges after the start, and the relay goes on serving."""
    nobody = pwd.getpwnam("nobody")
    # The unprivileged process needs access to its run directory, which pytest makes for root only.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        with _daemon(directory, "--uid", "nobody", "--gid", str(nobody.pw_gid)) as (pid, port):
            assert set(_process_field(pid, "Uid")) == {str(nobody.pw_uid)}
            assert set(_process_field(pid, "Gid")) == {str(nobody.pw_gid)}
            async with pair(f"ws://{LOCALHOST}:{port}") as peers:
                await peers.exchange()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change the user")
def test_the_log_of_a_daemon_without_privileges() -> None:
    """SIGUSR1 begins a new file, whether the old one is in place or was moved away before, as by logrotate."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        log = directory / "relay.log"
        with _daemon(directory, "--uid", "nobody") as (pid, _):
            assert log.stat().st_uid == nobody.pw_uid
            os.kill(pid, signal.SIGUSR1)
            first = directory / "relay.log.1"
            until(lambda: first.exists() and log.exists(), "the log is rotated")
            moved = log.rename(directory / "moved.log")
            os.kill(pid, signal.SIGUSR1)
            until(log.exists, "there is a log again")
            os.kill(pid, signal.SIGHUP)
            until(lambda: "reloaded" in log.read_text(encoding="utf-8"), "it is written to")
        texts = [path.read_text(encoding="utf-8") for path in (first, moved, log)]
        assert ["starting up" in text for text in texts] == [True, False, False]
        assert ["Server Shut Down" in text for text in texts] == [False, False, True]


# Settings


def test_check_prints_settings_that_start_a_relay(start_relay: StartRelay, tmp_path: Path) -> None:
    """--check listens nowhere, and prints a file that --config accepts."""
    with reserve_port() as held:
        endpoint = f"tcp:{held.getsockname()[1]}:interface={LOCALHOST}"
        done = run_twistd(tmp_path, "--check", "--deny", "127.0.0.9", "--listen", endpoint, "--admin-listen=")
    assert done.returncode == 0
    # What the machine of the tests is like is accepted.
    assert all(line.startswith("pyryrelay: accepted: ") for line in done.stderr.splitlines())
    assert endpoint in done.stdout
    file = tmp_path / "relay.toml"
    file.write_text(done.stdout, encoding="utf-8")
    relay = start_relay("--config", str(file))
    assert http_get(relay.port, "/healthz", source="127.0.0.9")[0] == 403
    assert answers(relay.port)


def test_check_beside_a_running_relay(start_relay: StartRelay, tmp_path: Path) -> None:
    """--check accepts ports that the running relay holds and names their owner, but not those of another program."""
    relay = start_relay()
    endpoint = f"tcp:{relay.port}:interface={LOCALHOST}"
    done = run_twistd(tmp_path, "--check", "--listen", endpoint, "--admin-listen=")
    assert done.returncode == 0
    assert f"--listen {endpoint!r}: held by a running pyryrelay, process " in done.stderr
    with socket.create_server((LOCALHOST, 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface={LOCALHOST}"
        done = run_twistd(tmp_path, "--check", "--listen", endpoint, "--admin-listen=")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"process {os.getpid()}, listens there; stop it, or choose another endpoint" in done.stderr


def test_options_from_the_environment(start_relay: StartRelay) -> None:
    """A variable PYRYRELAY_NAME sets an option."""
    relay = start_relay(launch=Launch(environment={"PYRYRELAY_DENY": LOCALHOST}))
    assert http_get(relay.port, "/healthz")[0] == 403


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--upgrade-quota", "lots"), ("--upgrade-quota", "'lots'")),
        (("--listen", "8080"), ("--listen", "'8080'", "tcp:8080:interface=127.0.0.1")),
        (("--listen", "ssl:8443:privateKey=/nowhere.pem"), ("--listen", "/nowhere.pem")),
        (("--no-such-option",), ("--no-such-option",)),
        (("--config", "/nowhere.toml"), ("--config", "/nowhere.toml")),
    ],
)
def test_bad_value(arguments: tuple[str, ...], named: tuple[str, ...], tmp_path: Path) -> None:
    """A bad value ends the start with exit code 2 and one line that names it."""
    done = run_twistd(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("pyryrelay: ")
    assert all(word in line for word in named), line


@pytest.mark.parametrize("option", ["--listen", "--admin-listen"])
def test_port_in_use(option: str, tmp_path: Path) -> None:
    """A port in use ends the start with exit code 2, one line on standard error and no pid file."""
    with socket.create_server((LOCALHOST, 0)) as taken, reserve_port() as free:
        other = {"--listen": "--admin-listen", "--admin-listen": "--listen"}[option]
        endpoint = f"tcp:{taken.getsockname()[1]}:interface={LOCALHOST}"
        free_endpoint = f"tcp:{free.getsockname()[1]}:interface={LOCALHOST}"
        done = run_twistd(tmp_path, option, endpoint, other, free_endpoint)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("pyryrelay: ")
    assert option in line
    assert endpoint in line
    assert_clean(done.stdout)
    assert not (tmp_path / "twistd.pid").exists()


def test_port_in_use_of_a_daemon(tmp_path: Path) -> None:
    """A daemon whose port is in use ends `twistd` with exit code 2 and the whole error, and leaves nothing behind."""
    pid_file, log_file = tmp_path / "relay.pid", tmp_path / "relay.log"
    with socket.create_server((LOCALHOST, 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface={LOCALHOST}"
        arguments: list[str | Path] = [
            "--pidfile",
            pid_file,
            "--logfile",
            log_file,
            "--rundir",
            tmp_path,
            "--reactor",
            REACTOR,
        ]
        done = run(twistd(), *arguments, "pyryrelay", "--listen", endpoint, "--admin-listen=")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("pyryrelay: --listen")
    assert line.endswith("stop it, or choose another endpoint")
    assert not pid_file.exists()
    assert not log_file.exists()


def test_unwritable_unix_socket(tmp_path: Path) -> None:
    """A UNIX-domain socket that cannot be made is one line, too."""
    done = run_twistd(tmp_path, "--listen", f"unix:{tmp_path}/missing/relay.sock", "--admin-listen=")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "relay.sock" in line
    assert_clean(done.stdout)


def test_help(tmp_path: Path) -> None:
    """--help shows the options, starts nothing and exits with 0."""
    helped = run_twistd(tmp_path, "--help")
    assert helped.returncode == 0
    assert "--upgrade-quota" in helped.stdout


def test_version(relay: Relay, tmp_path: Path) -> None:
    """/healthz reports the version that --version prints."""
    version = json.loads(http_get(relay.port, "/healthz")[1])["version"]
    assert run_twistd(tmp_path, "--version").stdout == f"pyryrelay {version}\n"
