"""Children as real processes on a real store, with a test at the other end of the socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyryrelay.nostr.events import Event, canonical, event_id
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.visibility import View
from pyryrelay.nostr.workers.child import READER_BUFFER_BYTES, READER_NICE, main, name_process
from pyryrelay.nostr.workers.wire import (
    Call,
    Done,
    FrameBuffer,
    FromReader,
    FromVerifier,
    FromWriter,
    Open,
    Query,
    QueryLimits,
    ReaderConfig,
    Ready,
    Rows,
    Snapshot,
    Verdict,
    Verdicts,
    VerifierConfig,
    Verify,
    Write,
    WriterConfig,
    Written,
    encode,
    frame,
)

PATIENCE_S = 60
ANSWERS: dict[str, Any] = {"writer": FromWriter, "reader": FromReader, "verifier": FromVerifier}


class Child:
    """A child process, and this end of its socket."""

    def __init__(self, role: str, program: tuple[str, ...] = ("-m", "pyryrelay.nostr.workers.child")) -> None:
        self.end, theirs = socket.socketpair()
        self.end.settimeout(PATIENCE_S)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *program, role], stdin=theirs.fileno(), stderr=subprocess.PIPE, text=True
            )
        self._frames = FrameBuffer()
        self._waiting: list[bytes] = []
        self._answers = ANSWERS.get(role, object)

    def send(self, message: object) -> None:
        """Send a message."""
        self.end.sendall(frame(encode(message)))

    def next(self) -> Any:
        """Return the next message; None at the end."""
        while not self._waiting:
            data = self.end.recv(65536)
            if not data:
                return None
            self._waiting = self._frames.feed(data)
        return msgspec.msgpack.decode(self._waiting.pop(0), type=self._answers)

    def outcome(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and standard error."""
        _, error = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, error


@contextmanager
def running(role: str, config: object) -> Iterator[Child]:
    """Run a child that is ready."""
    child = Child(role)
    try:
        child.send(config)
        ready = child.next()
        assert isinstance(ready, Ready), child.outcome()
        yield child
    finally:
        child.end.close()
        child.outcome()


def stored(number: int) -> bytes:
    """Return a canonical event, whose signature nobody looks at."""
    unsigned = Event("0" * 64, "1" * 64, 1_700_000_000 + number, 1, [], f"event {number}", "2" * 128)
    event = msgspec.structs.replace(unsigned, id=event_id(canonical(unsigned).preimage))
    return canonical(event).json


def asks_for_everything(number: int) -> Open:
    """Return a query of all events."""
    limits = QueryLimits(max_limit=500, default_limit=500, max_results=5000, max_work=None)
    view = View(frozenset(), frozenset({4}), 0)
    return Open(number, 1 << 20, Query(client="a", filters=(Filter(),), view=view, limits=limits, timeout_s=None))


