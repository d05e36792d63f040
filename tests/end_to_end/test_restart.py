"""A relay that was killed leaves files behind, and the next one starts, even where process numbers repeat."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.harness import (
    LOCALHOST,
    REACTOR,
    answers,
    assert_clean,
    environment,
    reserve_port,
    run_twistd,
    twistd,
    until,
)

CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""A command after which the first process has the number 1, as in a container."""

AS_FIRST, AS_SECOND, AFTER_ANOTHER, NEXT_TO_ANOTHER = (
    'exec "$@"',
    '"$@" & wait',
    'sleep 600 & exec "$@"',
    'sleep 600 & "$@" & wait',
)


@pytest.fixture(scope="module")
def container() -> tuple[str, ...]:
    """Return what runs a command in a container."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("root and unshare are needed")
    if subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("unshare is not allowed here")
    return CONTAINER


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


class Started:
    """A relay that listens on a port, and on a socket beside its pid file."""

    def __init__(self, directory: Path, port: int, *prefix: str) -> None:
        self._log = directory / "log"
        self.port = port
        listen = (f"tcp:{port}:interface={LOCALHOST}", f"unix:{directory}/relay.sock")
        options = ("-n", "--pidfile", str(directory / "twistd.pid"), "--reactor", REACTOR, "pyryrelay")
        command = [*prefix, twistd(), *options, "--listen", listen[0], "--listen", listen[1], "--admin-listen="]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=directory, env=environment(), stdout=log, stderr=log)

    def log(self) -> str:
        """Return what it wrote."""
        return self._log.read_text(encoding="utf-8")

    def is_ready(self) -> bool:
        """Tell whether it serves."""
        assert self.process.poll() is None, self.log()
        return answers(self.port)

    def kill(self) -> None:
        """End it without a chance to clean up."""
        self.process.kill()
        self.process.wait()
        until(lambda: not answers(self.port), "it is gone")


@contextlib.contextmanager
def started(directory: Path, port: int, *prefix: str) -> Iterator[Started]:
    """Run a relay that serves, and is killed in the end."""
    relay = Started(directory, port, *prefix)
    try:
        until(relay.is_ready, "it answers /healthz")
        yield relay
    finally:
        relay.kill()


@pytest.mark.parametrize(
    ("before", "after"), [(AS_FIRST, AS_FIRST), (AS_FIRST, AFTER_ANOTHER), (AS_SECOND, NEXT_TO_ANOTHER)]
)
def test_a_crash_in_a_container(container: tuple[str, ...], before: str, after: str, directory: Path) -> None:
    """A pid file and lock are stale even if their number is now the relay's own, or another program's."""
    with reserve_port() as held:
        port = held.getsockname()[1]
        with started(directory, port, *container, "sh", "-c", before, "sh"):
            left = (directory / "twistd.pid").read_text(encoding="ascii").strip()
            assert left == os.readlink(directory / "relay.sock.lock")
        with started(directory, port, *container, "sh", "-c", after, "sh") as relay:
            assert_clean(relay.log())
            assert "removed the stale file" in relay.log()
            assert "relay.sock, on which nobody listened any more" in relay.log()


def test_a_crash_without_a_container(directory: Path) -> None:
    """A pid file and lock with the number of an ended process do not prevent the start."""
    with reserve_port() as held:
        port = held.getsockname()[1]
        with started(directory, port):
            pass
        with started(directory, port) as relay:
            assert_clean(relay.log())


def test_a_second_relay_with_the_same_pid_file(directory: Path) -> None:
    """A second relay names the first as the owner of the file, and leaves both alone."""
    with reserve_port() as held, started(directory, held.getsockname()[1]) as relay:
        done = run_twistd(directory, "--listen", f"tcp:0:interface={LOCALHOST}", "--admin-listen=")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert f"--pidfile (of twistd): a running relay, process {relay.process.pid}, uses " in line
        assert (directory / "twistd.pid").exists()
        assert relay.is_ready()
