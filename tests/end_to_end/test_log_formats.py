"""The log of a real relay as JSON and in the journal, and its rotation by logrotate."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import LOCALHOST, Launch, Relay, asynchronous, environment, reserve_port, twistd, until
from tests.end_to_end.peers import pair
from tests.end_to_end.raw import ask, head
from tests.observe.log_formats.test_journal import parsed

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "contrib" / "logrotate" / "pyryrelay"
AS_JSON = ("--log-format", "json")


def objects(text: str) -> list[dict[str, Any]]:
    """Read a log of JSON, all of whose lines must be objects."""
    return [json.loads(line) for line in text.splitlines()]


def names(lines: list[dict[str, Any]]) -> list[str]:
    """Return the names of the relay's own events."""
    return [line["event"] for line in lines if "event" in line]


@asynchronous
async def test_json(start_relay: StartRelay) -> None:
    """Every line on standard output is an object, from the first to the last, with the fields of its line."""
    relay = start_relay(*AS_JSON)
    async with pair(relay.uri, "x") as peers:
        await peers.exchange()
    await ask(relay.address, head("/nothing", ("Host", "relay")))
    relay.stop()
    lines = objects(relay.log())
    assert {"pyryrelay_listens_on", "binary_claimed_version_from", "refused_on", "shutting_down"} <= {*names(lines)}
    (refused,) = [line for line in lines if line.get("event") == "refused_on"]
    assert (refused["client"], refused["status"], refused["reason"]) == (LOCALHOST, 404, "unknown_path")
    assert refused["message"] == f"refused {LOCALHOST} 404 unknown_path on - (0 more left out)"
    assert any(line["logger"].startswith("twisted.") for line in lines)


