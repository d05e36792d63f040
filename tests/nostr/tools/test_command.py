"""The command ``pyryrelay nostr``, from its arguments to its output and exit code."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.fake_relay import FakeRelay, serving_relay
from tests.support.signed_events import WALL_S, Author

from pyryrelay.cli import command
from pyryrelay.cli.protocol_commands import ENTRY_POINTS

ALICE = Author("alice")
NOTES = [ALICE.line(f"note {number}", created_at=WALL_S + number, tags=[["t", "x"]]) for number in range(5)]
TEXT = b"".join(line + b"\n" for line in NOTES)
DATABASE = "sqlite:events.sqlite"

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in an empty directory, with what it reads from standard input."""
    entry = EntryPoint("nostr", "pyryrelay.nostr.tools.command:add", ENTRY_POINTS)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: bytes = b"", database: str | None = DATABASE) -> int:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        chosen = [] if database is None else ["--database", database]
        return command.main(["nostr", *words, *chosen], {})

    return run


@pytest.fixture
def relay() -> Iterator[FakeRelay]:
    """An admin API that answers what the test has set."""
    with serving_relay() as relay:
        yield relay


def test_what_is_imported_can_be_exported(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """An export is what was imported, byte for byte, and can be imported again."""
    assert run("import", stdin=TEXT) == 0
    assert capfdbinary.readouterr().out == b"accepted\t5\nduplicate\t0\nsuperseded\t0\n"
    assert run("export") == 0
    assert capfdbinary.readouterr().out == TEXT
    assert run("import", "--json", stdin=TEXT) == 0
    told = json.loads(capfdbinary.readouterr().out)
    assert told == {"lines": 5, "accepted": 0, "duplicate": 5, "superseded": 0, "refused": {}}


def test_a_line_that_is_no_event_is_a_failure(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The others are imported, the line is told on standard error, and the exit code is 1."""
    assert run("import", stdin=NOTES[0] + b"\nrubbish\n" + NOTES[1]) == 1
    out, err = capfdbinary.readouterr()
    assert out == b"accepted\t2\nduplicate\t0\nsuperseded\t0\nrefused: not_an_event\t1\n"
    assert err == b"pyryrelay: line 2 is no event: not JSON\n"


def test_parts_of_an_export(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Times and filters choose events, and the newest may come first."""
    run("import", stdin=TEXT)
    capfdbinary.readouterr()
    assert run("export", "--since", str(WALL_S + 1), "--until", str(WALL_S + 2), "--reverse") == 0
    assert capfdbinary.readouterr().out.splitlines() == [NOTES[2], NOTES[1]]
    assert run("export", "--filter", '{"kinds":[7]}', "--filter", f'{{"until":{WALL_S}}}') == 0
    assert capfdbinary.readouterr().out.splitlines() == [NOTES[0]]


def test_searching_and_counting(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Filters are those of REQ; several find what any of them finds."""
    run("import", stdin=TEXT)
    capfdbinary.readouterr()
    assert run("scan", '{"limit":2}', f'{{"until":{WALL_S}}}') == 0
    assert capfdbinary.readouterr().out.splitlines() == [NOTES[4], NOTES[3], NOTES[0]]
    assert run("count", '{"#t":["x"]}') == 0
    assert run("count", '{"#t":["y"]}', "--json") == 0
    assert capfdbinary.readouterr().out == b'5\n{"count": 0}\n'


def test_deleting(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A dry run deletes nothing; what was deleted may come back unless it is gone forever."""
    run("import", stdin=TEXT)
    capfdbinary.readouterr()
    newest = '{"limit":2}'
    assert run("delete", newest, "--dry-run") == 0
    assert run("delete", newest) == 0
    assert run("delete", newest, "--forever", "--json") == 0
    assert run("count", "{}") == 0
    assert capfdbinary.readouterr().out == b'2\n2\n{"deleted": 2}\n1\n'
    assert run("import", "--json", stdin=TEXT) == 0
    told = json.loads(capfdbinary.readouterr().out)
    assert (told["accepted"], told["duplicate"], told["refused"]) == (2, 1, {"deleted": 2})


def test_care(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Figures, a check and compaction, for people and for programs."""
    run("import", stdin=TEXT)
    capfdbinary.readouterr()
    assert run("stats") == 0
    assert b"regular events\t5\n" in capfdbinary.readouterr().out
    assert run("stats", "--json") == 0
    assert json.loads(capfdbinary.readouterr().out)["events"]["regular"] == 5
    assert run("check") == 0
    assert run("check", "--json", "--no-verify") == 0
    assert capfdbinary.readouterr().out == b'{"events": 5, "problems": []}\n'
    assert run("compact") == 0
    assert run("compact", "--json") == 0
    assert set(json.loads(capfdbinary.readouterr().out)) == {"bytes_before", "bytes_after"}


def test_a_check_that_finds_something_fails(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Problems are printed, one a line, and the exit code is 1."""
    forged = json.dumps(json.loads(NOTES[0]) | {"sig": "0" * 128}).encode()
    assert run("import", "--no-verify", stdin=forged) == 0
    capfdbinary.readouterr()
    assert run("check") == 1
    assert capfdbinary.readouterr().out == b"signatures that do not verify: 1\n"


def test_lists_of_the_running_relay(
    run: Run, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the relay allows and denies is shown with where that was said."""
    relay.body = [{"list": "nostr-deny-kind", "entry": 4, "origin": "configuration"}]
    assert run("lists", "--admin", relay.url, database=None) == 0
    assert capsys.readouterr().out == "nostr-deny-kind\t4\tconfiguration\n"
    assert run("lists", "--admin", relay.url, "--json", database=None) == 0
    assert json.loads(capsys.readouterr().out) == relay.body
    relay.body = []
    assert run("lists", "--admin", relay.url, database=None) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["import", "export", "stats", "compact", "check"])
def test_where_no_relay_runs_a_database_must_be_named(run: Run, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says both ways out, and the exit code is 1."""
    assert run(name, "--admin", "http://127.0.0.1:1", database=None) == 1
    assert "start the relay" in (err := capsys.readouterr().err)
    assert err.endswith("or say which database to open: --database sqlite:PATH\n")


@pytest.mark.parametrize(
    "words", [("scan", "{}"), ("count", "{}"), ("delete", "{}"), ("export",), ("check",), ("delete", "{}", "--dry-run")]
)
def test_a_database_that_is_not_there(run: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be opened is one line and exit code 1."""
    assert run(*words, database="sqlite:no/such/directory/events.sqlite") == 1
    err = capsys.readouterr().err
    assert err.startswith("pyryrelay: database 'no/such/directory/events.sqlite'")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [(), ("scan",), ("scan", "x"), ("count", '{"kinds":1}'), ("export", "--since", "soon"), ("nonsense",)],
)
def test_a_wrong_command_line(run: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("url", ["events.sqlite", "sqlite:", "sqlite::memory:", "postgresql://x"])
def test_a_wrong_database(run: Run, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Only an SQLite file can be named."""
    with pytest.raises(SystemExit) as ended:
        run("stats", database=url)
    assert ended.value.code == 2
    assert "write sqlite:PATH" in capsys.readouterr().err


def test_missing_coincurve(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the library that verifies, the error says what to install, and believing signatures works."""
    monkeypatch.setitem(sys.modules, "coincurve", None)
    assert run("import", stdin=TEXT) == 1
    assert "pip install 'pyryrelay[nostr]'" in capsys.readouterr().err
    assert run("import", "--no-verify", stdin=TEXT) == 0


def test_progress_is_for_terminals(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the number of lines is shown while they are imported, and wiped off at the end."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("pyryrelay.nostr.tools.command.PROGRESS_S", 0.0)
    assert run("import", stdin=TEXT) == 0
    assert terminal.getvalue().startswith("\r5 lines, ")
    assert terminal.getvalue().endswith("\r\x1b[K")