def rows_of(reader: Child) -> list[bytes]:
    """Return the rows of the only running query."""
    rows: list[bytes] = []
    while not isinstance(message := reader.next(), Done):
        rows += message.rows if isinstance(message, Rows) else []
    return rows


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that does not exist yet."""
    return f"sqlite:{tmp_path}/nostr.sqlite"


def test_what_the_writer_stores_the_others_see(url: str) -> None:
    """The writer creates the store; a reader finds what it has written, and a verifier knows it."""
    events = [stored(number) for number in range(3)]
    with running("writer", WriterConfig(database=url)) as writer:
        writer.send(Write(1, events[:2]))
        written = writer.next()
        assert isinstance(written, Written)
        assert (written.number, written.outcomes, written.seqs) == (1, [0, 0], [1, 2])
        with running("reader", ReaderConfig(database=url)) as reader:
            reader.send(asks_for_everything(7))
            assert reader.next() == Snapshot(7, 2)
            assert rows_of(reader) == [events[1], events[0]]
        with running("verifier", VerifierConfig(database=url)) as verifier:
            parts = [msgspec.json.decode(event, type=Event) for event in events]
            verifier.send(Verify(1, "".join(event.id + event.pubkey + event.sig for event in parts)))
            verdicts = verifier.next()
            assert isinstance(verdicts, Verdicts)
            assert list(verdicts.verdicts[:2]) == [Verdict.KNOWN] * 2
            assert verdicts.verdicts[2] in (Verdict.BAD_KEY, Verdict.BAD_SIGNATURE)
        writer.send(Call(2, "statistics", {}))
        assert writer.next().result["events"]["regular"] == 2


@pytest.mark.parametrize("role", ["writer", "reader", "verifier"])
def test_a_child_ends_with_its_relay(url: str, role: str) -> None:
    """It ignores the signals that end the relay, and ends when the other end is closed."""
    configs: dict[str, object] = {
        "writer": WriterConfig(database=url),
        "reader": ReaderConfig(database=url),
        "verifier": VerifierConfig(database=None),
    }
    if role == "reader":
        with running("writer", configs["writer"]):
            pass
    with running(role, configs[role]) as child:
        for number in (signal.SIGINT, signal.SIGTERM):
            child.process.send_signal(number)
        if role == "writer":
            child.send(Write(1, [stored(1)]))
            assert child.next().outcomes == [0]
        child.end.shutdown(socket.SHUT_WR)
        assert child.next() is None
        assert child.outcome() == (0, "")


def test_children_end_when_the_relay_is_killed(url: str) -> None:
    """A relay that is killed closes nothing itself; the system does it for it."""
    relay = (
        "import socket, subprocess, sys, time\n"
        "from pyryrelay.nostr.workers.wire import WriterConfig, encode, frame\n"
        "ours, theirs = socket.socketpair()\n"
        "command = [sys.executable, '-P', '-m', 'pyryrelay.nostr.workers.child', 'writer']\n"
        "child = subprocess.Popen(command, stdin=theirs)\n"
        "theirs.close()\n"
        f"ours.sendall(frame(encode(WriterConfig(database={url!r}))))\n"
        "ours.recv(1)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", relay], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        # The child has the other end of this pipe, too, so it has ended when the pipe has.
        assert process.communicate(timeout=PATIENCE_S)[0] == ""


def test_a_killed_writer_has_stored_what_it_answered(url: str) -> None:
    """Kill -9 at any moment: everything that was answered is there, and the next writer goes on."""
    answered: list[bytes] = []
    for attempt in range(3):
        child = Child("writer")
        child.send(WriterConfig(database=url))
        for number in range(attempt * 100, attempt * 100 + 50):
            child.send(Write(number, [stored(number)]))
        while len(answered) < (attempt + 1) * 5:
            message = child.next()
            if isinstance(message, Written) and message.outcomes == [0]:
                answered.append(stored(message.number))
        child.process.kill()
        child.outcome()
        child.end.close()
    with running("writer", WriterConfig(database=url)), running("reader", ReaderConfig(database=url)) as reader:
        reader.send(asks_for_everything(1))
        assert set(answered) <= set(rows_of(reader))


@pytest.mark.parametrize("role", ["writer", "reader", "verifier"])
def test_a_store_that_cannot_be_opened(role: str, tmp_path: Path) -> None:
    """The child says why in one line, and ends."""
    (tmp_path / "damaged").write_bytes(b"no database, but longer than the header of one" * 100)
    url = f"sqlite:{tmp_path}/damaged"
    child = Child(role)
    child.send({"writer": WriterConfig, "reader": ReaderConfig, "verifier": VerifierConfig}[role](database=url))
    assert child.next() is None
    code, error = child.outcome()
    child.end.close()
    assert code == 1
    assert error.startswith(f"nostr {role}: database ")
    assert error.count("\n") == 1


def test_what_a_child_loads(url: str) -> None:
    """No child loads Twisted, and only verifiers load the library for signatures."""
    source = (
        "import sys\n"
        "from pyryrelay.nostr.workers.child import main\n"
        "code = main(sys.argv[1:])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "sys.stderr.write(' '.join(sorted(loaded & {'twisted', 'coincurve'})))\n"
        "sys.exit(code)\n"
    )
    loaded = {}
    for role, config in [
        ("writer", WriterConfig(database=url)),
        ("reader", ReaderConfig(database=url)),
        ("verifier", VerifierConfig(database=url)),
    ]:
        child = Child(role, ("-c", source))
        child.send(config)
        assert child.next() is not None
        child.end.close()
        loaded[role] = child.outcome()
    assert loaded == {"writer": (0, ""), "reader": (0, ""), "verifier": (0, "coincurve")}


def test_readers_step_back() -> None:
    """They have a lower priority than the relay, and little of what they send waits for it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        program = "import os, socket\nfrom pyryrelay.nostr.workers.child import step_back\n"
        program += "step_back(socket.socket(fileno=0))\nprint(os.nice(0))"
        done = subprocess.run([sys.executable, "-c", program], stdin=theirs.fileno(), capture_output=True, check=True)
        assert int(done.stdout) == min(os.nice(0) + READER_NICE, 19)
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sent = 0
            while sent < 8 * READER_BUFFER_BYTES:
                sent += theirs.send(bytes(4096))
        assert sent <= 2 * READER_BUFFER_BYTES


def test_a_child_is_for_relays_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a role it says so."""
    assert main([]) == main(["cook"]) == 2
    assert capsys.readouterr().err == "This program is started by the relay.\n" * 2


def test_the_process_shows_its_role() -> None:
    """Where the system has such names."""
    comm = Path("/proc/self/comm")
    if not comm.exists() or os.getpid() != int(Path("/proc/self").readlink().name):
        pytest.skip("no /proc here")
    before = comm.read_text(encoding="ascii").strip()
    try:
        name_process("reader")
        assert comm.read_text(encoding="ascii") == "nostr-reader\n"
    finally:
        comm.write_text(before, encoding="ascii")
