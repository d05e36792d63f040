"""Bans on disk: they survive a restart, and a file with a problem never stops the relay."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard import address_key, network_of
from pyryrelay.guard.jail import Jail, Sentence
from pyryrelay.jail import store as jailstore_module
from pyryrelay.jail.store import APPLICATION_ID, JailStore, sentence_of

WALL = 1_800_000_000.0
SOURCES = str(Path(__file__).resolve().parents[2] / "src")


def key_of(text: str) -> int:
    """Return the key of a network."""
    network = ip_network(text)
    return address_key(network.network_address, network.prefixlen)


ALICE, BOB = key_of("192.0.2.1"), key_of("2001:db8::/64")


class Rig:
    """A file, the stores that were opened on it, and their warnings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.stores: list[JailStore] = []

    def store(self) -> JailStore:
        """Return a store that is closed when the test ends."""
        self.stores.append(JailStore(self.path, self.warnings.append))
        return self.stores[-1]

    def opened(self) -> JailStore:
        """Return a store whose content does not matter."""
        store = self.store()
        store.load(0.0, WALL)
        return store

    def filled(self) -> None:
        """Leave one ban in the file, and close it."""
        store = self.opened()
        assert store.save([Sentence(ALICE, 100.0, 1)], [], 0.0, WALL)
        store.close()

    def execute(self, *statements: str) -> None:
        """Run a statement on the file without the store."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)

    def one_warning(self, *parts: str) -> None:
        """Check that there was one warning of one line, with the file and these words."""
        (line,) = self.warnings
        assert "\n" not in line
        for part in (str(self.path), *parts):
            assert part in line


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A file that does not exist yet."""
    rig = Rig(tmp_path / "jail.sqlite")
    yield rig
    for store in rig.stores:
        store.close()


def test_bans_come_back(rig: Rig) -> None:
    """Saved bans are loaded in the time of another process's clock."""
    store = rig.store()
    assert store.load(50.0, WALL) == []
    assert store.usable
    sentences = [Sentence(ALICE, 650.0, 1), Sentence(BOB, 40.0, 3)]
    assert store.save(sentences, [], 50.0, WALL)
    store.close()
    assert rig.store().load(7_000.0, WALL + 100.0) == [Sentence(ALICE, 7_500.0, 1), Sentence(BOB, 6_890.0, 3)]
    assert rig.warnings == []


def test_who_passed_a_sentence_comes_back(rig: Rig) -> None:
    """Also in a file of a release that did not keep it, which gets it from now on."""
    rig.filled()
    rig.execute("ALTER TABLE jail DROP COLUMN origin")
    store, sentence = rig.store(), Sentence(BOB, 100.0, 2, "10.0.0.2:7000")
    assert store.load(0.0, WALL) == [Sentence(ALICE, 100.0, 1)]
    store.save([sentence], [], 0.0, WALL)
    store.close()
    assert rig.store().load(0.0, WALL) == [Sentence(ALICE, 100.0, 1), sentence]
    assert rig.warnings == []


def test_a_release_that_does_not_know_origins_goes_on(rig: Rig) -> None:
    """During an upgrade, the process before writes to the same file."""
    rig.filled()
    rig.execute(
        f"INSERT OR REPLACE INTO jail (network, until, times, saved) VALUES ('192.0.2.9/32', {WALL}, 1, {WALL})"
    )
    assert len(rig.store().load(0.0, WALL)) == 2


