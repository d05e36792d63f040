"""List files are read whole or not at all, read again when they change, and refused with file and line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from pyryrelay.config import list_files as listfiles
from pyryrelay.config.groups import LIMITS
from pyryrelay.config.list_files import NETWORK_ENTRIES, Entries, ListFileError, ListFiles, Refresh, list_options
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import FILES, InvalidValueError, OptionType
from pyryrelay.guard.address.lists import CidrSet


def _read_digits(texts: tuple[str, ...]) -> frozenset[int]:
    for text in texts:
        if not text.isdigit():
            raise InvalidValueError(text, "is no digit")
    return frozenset(map(int, texts))


NOTHING: Refresh[CidrSet] = Refresh(None)


class Clockwork:
    """Write files whose times differ, however fast the test runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time_ns = 1_000_000_000

    def write(self, name: str, content: str | bytes) -> str:
        """Write a file in place; return its path."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.time_ns += 1_000_000_000
        os.utime(path, ns=(self.time_ns, self.time_ns))
        return str(path)


@pytest.fixture
def files(tmp_path: Path) -> Clockwork:
    """Return a folder to write list files in."""
    return Clockwork(tmp_path)


def _error(files: Clockwork, content: str | bytes) -> str:
    path = files.write("deny", content)
    with pytest.raises(ListFileError) as caught:
        ListFiles(CidrSet(), [path], NETWORK_ENTRIES).load()
    assert str(caught.value).isprintable()
    assert caught.value.path == path
    return str(caught.value).removeprefix(path)


def test_reads_one_network_a_line(files: Clockwork) -> None:
    """Each line holds an address or network; comments, blanks, CRLF and a byte order mark do not matter."""
    text = "\ufeff# ours\r\n192.0.2.0/24 # office\r\n\r\n  2001:db8::1\t\r\n#198.51.100.1\n203.0.113.9"
    lists = ListFiles(CidrSet(["10.0.0.0/8"]), [files.write("allow", text)], NETWORK_ENTRIES)
    assert lists.entries == CidrSet(["10.0.0.0/8"])
    assert lists.load() == CidrSet(["10.0.0.0/8", "192.0.2.0/24", "2001:db8::1", "203.0.113.9"])
    assert lists.entries == lists.load()


def test_comments_may_be_in_any_encoding(files: Clockwork) -> None:
    """Only addresses have to be ASCII."""
    assert len(ListFiles(CidrSet(), [files.write("deny", b"192.0.2.1 # b\xfcro\n")], NETWORK_ENTRIES).load()) == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("192.0.2.1\n\nlocalhost # us\n", ":3: 'localhost' is not a network: write a network such as"),
        ("10.0.0.1/8", ":1: '10.0.0.1/8' has host bits set: write '10.0.0.0/8', or '10.0.0.1' alone"),
        ("10.0.0.1/8\nnonsense\n", ":1: '10.0.0.1/8'"),
        ("192.0.2.1\n192.0.2.2, 192.0.2.3", ":2: '192.0.2.2, 192.0.2.3' is not a network"),
        ("\x1b[2J\u202e", ":1: '\\x1b[2J\\u202e' is not a network"),
        (b"\xff\xfe1\x000\x00", ":1: '\\\\xff\\\\xfe1\\x000\\x00' is not a network"),
    ],
)
def test_a_bad_line_is_named(files: Clockwork, content: str | bytes, complaint: str) -> None:
    """The first line that is no network is refused in one printable line with file, number, value and fix."""
    assert _error(files, content).startswith(complaint)


def test_a_long_line_is_not_quoted_in_full(files: Clockwork) -> None:
    """A very long line is quoted up to its first 100 characters."""
    complaint = _error(files, "192.0.2.1\n" + "1." * 100_000)
    assert complaint.startswith(f":2: '{'1.' * 50}...' is not a network")
    assert len(complaint) < 300


def test_a_file_that_cannot_be_read_is_refused_at_the_start(files: Clockwork) -> None:
    """A missing file, a folder and a FIFO are refused with the reason, and the FIFO does not block."""
    for name, reason in (("gone", "No such file"), ("folder", "Is a directory"), ("fifo", "is not a regular file")):
        path = files.folder / name
        if name == "folder":
            path.mkdir()
        if name == "fifo":
            os.mkfifo(path)
        with pytest.raises(ListFileError, match=reason) as caught:
            ListFiles(CidrSet(), [str(path)], NETWORK_ENTRIES).load()
        assert "make it a file that the relay's user can read" in str(caught.value)
        assert caught.value.line is None


def test_a_file_that_is_too_long_is_refused(files: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over the size limit is not parsed."""
    monkeypatch.setattr(listfiles, "MAX_FILE_BYTES", 10)
    assert len(ListFiles(CidrSet(), [files.write("allow", "192.0.2.1\n")], NETWORK_ENTRIES).load()) == 1
    assert _error(files, "192.0.2.1\n\n").startswith(": is longer than 10 bytes: join")


