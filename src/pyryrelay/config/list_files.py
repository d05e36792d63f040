"""Lists from files that may change while the relay runs, such as networks to allow and to deny.

A file has one entry per line. ``#`` starts a comment, and blank lines are ignored. `ListFiles` combines the entries of
several files with those of an option. An option with such files has a twin with the same name and ``-file``, and
`list_options` finds both.

Invariants: a file is applied completely or not at all. After an error in a line, its previous list stays in force, and
the other files are applied all the same. So it is if a file disappears or cannot be read. An error is reported once,
and not each time that the same file is checked, unless the caller asks for it.

This module needs no reactor. `changed` costs one ``stat`` per file and may be called every second from any thread.
`load` and `refresh` read and parse files, which takes about half a second of CPU time for 100 000 lines, so call them
in a thread (`deferToThread`). A lock serialises them, and they replace the entries by one assignment. They do not run
in slices in the reactor, because reading a file blocks too. No step of the parser holds the interpreter for long: a
reactor that turns every millisecond does so about 10 ms late while 100 000 lines are parsed. Sizes are bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Final, Generic, Protocol, TypeVar

from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import Option
from pyryrelay.config.types import FILES, NETWORKS, InvalidValueError
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.text import printable

__all__ = ["MAX_FILE_BYTES", "NETWORK_ENTRIES", "Entries", "ListFileError", "ListFiles", "Refresh", "list_options"]


class _Joinable(Protocol):
    """A set of some kind."""

    def __or__(self, other: Any, /) -> Any: ...


T = TypeVar("T", bound=_Joinable)

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""The largest file that is read: about a million lines, which take 150 MB of memory while they are parsed."""

_MAX_TEXT: Final = 100
"""No network is longer than this, so longer texts are not parsed, and are cut off in errors."""

_MAX_OTHER_TEXT: Final = 2000
_SHOWN: Final = 100

_READABLE: Final = "make it a file that the relay's user can read"
_FORM: Final = "write a network such as '192.0.2.0/24' or '2001:db8::/32', or one address"

_Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Entries(Generic[T]):
    """What the entries of a list are: how they are read, together or one by one, and how long one may be.

    ``read`` raises ``ValueError`` whose text has the form "'entry' problem: fix". ``too_long`` is what is wrong with an
    entry of more than ``max_chars`` characters.
    """

    read: Callable[[Sequence[str]], T]
    max_chars: int
    too_long: str

    @classmethod
    def of(cls, about: Option) -> Entries[Any]:
        """Return what the entries of an option are."""
        if about.type is NETWORKS:
            return NETWORK_ENTRIES
        return cls(partial(_read_as, about), _MAX_OTHER_TEXT, f"is too long: {about.type.fix}")


NETWORK_ENTRIES: Final[Entries[CidrSet]] = Entries(CidrSet, _MAX_TEXT, f"is not a network: {_FORM}")


def _read_as(about: Option, texts: Sequence[str]) -> Any:
    """Read entries as the values of an option."""
    try:
        return about.type.read(tuple(texts))
    except InvalidValueError as invalid:
        raise ValueError(f"{invalid.text!r} {invalid.problem}: {invalid.fix or about.type.fix}") from None


def list_options(settings: SharedSettings) -> Iterator[tuple[Option, Option]]:
    """Yield each option that has list files, and its twin that names them."""
    by_name = settings.by_name()
    for twin in settings.options():
        about = by_name.get(twin.name.removesuffix("-file"))
        if twin.type is FILES and about is not None:
            yield about, twin


class ListFileError(Exception):
    """A list file that cannot be used. `str()` is one printable line with file, line number if any, problem and fix."""

    def __init__(self, path: str, line: int | None, problem: str) -> None:
        place = path if line is None else f"{path}:{line}"
        super().__init__(printable(f"{place}: {problem}"))
        self.path = path
        self.line = line


@dataclass(frozen=True, slots=True)
class Refresh(Generic[T]):
    """The result of a refresh: all `entries` if they have changed, and the new errors."""

    entries: T | None
    errors: tuple[ListFileError, ...] = ()


def _signature(found: os.stat_result) -> _Signature:
    """Return a value that changes when a file is written to, replaced by another (rename), or made readable."""
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking, since it may be a FIFO without a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


