"""A Nostr relay that cannot start says why in one line on standard error and ends with exit code 2, as --check does."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, asynchronous, environment, twistd
from tests.end_to_end.nostr.conftest import NOSTR
from tests.end_to_end.nostr.peers import Author, client
from tests.support.other_users import AS_NOBODY, needs_nobody

from pyryrelay.cli.twistd_options import StartRefused
from pyryrelay.start.twistd import Options

ON_LOOPBACK = ("--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", "", "--jail-file", "")


def attempt(
    directory: Path,
    *options: str,
    variables: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    mode: Sequence[str] = ("-n",),
) -> subprocess.CompletedProcess[str]:
    """Run a relay in ``directory`` until it ends by itself."""
    return subprocess.run(
        [*prefix, twistd(), *mode, "--pidfile=", "pyryrelay", *NOSTR, *ON_LOOPBACK, *options],
        cwd=directory,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def line_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line with which a relay has refused to start; warnings and notes are left out."""
    assert done.returncode == 2, done
    words = ("pyryrelay: warning: ", "pyryrelay: accepted: ")
    lines = [line for line in done.stderr.splitlines() if not line.startswith(words)]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stdout
    return lines[0]


Refused = Callable[..., str]


@pytest.fixture(params=[(), ("--check",)], ids=["start", "check"])
def refused(request: pytest.FixtureRequest, tmp_path: Path) -> Refused:
    """Try to start a relay, or to check its options, which must fail with one line; return that line."""

    def refuse(*options: str, directory: Path = tmp_path, **how: object) -> str:
        return line_of(attempt(directory, *options, *request.param, **how))  # type: ignore[arg-type]

    return refuse


