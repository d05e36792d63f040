"""Allow and deny lists from files that may change while the relay runs.

A file holds one address or network a line; ``#`` begins a comment, blank lines count for nothing. `ListFiles` joins
the networks of several files with those that options gave.

Invariants: a file is taken whole or not at all, so a bad line leaves the list that this file gave before in force,
and the other files are not held up by it. The same goes for a file that vanished or cannot be read. An error is
reported once, not at every look at the same file, unless somebody asks to be told again.

Nothing here needs a reactor. `changed` costs one ``stat`` a file and may be asked every second anywhere; `load` and
`refresh` read and parse, 100 000 lines in about half a second of CPU, and want a thread (`deferToThread`). They take
turns if two threads call them, and what they replace, they replace by one assignment. It is a thread rather than
slices in the reactor because reading a file blocks as well. No step of the parser holds the interpreter for long: a
reactor that turns every millisecond does so about 10 ms late while 100 000 lines are parsed. Sizes are bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import CidrError
from pyryrelay.text import printable

__all__ = ["MAX_FILE_BYTES", "ListFileError", "ListFiles", "Refresh"]

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""Longest file that is read: about a million lines, and 150 MB of memory while they are parsed."""

_MAX_TEXT: Final = 100
"""No network is longer than this, so nothing longer is parsed, or quoted in an error."""

_READABLE: Final = "make it a file that the relay's user can read"
_FORM: Final = "write a network such as '192.0.2.0/24' or '2001:db8::/32', or one address"

_Signature = tuple[int, int, int, int, int]


class ListFileError(Exception):
    """A list file that cannot be used; `str()` is one printable line: file, line if there is one, problem, fix."""

    def __init__(self, path: str, line: int | None, problem: str) -> None:
        place = path if line is None else f"{path}:{line}"
        super().__init__(printable(f"{place}: {problem}"))
        self.path = path
        self.line = line


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a look at the files brought: all `networks` if they are to be taken over, and what was wrong now."""

    networks: CidrSet | None
    errors: tuple[ListFileError, ...] = ()


def _signature(found: os.stat_result) -> _Signature:
    """What tells that a file was changed: written to, replaced by another (rename), or made readable."""
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file that may turn out to be a FIFO, which would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


class _ListFile:
    """One file: the networks in force, and the signature that was looked at last (None: there was no file)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.networks = CidrSet()
        self._seen: _Signature | None = None
        self._complaint = ""

    def changed(self) -> bool:
        """Say whether the file is another than at the last look."""
        try:
            return _signature(os.stat(self.path)) != self._seen
        except OSError:
            return self._seen is not None or not self._complaint

    def read(self) -> CidrSet:
        """Take the file over. Raises `ListFileError`, and keeps the networks, if it cannot be used."""
        self._seen = None
        try:
            networks = _parsed(self.path, self._text())
        except ListFileError as error:
            self._complaint = str(error)
            raise
        self.networks = networks
        self._complaint = ""
        return networks

    def _text(self) -> str:
        """Read the file, and note its signature from before: what is written meanwhile is seen at the next look."""
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
            problem = f"is longer than {MAX_FILE_BYTES} bytes: join its networks into larger ones, or split it"
            raise ListFileError(self.path, None, problem)
        # Comments may be in any encoding; addresses are ASCII.
        return content.decode("utf-8-sig", "backslashreplace")

    def refresh(self, force: bool) -> tuple[bool, ListFileError | None]:
        """Look again if the file changed: whether its networks are others now, and an error that is news."""
        if not (force or self.changed()):
            return False, None
        networks, complaint = self.networks, self._complaint
        try:
            return self.read() != networks, None
        except ListFileError as error:
            return False, error if force or str(error) != complaint else None


def _parsed(path: str, text: str) -> CidrSet:
    """Read all lines. Raises `ListFileError` for the first bad one."""
    texts = [line.partition("#")[0].strip() for line in text.split("\n")]
    if max(map(len, texts)) <= _MAX_TEXT:
        try:
            return CidrSet(filter(None, texts))
        except CidrError:
            pass
    raise next(error for number, entry in enumerate(texts, 1) if (error := _complaint(path, number, entry)))


def _complaint(path: str, number: int, text: str) -> ListFileError | None:
    if len(text) > _MAX_TEXT:
        return ListFileError(path, number, f"{text[:_MAX_TEXT] + '...'!r} is not a network: {_FORM}")
    try:
        CidrSet([text] if text else ())
    except CidrError as error:
        return ListFileError(path, number, str(error))
    return None


class ListFiles:
    """The networks that are `fixed` and those of the files at `paths`, together in `networks`.

    Call `load` once, before anything else; it is where a bad file can still stop the start. A path that cannot be
    used keeps what it had, which is nothing if it never could.
    """

    def __init__(self, fixed: CidrSet, paths: Sequence[str]) -> None:
        """Name the files; none is read yet."""
        self._fixed = fixed
        self._files = [_ListFile(path) for path in paths]
        self._lock = Lock()
        self.networks = fixed

    def load(self) -> CidrSet:
        """Read all files. Raises `ListFileError` for the first that cannot be used."""
        with self._lock:
            for file in self._files:
                file.read()
            return self._join()

    def changed(self) -> bool:
        """Say whether `refresh` has something to read."""
        return any(file.changed() for file in self._files)

    def refresh(self, *, force: bool = False) -> Refresh:
        """Read the files that changed, or all with `force`, which also repeats errors that were told before.

        `Refresh.networks` is None where nothing is to be taken over.
        """
        with self._lock:
            outcomes = [file.refresh(force) for file in self._files]
            errors = tuple(error for _, error in outcomes if error is not None)
            return Refresh(self._join() if any(differs for differs, _ in outcomes) else None, errors)

    def _join(self) -> CidrSet:
        networks = self._fixed
        for file in self._files:
            networks = networks | file.networks
        self.networks = networks
        return networks