@pytest.mark.thorough
def test_json_of_the_command(start_relay: StartRelay) -> None:
    """`pyryrelay run` writes the same."""
    with reserve_port() as held:
        port = held.getsockname()[1]
        command = (sys.executable, "-m", "pyryrelay", "run", *AS_JSON, "--admin-listen=")
        with subprocess.Popen(
            [*command, "--listen", f"tcp:{port}:interface={LOCALHOST}"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines: list[str] = []
            while not any("pyryrelay_listens_on" in line for line in lines):
                lines.append(process.stdout.readline())
                assert lines[-1], lines
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "shutting_down" in names(objects("".join(lines) + rest))


class Daemon:
    """A relay in the background, with its log and pid file in a folder."""

    def __init__(self, directory: Path, *options: str, user: str = "") -> None:
        self.log = directory / "relay.log"
        self.pidfile = directory / "relay.pid"
        self._held = reserve_port()
        port = self._held.getsockname()[1]
        words = [twistd(), "--rundir", str(directory), "--pidfile", str(self.pidfile), "--logfile", str(self.log)]
        words += ["--uid", user] if user else []
        words += ["pyryrelay", "--listen", f"tcp:{port}:interface={LOCALHOST}", "--admin-listen=", *options]
        subprocess.run(words, cwd=directory, env=environment(), check=True, timeout=60)
        self.pid = int(self.pidfile.read_text())
        until(lambda: "listens on" in self.log.read_text(), "it is started")

    def reloaded(self) -> None:
        """Have it write a line, and wait for it."""
        before = self.written().count("reloaded")
        os.kill(self.pid, signal.SIGHUP)
        until(lambda: self.written().count("reloaded") > before, "it is reloaded")

    def written(self) -> str:
        """Return what is in the log file now."""
        return self.log.read_text() if self.log.exists() else ""

    def stop(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: not self.pidfile.exists(), "it has ended")
        self._held.close()


@pytest.mark.thorough
def test_json_of_a_daemon(tmp_path: Path) -> None:
    """The file of a daemon is JSON too, and so is what a rotation left of it."""
    daemon = Daemon(tmp_path, *AS_JSON)
    os.kill(daemon.pid, signal.SIGUSR1)
    first = tmp_path / "relay.log.1"
    until(first.exists, "the log is rotated")
    daemon.stop()
    assert "pyryrelay_listens_on" in names(objects(first.read_text()))
    assert "shutting_down" in names(objects(daemon.written()))


@pytest.mark.thorough
def test_old_logs_are_removed(tmp_path: Path) -> None:
    """--log-keep holds for a real relay."""
    for number in (1, 2, 3):
        (tmp_path / f"relay.log.{number}").write_text(f"old {number}")
    daemon = Daemon(tmp_path, "--log-keep", "2")
    os.kill(daemon.pid, signal.SIGUSR1)
    until(lambda: not (tmp_path / "relay.log.3").exists(), "an old log is removed")
    daemon.stop()
    assert (tmp_path / "relay.log.2").read_text() == "old 1"


def recipe(directory: Path, **changes: str) -> Path:
    """Write the recipe of contrib/ for a folder, with some of its words changed."""
    text = RECIPE.read_text(encoding="utf-8").replace("/var/lib/pyryrelay", str(directory))
    for old, new in changes.items():
        assert old in text
        text = re.sub(rf"^ +{old}.*\n(?:.*\n +endscript\n)?", f"    {new}\n", text, flags=re.MULTILINE)
    path = directory / "logrotate.conf"
    path.write_text(text, encoding="utf-8")
    return path


def logrotate(configuration: Path) -> None:
    """Rotate now."""
    state = configuration.with_suffix(".state")
    done = subprocess.run(
        ["logrotate", "--force", "--state", str(state), str(configuration)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


needs_logrotate = pytest.mark.skipif(
    shutil.which("logrotate") is None or os.getuid() != 0, reason="needs root and logrotate (Debian: logrotate)"
)


@pytest.mark.thorough
@needs_logrotate
@pytest.mark.parametrize("how", ["SIGUSR1", "copytruncate"])
def test_logrotate(how: str) -> None:
    """The recipe works for a relay that has given up root's privileges, twice, and so does ``copytruncate``."""
    nobody = pwd.getpwnam("nobody")
    # The unprivileged process needs access to the folder, which pytest makes for root only.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        # Debian's group of that user.
        group = {"su": "su nobody nogroup"}
        changes = group if how == "SIGUSR1" else group | {"postrotate": "copytruncate"}
        configuration = recipe(directory, **changes)
        daemon = Daemon(directory, "--log-max-bytes", "off", user="nobody")
        for _ in range(2):
            logrotate(configuration)
            daemon.reloaded()
            assert "starting up" not in daemon.written()
            assert "\0" not in daemon.written()
        assert "reloaded" in (directory / "relay.log.1").read_text()
        assert (directory / "relay.log.2.gz").exists()
        daemon.stop()
        assert "Server Shut Down" in daemon.written()


@pytest.mark.thorough
@asynchronous
async def test_the_journal(start_relay: StartRelay, tmp_path: Path) -> None:
    """Where standard output is the journal, each event is an entry with fields, and nothing else is written."""
    address = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(address)
        journal.setblocking(False)
        program = (sys.executable, "-m", "tests.end_to_end.with_journal", address)
        relay = start_relay(launch=Launch(program=program))
        entries: list[dict[str, str]] = []
        async with pair(relay.uri, "x") as peers:
            await peers.exchange()
            await ask(relay.address, head("/nothing", ("Host", "relay")))
            entries += received(journal)
        relay.stop()
        entries += received(journal)
    written = {entry.get("PYRYRELAY_EVENT", "") for entry in entries}
    assert {"pyryrelay_listens_on", "binary_claimed_version_from", "refused_on", "shutting_down"} <= written
    (refused,) = [entry for entry in entries if entry.get("PYRYRELAY_EVENT") == "refused_on"]
    assert refused["MESSAGE"] == f"[pyryrelay#info] refused {LOCALHOST} 404 unknown_path on - (0 more left out)"
    assert (refused["PYRYRELAY_CLIENT"], refused["PRIORITY"]) == (LOCALHOST, "6")
    assert all(text not in relay.log() for text in ("refused", "listens on", "claimed"))


def received(journal: socket.socket) -> list[dict[str, str]]:
    """Return the entries that the journal has."""
    entries = []
    while True:
        try:
            entries.append(parsed(journal.recv(65536)))
        except BlockingIOError:
            return entries


@pytest.mark.thorough
def test_a_journal_that_is_not_there(start_relay: StartRelay, tmp_path: Path) -> None:
    """Then everything is written as text."""
    program = (sys.executable, "-m", "tests.end_to_end.with_journal", str(tmp_path / "missing"))
    relay: Relay = start_relay(launch=Launch(program=program))
    relay.log_has("[pyryrelay#info]", "listens on")
    relay.stop()