def test_without_the_extra(refused: Refused, tmp_path: Path) -> None:
    """Without coincurve the line says what to install."""
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['coincurve'] = None\n", encoding="ascii")
    line = refused(variables={"PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], str(folder)])})
    assert "coincurve" in line
    assert "pip install 'pyryrelay[nostr]'" in line


def database(path: Path, *statements: str) -> str:
    """Make a database in which these statements were run, and return its URL."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return f"sqlite:{path}"


@asynchronous
async def _fill(start_nostr: StartRelay, path: Path) -> None:
    """Make a database that a relay has used."""
    relay = start_nostr("--nostr-database", f"sqlite:{path}")
    async with client(relay.uri) as peer:
        assert await peer.publish(Author().event("kept")) == (True, "")
    relay.stop()


def test_a_newer_version(refused: Refused, start_nostr: StartRelay, tmp_path: Path) -> None:
    """A database that a newer release has written is not touched."""
    path = tmp_path / "newer.sqlite"
    _fill(start_nostr, path)
    line = refused("--nostr-database", database(path, "PRAGMA user_version = 99"))
    assert "version 99" in line
    assert "install a newer pyryrelay" in line


def test_a_database_of_another_program(refused: Refused, tmp_path: Path) -> None:
    """Another program's database is not touched."""
    line = refused("--nostr-database", database(tmp_path / "other.sqlite", "CREATE TABLE cookies (name)"))
    assert "choose another" in line


def test_no_database(refused: Refused, tmp_path: Path) -> None:
    """A file that is no database is not touched."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 1000, encoding="ascii")
    assert "not an SQLite database" in refused("--nostr-database", f"sqlite:{path}")
    assert path.read_text(encoding="ascii") == "not a database\n" * 1000


def test_a_damaged_database(refused: Refused, start_nostr: StartRelay, tmp_path: Path) -> None:
    """Damage is found at the start, and the line names the remedy."""
    path = tmp_path / "damaged.sqlite"
    _fill(start_nostr, path)
    with path.open("r+b") as file:
        file.seek(2048)
        file.write(b"\xff" * (path.stat().st_size - 2048))
    line = refused("--nostr-database", f"sqlite:{path}")
    assert "damaged" in line
    assert "restore a backup" in line


def test_no_folder(refused: Refused, tmp_path: Path) -> None:
    """The folder has to exist, and to be one."""
    (tmp_path / "file").write_text("", encoding="ascii")
    for folder in ("missing", "file"):
        line = refused("--nostr-database", f"sqlite:{folder}/events.sqlite")
        assert str(tmp_path / folder) in line


def test_a_folder_instead_of_a_file(refused: Refused, tmp_path: Path) -> None:
    """The database has to be a file."""
    (tmp_path / "folder").mkdir()
    assert str(tmp_path / "folder") in refused("--nostr-database", "sqlite:folder")


@needs_nobody
def test_a_folder_that_cannot_be_written(refused: Refused) -> None:
    """A folder in which nothing can be written is refused before anything is served."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        line = refused(directory=Path(folder), prefix=(*AS_NOBODY, "--inh-caps=-all"))
    assert folder in line
    assert "cannot be written" in line


def test_a_second_relay(start_nostr: StartRelay, tmp_path: Path) -> None:
    """A database in use by another relay is not opened; --check only notes that, as it is used before reloads."""
    path = tmp_path / "in-use.sqlite"
    start_nostr("--nostr-database", f"sqlite:{path}")
    for mode in (("-n",), ("--logfile=second.log",)):  # the second one daemonizes
        line = line_of(attempt(tmp_path, "--nostr-database", f"sqlite:{path}", mode=mode))
        assert "in use by another process" in line
    checked = attempt(tmp_path, "--nostr-database", f"sqlite:{path}", "--check")
    assert checked.returncode == 0, checked
    assert f"prevents a start, not a reload: {line.removeprefix('pyryrelay: ')}" in checked.stderr


KEY = "npub1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
BAD_OPTIONS = [
    (("--nostr-preset", "damus"), "--nostr-preset", "strfry"),
    (("--nostr-deny-pubkey", "somebody"), "--nostr-deny-pubkey", "npub"),
    (("--nostr-allow-pubkey", KEY), "--nostr-allow-pubkey", "npub"),
    (("--nostr-trusted", "a" * 63), "--nostr-trusted", "hex"),
    (("--nostr-allow-kind", "65536"), "--nostr-allow-kind", "65535"),
    (("--nostr-deny-kind", "9-3"), "--nostr-deny-kind", "9-3"),
    (("--nostr-max-subscriptions", "15"), "--nostr-max-subscriptions", "16"),
    (("--nostr-event-quota", "sixty"), "--nostr-event-quota", "sixty"),
    (("--nostr-database", "mysql:x"), "--nostr-database", "sqlite"),
    (("--nostr-url", "https://relay.example.com"), "--nostr-url", "wss"),
    (("--nostr-write", "friends"), "--nostr-write", "open"),
    (("--nostr-path", "nostr"), "--nostr-path", "/"),
    (("--nostr-retain", "1=forever"), "--nostr-retain", "forever"),
    (("--nostr-text", "oops=x"), "--nostr-text", "oops"),
    (("--listen", "tcp:0", "--nostr-read", "auth"), "--nostr-read", "--nostr-url"),
    (("--listen", "tcp:0", "--nostr-giftwrap-auth"), "--nostr-giftwrap-auth", "--nostr-url"),
]


@pytest.mark.parametrize(("options", "name", "remedy"), BAD_OPTIONS, ids=[" ".join(row[0]) for row in BAD_OPTIONS])
def test_bad_options(options: Sequence[str], name: str, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that is none, or contradicts others, is named with what would do, before anything is started."""
    with pytest.raises(StartRefused) as refused:
        Options().parseOptions([*NOSTR, *ON_LOOPBACK, *options])
    assert capsys.readouterr().err == f"pyryrelay: {refused.value.line}\n"
    assert refused.value.code == 2
    assert name in refused.value.line
    assert remedy in refused.value.line


def test_options_of_later_releases(capsys: pytest.CaptureFixture[str]) -> None:
    """What this relay cannot do has no option."""
    for option in ("--nostr-policy", "--nostr-peer", "--nostr-admin", "--nostr-members", "--nostr-search"):
        with pytest.raises(StartRefused):
            Options().parseOptions([*NOSTR, option, "x"])
        assert f"no such option {option}" in capsys.readouterr().err


def test_check(tmp_path: Path) -> None:
    """--check accepts a relay that would start, says what will not work, and creates nothing."""
    done = attempt(tmp_path, "--check", "--listen", "tcp:0", "--nostr-database", "sqlite:events.sqlite")
    assert done.returncode == 0, done
    assert "--nostr-url" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_off_needs_nothing(tmp_path: Path) -> None:
    """Without --nostr neither the library nor a database is looked for."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['coincurve'] = None\n", encoding="ascii")
    path = os.pathsep.join([environment()["PYTHONPATH"], str(tmp_path)])
    done = subprocess.run(
        [sys.executable, twistd(), "-n", "--pidfile=", "pyryrelay", *ON_LOOPBACK, "--check"],
        cwd=tmp_path,
        env=environment({"PYTHONPATH": path}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done
