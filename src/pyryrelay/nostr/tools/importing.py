"""Import: lines are checked in several processes, and stored in their order in large batches."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from multiprocessing import get_context
from typing import Final

from pyryrelay.nostr.tools.checking import BAD_EVENT, Checked, check_lines

__all__ = ["Report", "import_lines"]

NOT_STORED: Final = "store"
PIECE_LINES: Final = 10_000
PIECE_BYTES: Final = 8 * 1024 * 1024

Write = Callable[[Sequence[bytes]], Counter[str]]
"""Stores canonical events in order, and counts what became of them: ``accepted``, ``duplicate``, ``superseded``, or a
reason. Raises an exception if they could not be stored."""
Check = Callable[[Sequence[bytes]], Checked]


@dataclass(slots=True)
class Report:
    """What has become of the lines of an import."""

    lines: int = 0
    accepted: int = 0
    duplicate: int = 0
    superseded: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    first_bad_line: int | None = None
    """The number of the first line that is no event, counted from 1."""
    problem: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether a line was no event, or an event could not be stored."""
        return self.refused[BAD_EVENT] + self.refused[NOT_STORED] > 0

    def add(self, checked: Checked, outcomes: Counter[str], lines_before: int) -> None:
        """Add a piece that comes after so many lines."""
        self.lines += checked.lines
        self.refused += checked.refused
        if checked.first_bad is not None and self.first_bad_line is None:
            self.first_bad_line, self.problem = lines_before + checked.first_bad + 1, checked.problem
        outcomes = Counter(outcomes)
        self.accepted += outcomes.pop("accepted", 0)
        self.duplicate += outcomes.pop("duplicate", 0)
        self.superseded += outcomes.pop("superseded", 0)
        self.refused += outcomes

    def as_json(self) -> dict[str, object]:
        """Return it as it is printed for programs."""
        told: dict[str, object] = {
            "lines": self.lines,
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "superseded": self.superseded,
            "refused": dict(sorted(self.refused.items())),
        }
        if self.first_bad_line is not None:
            told |= {"first_bad_line": self.first_bad_line, "problem": self.problem}
        return told


def import_lines(
    lines: Iterable[bytes],
    write: Write,
    wall_s: int,
    *,
    is_verifying: bool = True,
    processes: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Check lines, and store the events among them. ``progress`` is told how many lines are done.

    ``processes`` check them, as many as the machine has processors unless said otherwise. What is not more than one
    piece is checked in this process. Raises what ``write`` raises, with everything before it stored.
    """
    check = partial(check_lines, wall_s=wall_s, is_verifying=is_verifying)
    report, before = Report(), 0
    for piece, checked in _checked(pieces(lines), check, processes or os.cpu_count() or 1):
        outcomes = write(checked.events) if checked.events else Counter[str]()
        report.add(checked, outcomes, before)
        before += len(piece)
        progress(before)
    return report


def pieces(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield lines in pieces of a bounded size."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if len(piece) >= PIECE_LINES or size >= PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _checked(found: Iterator[list[bytes]], check: Check, processes: int) -> Iterator[tuple[list[bytes], Checked]]:
    """Check pieces in several processes, and yield them in order. A bounded number of them is read ahead."""
    first, second = next(found, None), next(found, None)
    if first is None:
        return
    if second is None:
        yield first, check(first)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        under_way: deque[tuple[list[bytes], Future[Checked]]] = deque()
        for piece in chain((first, second), found):
            under_way.append((piece, pool.submit(check, piece)))
            if len(under_way) > processes:
                done, future = under_way.popleft()
                yield done, future.result()
        for done, future in under_way:
            yield done, future.result()