def test_columns_of_a_later_release(rig: Rig) -> None:
    """They are none of this one's business; so are columns that a process of that release tells."""
    rig.filled()
    rig.execute("ALTER TABLE jail ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    assert rig.store().load(0.0, WALL) == [Sentence(ALICE, 100.0, 1)]
    assert rig.warnings == []
    row = ("192.0.2.9/32", WALL + 10.0, 2, WALL)
    for told, origin in ((row, ""), ((*row, "a"), "a"), ((*row, "a", "b"), "a")):
        assert sentence_of(told, 0.0, WALL) == Sentence(key_of("192.0.2.9"), 10.0, 2, origin)
    assert sentence_of(row[:3], 0.0, WALL) is None


def test_saving_changes_only_what_changed(rig: Rig) -> None:
    """Saving replaces and deletes the given keys, and leaves all others."""
    store = rig.opened()
    carol, dave = key_of("192.0.2.3"), key_of("::/0")
    store.save([Sentence(key, 100.0, 1) for key in (ALICE, BOB, carol, dave)], [], 0.0, WALL)
    store.save([Sentence(BOB, 300.0, 2)], [carol, dave, key_of("192.0.2.9")], 0.0, WALL)
    store.close()
    assert rig.store().load(0.0, WALL) == [Sentence(ALICE, 100.0, 1), Sentence(BOB, 300.0, 2)]


def test_a_clock_that_was_set_back_prolongs_nothing(rig: Rig) -> None:
    """A ban never lasts longer than what was left of it when it was saved."""
    rig.filled()
    assert rig.opened().usable
    assert rig.store().load(5.0, 0.0) == [Sentence(ALICE, 105.0, 1)]


def test_the_file_is_ours_alone(rig: Rig) -> None:
    """The mode of the file is 0600, whatever the umask and whatever it was before."""
    before = os.umask(0)
    try:
        rig.filled()
    finally:
        os.umask(before)
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600
    rig.path.chmod(0o644)
    rig.opened()
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600
    assert [path.name for path in rig.path.parent.iterdir()] == [rig.path.name]


def test_the_file_is_readable_with_other_tools(rig: Rig) -> None:
    """The file holds networks and wall-clock times as text that other tools can read."""
    rig.filled()
    with closing(sqlite3.connect(rig.path)) as database:
        assert database.execute("SELECT * FROM jail").fetchall() == [("192.0.2.1/32", WALL + 100.0, 1, WALL, "")]


def overwrite(path: Path) -> None:
    """Write a file that is no database."""
    path.write_bytes(b"garbage" * 1_000)


def tear(path: Path) -> None:
    """Cut the file after its first page, as a full disk might."""
    with path.open("r+b") as file:
        file.truncate(4_096)


def scribble(path: Path) -> None:
    """Damage a page that only a full check reads."""
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * 4_096)


@pytest.mark.parametrize("damage", [overwrite, tear, scribble])
def test_a_damaged_file_is_moved_aside(rig: Rig, damage: Callable[[Path], None]) -> None:
    """A damaged file and its journal are moved aside, and a new file is begun."""
    rig.filled()
    damage(rig.path)
    damaged = rig.path.read_bytes()
    store = rig.store()
    assert store.load(0.0, WALL) == []
    assert store.usable
    rig.one_warning("is damaged and was moved", "jail.sqlite.corrupt", "a new one was created")
    assert rig.path.with_name("jail.sqlite.corrupt").read_bytes() == damaged
    assert store.save([Sentence(BOB, 1.0, 1)], [], 0.0, WALL)
    store.close()
    assert rig.store().load(0.0, WALL) == [Sentence(BOB, 1.0, 1)]


def test_damage_in_flight(rig: Rig) -> None:
    """A file that is damaged while in use is moved aside, and bans are kept in memory from then on."""
    store = rig.opened()
    store.save([Sentence(key_of(f"192.0.2.{number}"), 1.0, 1) for number in range(200)], [], 0.0, WALL)
    rig.execute("PRAGMA user_version = 1")
    overwrite(rig.path)
    assert not store.save([Sentence(ALICE, 1.0, 1)], [], 0.0, WALL)
    assert not store.usable
    rig.one_warning("is damaged and was moved", "in memory only until the next start")
    assert not store.save([Sentence(ALICE, 1.0, 1)], [], 0.0, WALL)
    assert len(rig.warnings) == 1
    assert rig.opened().usable


def test_a_damaged_file_that_cannot_be_moved(rig: Rig) -> None:
    """If a damaged file cannot be moved, bans are kept in memory."""
    rig.filled()
    overwrite(rig.path)
    rig.path.with_name("jail.sqlite.corrupt").mkdir()
    store = rig.store()
    assert store.load(0.0, WALL) == []
    assert not store.usable
    rig.one_warning("cannot be used: it is damaged, and", "in memory only")


def make_directory(path: Path) -> None:
    """Make a folder of that name."""
    path.mkdir()