class _ListFile(Generic[T]):
    """One file, with the entries in force and the signature that was read last (None: there was no file)."""

    def __init__(self, path: str, form: Entries[T]) -> None:
        self.path = path
        self.entries = form.read(())
        self._form = form
        self._seen: _Signature | None = None
        self._complaint = ""

    def changed(self) -> bool:
        """Return whether the file has changed since it was last read."""
        try:
            return _signature(os.stat(self.path)) != self._seen
        except OSError:
            return self._seen is not None or not self._complaint

    def read(self) -> T:
        """Read the file and apply it. Raises `ListFileError`, and keeps the entries, if it cannot be used."""
        self._seen = None
        try:
            entries = _parsed(self.path, self._text(), self._form)
        except ListFileError as error:
            self._complaint = str(error)
            raise
        self.entries = entries
        self._complaint = ""
        return entries

    def _text(self) -> str:
        """Return the text of the file, and keep its signature from before, so that later changes are noticed."""
        try:
            with open(self.path, "rb", opener=_open_without_waiting) as file:
                found = os.fstat(file.fileno())
                self._seen = _signature(found)
                if not stat.S_ISREG(found.st_mode):
                    raise ListFileError(self.path, None, f"is not a regular file: {_READABLE}")
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ListFileError(self.path, None, f"cannot be read ({error.strerror}): {_READABLE}") from None
        if len(content) > MAX_FILE_BYTES:
            problem = f"is longer than {MAX_FILE_BYTES} bytes: join its entries into fewer, or split it"
            raise ListFileError(self.path, None, problem)
        # Comments may be in any encoding; addresses are ASCII.
        return content.decode("utf-8-sig", "backslashreplace")

    def refresh(self, force: bool) -> tuple[bool, ListFileError | None]:
        """Read the file if it has changed. Returns whether its entries have changed, and an error that is new."""
        if not (force or self.changed()):
            return False, None
        entries, complaint = self.entries, self._complaint
        try:
            return self.read() != entries, None
        except ListFileError as error:
            return False, error if force or str(error) != complaint else None


def _parsed(path: str, text: str, form: Entries[T]) -> T:
    """Return the entries of all lines. Raises `ListFileError` for the first invalid line."""
    texts = [line.partition("#")[0].strip() for line in text.split("\n")]
    if max(map(len, texts)) <= form.max_chars:
        try:
            return form.read([*filter(None, texts)])
        except ValueError:
            pass
    raise next(error for number, entry in enumerate(texts, 1) if (error := _complaint(path, number, entry, form)))


def _complaint(path: str, number: int, text: str, form: Entries[Any]) -> ListFileError | None:
    if len(text) > form.max_chars:
        return ListFileError(path, number, f"{text[:_SHOWN] + '...'!r} {form.too_long}")
    try:
        form.read([text] if text else ())
    except ValueError as error:
        return ListFileError(path, number, str(error))
    return None


class ListFiles(Generic[T]):
    """The `fixed` entries and those of the files at `paths`, together in `entries`.

    Call `load` once, before anything else: an invalid file then prevents the start. A file that cannot be used later
    keeps its previous entries.
    """

    def __init__(self, fixed: T, paths: Sequence[str], form: Entries[T]) -> None:
        """Name the files without reading them."""
        self._fixed = fixed
        self._files = [_ListFile(path, form) for path in paths]
        self._lock = Lock()
        self.entries = fixed

    def load(self) -> T:
        """Read all files. Raises `ListFileError` for the first one that cannot be used."""
        with self._lock:
            for file in self._files:
                file.read()
            return self._join()

    def changed(self) -> bool:
        """Return whether `refresh` has something to read."""
        return any(file.changed() for file in self._files)

    def refresh(self, *, force: bool = False) -> Refresh[T]:
        """Read the files that have changed. With `force`, read all of them, and report old errors again.

        `Refresh.entries` is None if no entries have changed.
        """
        with self._lock:
            outcomes = [file.refresh(force) for file in self._files]
            errors = tuple(error for _, error in outcomes if error is not None)
            return Refresh(self._join() if any(differs for differs, _ in outcomes) else None, errors)

    def _join(self) -> T:
        entries = self._fixed
        for file in self._files:
            entries = entries | file.entries
        self.entries = entries
        return entries
