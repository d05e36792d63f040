"""Import: lines in pieces, checked in processes, stored in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from tests.support.signed_events import WALL_S, Author, forged

from pyryrelay.nostr.tools import importing
from pyryrelay.nostr.tools.importing import import_lines

ALICE = Author("alice")


class Sink:
    """A store that keeps everything, and knows duplicates."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.calls = 0

    def __call__(self, events: Sequence[bytes]) -> Counter[str]:
        """Keep events."""
        self.calls += 1
        outcomes: Counter[str] = Counter()
        for event in events:
            outcomes["duplicate" if event in self.events else "accepted"] += 1
            self.events.append(event)
        return outcomes


def test_a_report_of_everything() -> None:
    """Each line is accepted, a duplicate, or refused for a reason; blank lines do not count."""
    line = ALICE.line("a")
    lines = [line, b"\n", b"rubbish\n", line, forged(ALICE.line("b")), b"{}"]
    report = import_lines(lines, Sink(), WALL_S)
    assert report.as_json() == {
        "lines": 5,
        "accepted": 1,
        "duplicate": 1,
        "superseded": 0,
        "refused": {"not_an_event": 2, "signature": 1},
        "first_bad_line": 3,
        "problem": "not JSON",
    }
    assert report.has_failed


def test_what_the_store_refuses_is_told_by_its_reason() -> None:
    """Outcomes of the store that are no success are reasons like the others."""
    report = import_lines([ALICE.line()], lambda events: Counter(superseded=1, deleted=2), WALL_S)
    assert (report.superseded, report.refused, report.has_failed) == (1, {"deleted": 2}, False)
    assert import_lines([ALICE.line()], lambda events: Counter(store=1), WALL_S).has_failed


def test_nothing_is_nothing() -> None:
    """An empty file is imported without a call of the store."""
    sink = Sink()
    assert import_lines([], sink, WALL_S).as_json()["lines"] == 0
    assert import_lines([b"\n", b"rubbish"], sink, WALL_S).lines == 1
    assert sink.calls == 0


def test_large_imports_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that several processes check are stored in the order of the lines, and line numbers are those of all."""
    monkeypatch.setattr(importing, "PIECE_LINES", 3)
    good = [ALICE.line(str(number), created_at=WALL_S + number) for number in range(20)]
    lines = [*good[:10], b"rubbish", *good[10:]]
    sink, told = Sink(), list[int]()
    report = import_lines(lines, sink, WALL_S, processes=2, progress=told.append)
    assert sink.events == good
    assert (sink.calls, report.accepted, report.first_bad_line) == (7, 20, 11)
    assert told == [3, 6, 9, 12, 15, 18, 21]


def test_pieces_are_bounded_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece ends when it is large, too."""
    monkeypatch.setattr(importing, "PIECE_BYTES", 10)
    assert list(importing.pieces([b"12345", b"12345", b"1" * 20, b"1"])) == [[b"12345"] * 2, [b"1" * 20], [b"1"]]


def test_a_store_that_fails_ends_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is raised at once; what came before is stored."""
    monkeypatch.setattr(importing, "PIECE_LINES", 1)
    sink = Sink()

    def write(events: Sequence[bytes]) -> Counter[str]:
        if sink.calls == 2:
            raise OSError("the disk is full")
        return sink(events)

    with pytest.raises(OSError, match="full"):
        import_lines([ALICE.line(str(number)) for number in range(5)], write, WALL_S, processes=1)
    assert len(sink.events) == 2