def test_nothing_is_read_while_nothing_changes(files: Clockwork) -> None:
    """Checking unchanged files reads none of them and reports nothing."""
    lists = ListFiles(CidrSet(), [files.write("allow", "192.0.2.1\n")], NETWORK_ENTRIES)
    lists.load()
    assert not lists.changed()
    assert lists.refresh() == NOTHING


def test_a_change_is_taken_over(files: Clockwork) -> None:
    """A changed file is read again, and its networks are joined with those of all other sources."""
    deny, more = files.write("deny", "192.0.2.1\n"), files.write("more", "192.0.2.2\n")
    lists = ListFiles(CidrSet(["10.0.0.0/8"]), [deny, more], NETWORK_ENTRIES)
    lists.load()
    files.write("more", "192.0.2.3\n")
    assert lists.changed()
    assert lists.refresh() == Refresh(CidrSet(["10.0.0.0/8", "192.0.2.1", "192.0.2.3"]))
    assert lists.entries == CidrSet(["10.0.0.0/8", "192.0.2.1", "192.0.2.3"])
    assert lists.refresh() == NOTHING


def test_a_file_that_was_replaced_is_a_change(files: Clockwork) -> None:
    """A file renamed into place is a change, even with the size and time of the old one."""
    deny = files.write("deny", "192.0.2.1\n")
    lists = ListFiles(CidrSet(), [deny], NETWORK_ENTRIES)
    lists.load()
    new = files.write("new", "192.0.2.2\n")
    old = os.stat(deny)
    os.utime(new, ns=(old.st_atime_ns, old.st_mtime_ns))
    os.replace(new, deny)
    assert lists.refresh() == Refresh(CidrSet(["192.0.2.2"]))


def test_a_new_time_alone_changes_no_network(files: Clockwork) -> None:
    """A file that was touched without a change of content changes no list."""
    lists = ListFiles(CidrSet(), [files.write("deny", "192.0.2.1\n")], NETWORK_ENTRIES)
    lists.load()
    files.write("deny", "192.0.2.1 # still\n")
    assert lists.refresh() == NOTHING


def test_a_bad_line_keeps_the_old_list_in_force(files: Clockwork) -> None:
    """A file that became bad is reported once and keeps its old networks until it is repaired."""
    lists = ListFiles(CidrSet(), [files.write("deny", "192.0.2.1\n"), files.write("more", "")], NETWORK_ENTRIES)
    lists.load()
    files.write("deny", "192.0.2.7\nnonsense\n")
    files.write("more", "192.0.2.2\n")
    found = lists.refresh()
    assert found.entries == CidrSet(["192.0.2.1", "192.0.2.2"])
    assert [
        str(error).endswith("/deny:2: 'nonsense' is not a network: " + listfiles._FORM) for error in found.errors
    ] == [True]
    assert lists.refresh() == NOTHING
    files.write("deny", "192.0.2.7\nnonsense\n")
    assert lists.refresh() == NOTHING, "the same error is no news"
    files.write("deny", "192.0.2.7\n")
    assert lists.refresh() == Refresh(CidrSet(["192.0.2.7", "192.0.2.2"]))