def make_link(path: Path) -> None:
    """Make a link to another file."""
    path.symlink_to(path.with_name("elsewhere"))


def make_newer(path: Path) -> None:
    """Write the file as a later release would."""
    rig = Rig(path)
    rig.filled()
    rig.execute("PRAGMA user_version = 2")


def make_foreign(path: Path) -> None:
    """Write the file as another program would."""
    Rig(path).execute("CREATE TABLE orders (id)", "PRAGMA application_id = 7")


def make_incomplete(path: Path) -> None:
    """Rename the table, and keep the mark of the program."""
    rig = Rig(path)
    rig.filled()
    rig.execute("ALTER TABLE jail RENAME TO jailed")


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (make_directory, "not a regular file"),
        (make_link, "not a regular file"),
        (make_newer, "it has version 2, and this release knows version 1"),
        (make_foreign, "it is the database of another program"),
        (make_incomplete, "no such table"),
    ],
)
def test_a_file_that_is_not_ours_to_change(rig: Rig, make: Callable[[Path], None], cause: str) -> None:
    """A file that the program must not change is left alone, and bans are kept in memory."""
    make(rig.path)
    before = rig.path.read_bytes() if rig.path.is_file() else None
    store = rig.store()
    assert store.load(0.0, WALL) == []
    assert not store.usable
    assert not store.save([Sentence(ALICE, 1.0, 1)], [], 0.0, WALL)
    rig.one_warning(cause, "bans are kept in memory only")
    assert before == (rig.path.read_bytes() if rig.path.is_file() else None)


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    """A missing folder causes one line, and bans are kept in memory."""
    rig = Rig(tmp_path / "missing" / "jail.sqlite")
    assert rig.store().load(0.0, WALL) == []
    rig.one_warning("No such file or directory", "in memory only")