def test_a_vanished_file_keeps_its_list(files: Clockwork) -> None:
    """A file that is gone is reported once and keeps its networks until it is back."""
    deny = files.write("deny", "192.0.2.1\n")
    lists = ListFiles(CidrSet(), [deny], NETWORK_ENTRIES)
    lists.load()
    os.unlink(deny)
    assert lists.changed()
    found = lists.refresh()
    assert found.entries is None
    assert "No such file" in str(found.errors[0])
    assert ip_address("192.0.2.1") in lists.entries
    assert not lists.changed()
    assert lists.refresh() == NOTHING
    files.write("deny", "192.0.2.2\n")
    assert lists.refresh() == Refresh(CidrSet(["192.0.2.2"]))


def test_an_unreadable_file_is_tried_again(files: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without read permission is reported once, and read as soon as permission is back."""
    deny = files.write("deny", "192.0.2.1\n")
    lists = ListFiles(CidrSet(), [deny], NETWORK_ENTRIES)
    lists.load()
    files.write("deny", "192.0.2.2\n")

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:
        patched.setattr(listfiles, "_open_without_waiting", refuse)
        assert "(Permission denied)" in str(lists.refresh().errors[0])
        assert lists.refresh() == NOTHING
    assert lists.refresh() == Refresh(CidrSet(["192.0.2.2"]))


def test_force_reads_and_tells_everything_again(files: Clockwork) -> None:
    """A forced check reads unchanged files as well, and repeats errors that were reported before."""
    lists = ListFiles(CidrSet(), [files.write("deny", "192.0.2.1\n")], NETWORK_ENTRIES)
    lists.load()
    files.write("deny", "nonsense\n")
    assert len(lists.refresh().errors) == 1
    assert len(lists.refresh(force=True).errors) == 1
    assert lists.entries == CidrSet(["192.0.2.1"])


def test_without_files_only_what_is_fixed_counts() -> None:
    """Without files nothing ever changes, and the lists are the networks of the options."""
    lists = ListFiles(CidrSet(["10.0.0.0/8"]), [], NETWORK_ENTRIES)
    assert lists.load() == CidrSet(["10.0.0.0/8"])
    assert not lists.changed()
    assert lists.refresh(force=True) == NOTHING


# Lists of other options


@dataclass(frozen=True, kw_only=True)
class WordSettings(SharedSettings):
    """Settings with a list of numbers, and its files."""

    number: frozenset[int] = option(
        frozenset(),
        OptionType("N", "write a digit", _read_digits, lambda value: tuple(map(str, value)), repeatable=True),
        LIMITS,
        help="Numbers.",
        example="1",
        why="None.",
    )
    number_file: tuple[str, ...] = option((), FILES, LIMITS, help="Files.", example="a", why="None.")
    other_file: tuple[str, ...] = option((), FILES, LIMITS, help="Files.", example="a", why="None.")


def test_options_with_files_are_found() -> None:
    """Every option that has a twin for files is found with it, and a file without an option is none."""
    found = [(about.name, twin.name) for about, twin in list_options(WordSettings())]
    assert sorted(found) == [("allow", "allow-file"), ("deny", "deny-file"), ("number", "number-file")]


def test_entries_are_values_of_the_option(files: Clockwork) -> None:
    """A file is read as its option is, with the same complaint, and with the number of the line."""
    about = WordSettings.by_name()["number"]
    path = files.write("numbers", "1 # one\n2\n")
    lists = ListFiles(frozenset({7}), [path], Entries.of(about))
    assert lists.load() == {1, 2, 7}
    files.write("numbers", "1\n3x\n")
    refresh = lists.refresh()
    assert [str(error) for error in refresh.errors] == [f"{path}:2: '3x' is no digit: write a digit"]
    assert lists.entries == {1, 2, 7}
    files.write("numbers", "1\n" + "4" * 3000)
    assert "is too long: write a digit" in str(lists.refresh().errors[0])
    assert Entries.of(WordSettings.by_name()["deny"]) is NETWORK_ENTRIES