_READER = """
import os, sys
from pyryrelay.jail.store import JailStore
os.setgroups([])
os.setuid(65534)
store = JailStore(sys.argv[1], lambda line: print(line, file=sys.stderr))
print([str(sentence.network) for sentence in store.load(0.0, 0.0)], store.usable)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="whose file cannot be written is another's, which only root can arrange")
def test_a_file_that_can_be_read_and_not_written() -> None:
    """Bans of a read-only file hold, and new ones are kept in memory."""
    directory = Path(os.path.realpath("/tmp")) / f"pyryrelay-{os.getpid()}-readable"
    directory.mkdir()
    try:
        rig = Rig(directory / "jail.sqlite")
        rig.filled()
        rig.path.chmod(0o644)
        directory.chmod(0o755)
        found = subprocess.run(
            [sys.executable, "-c", _READER, str(rig.path)],
            env={**os.environ, "PYTHONPATH": SOURCES},
            capture_output=True,
            text=True,
            timeout=60.0,
            check=True,
        )
        assert found.stdout == "['192.0.2.1/32'] False\n"
        assert found.stderr.count("\n") == 1
        assert "readonly database; bans are kept in memory only" in found.stderr
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def test_entries_that_mean_nothing_are_left_out(rig: Rig) -> None:
    """Rows that cannot be read are left out and counted in one line; the others are loaded."""
    rig.filled()
    for row in (
        "'nonsense', 1, 1, 1",
        "'192.0.2.0/8', 1, 1, 1",
        "x'00', 1, 1, 1",
        "'10.0.0.1', 'soon', 1, 1",
        "'10.0.0.2', 1, 'often', 1",
        "'10.0.0.3', 1, -1, 1",
        "'10.0.0.4', 9e999, 1, 1",
        "'10.0.0.5', 1, 1, x'00'",
    ):
        rig.execute(f"INSERT INTO jail VALUES ({row}, '')")
    rig.execute("INSERT INTO jail VALUES ('10.0.0.6', 1, 1, 1, x'00')")
    rig.execute(f"INSERT INTO jail VALUES ('10.0.0.7', 1, 1, 1, '{'x' * 256}')")
    assert rig.store().load(0.0, WALL) == [Sentence(ALICE, 100.0, 1)]
    rig.one_warning("skipped 10 unreadable bans")


def test_a_file_that_another_process_is_writing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written while the file is locked is written with the next call, without a warning."""
    monkeypatch.setattr(jailstore_module, "BUSY_S", 0.001)
    store = rig.opened()
    with closing(sqlite3.connect(rig.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not store.save([Sentence(ALICE, 1.0, 1), Sentence(BOB, 1.0, 1)], [], 0.0, WALL)
        assert not store.save([Sentence(ALICE, 2.0, 2)], [BOB], 0.0, WALL)
        other.execute("ROLLBACK")
    assert store.save([], [], 0.0, WALL)
    assert rig.store().load(0.0, WALL) == [Sentence(ALICE, 2.0, 2)]
    assert rig.warnings == []


def test_a_full_disk(rig: Rig) -> None:
    """After a lasting error nothing more is written, with one line, and the relay goes on."""
    store = rig.opened()
    rig.execute("CREATE TRIGGER full BEFORE INSERT ON jail BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    assert not store.save([Sentence(ALICE, 1.0, 1)], [], 0.0, WALL)
    assert not store.save([Sentence(BOB, 1.0, 1)], [], 0.0, WALL)
    rig.one_warning("cannot be used: disk is full", "in memory only")


def test_two_relays_may_share_a_file(rig: Rig) -> None:
    """Two relays may share a file, as during a takeover, and each adds its bans."""
    first, second = rig.opened(), rig.opened()
    assert first.save([Sentence(ALICE, 1.0, 1)], [], 0.0, WALL)
    assert second.save([Sentence(BOB, 1.0, 1)], [], 0.0, WALL)
    assert {sentence.key for sentence in rig.store().load(0.0, WALL)} == {ALICE, BOB}


def test_closing_twice_and_saving_afterwards(rig: Rig) -> None:
    """Saving to a closed store and closing it again do nothing."""
    store = rig.store()
    assert not store.save([Sentence(ALICE, 1.0, 1)], [], 0.0, WALL)
    store.load(0.0, WALL)
    store.close()
    store.close()
    assert not store.usable
    assert not store.save([Sentence(ALICE, 1.0, 1)], [], 0.0, WALL)


def test_our_mark_is_in_the_header(rig: Rig) -> None:
    """The application id of SQLite's file format is at byte 68."""
    rig.filled()
    assert rig.path.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big") == b"pyry"


@given(
    st.dictionaries(
        st.one_of(
            st.integers(1 << 32, (1 << 33) - 1).map(lambda n: n << 1),
            st.integers(1 << 64, (1 << 65) - 1).map(lambda n: n << 1 | 1),
        ),
        st.tuples(st.floats(-1e6, 1e6), st.integers(0, 100)),
        max_size=5,
    ),
    st.floats(0, 1e6),
    st.floats(0, 2e9),
)
def test_any_jail_comes_back(
    tmp_path_factory: pytest.TempPathFactory, content: dict[int, tuple[float, int]], now: float, wall_now: float
) -> None:
    """Saving and loading at the same moment keeps every ban, to the precision of a wall clock."""
    rig = Rig(tmp_path_factory.mktemp("jail") / "jail.sqlite")
    store = rig.store()
    store.load(now, wall_now)
    assert store.save([Sentence(key, until_s, times) for key, (until_s, times) in content.items()], [], now, wall_now)
    found = {sentence.key: sentence for sentence in store.load(now, wall_now)}
    store.close()
    assert found.keys() == content.keys()
    for key, (until_s, times) in content.items():
        assert found[key].times == times
        assert found[key].until_s == pytest.approx(until_s, abs=1e-5)
        assert found[key].network == network_of(key)


def test_a_jail_survives_a_restart(rig: Rig) -> None:
    """A jail that is loaded from the store behaves like the one that was saved."""
    jail, store = Jail(), rig.opened()
    for _ in range(60):
        jail.strike(ALICE, 10.0)
    jail.add(BOB, 50.0, 10.0)
    jail.release(BOB)
    kept, gone = jail.changes()
    assert store.save(kept, gone, 10.0, WALL)
    store.close()
    later = Jail()
    assert later.restore(rig.store().load(3.0, WALL + 60.0), 3.0) == 1
    assert later.is_jailed(ALICE, 3.0 + 539.0)
    assert not later.is_jailed(ALICE, 3.0 + 541.0)
    assert not later.is_jailed(BOB, 3.0)
