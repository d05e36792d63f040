"""Which lines are events that may be stored."""

from __future__ import annotations

import json
import sys

import pytest
from tests.support.signed_events import WALL_S, Author, forged

from pyryrelay.nostr.tools.checking import check_lines

ALICE = Author("alice")


def test_good_events_are_kept_in_canonical_form() -> None:
    """Events come back in their order as canonical JSON, without keys of other programs such as strfry's ``fried``."""
    first, second = ALICE.line("one"), ALICE.line("two", created_at=WALL_S + 1)
    spelled = json.dumps({"fried": "00ff", **json.loads(second)}).encode()
    checked = check_lines([first, b"\n", spelled + b"\r\n", b"  "], WALL_S)
    assert checked.events == [first, second]
    assert (checked.lines, checked.refused, checked.first_bad) == (2, {}, None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (forged(ALICE.line()), "signature"),
        (json.dumps(json.loads(ALICE.line()) | {"pubkey": "ff" * 32}).encode(), "id"),
        (json.dumps(json.loads(ALICE.line()) | {"content": "other"}).encode(), "id"),
        (ALICE.line(kind=22242), "credential"),
        (ALICE.line(kind=27235), "credential"),
        (ALICE.line(kind=20000), "ephemeral"),
        (ALICE.line(tags=[["expiration", str(WALL_S)]]), "expired"),
        (ALICE.line(tags=[["expiration", "soon"]]), "not_an_event"),
        (b"{}", "not_an_event"),
        (b"not JSON", "not_an_event"),
    ],
)
def test_what_may_not_be_stored_is_counted_by_reason(line: bytes, reason: str) -> None:
    """Each line that is refused is counted under one word, and the others are kept."""
    good = ALICE.line("good")
    checked = check_lines([line, good], WALL_S)
    assert (checked.events, checked.refused, checked.lines) == ([good], {reason: 1}, 2)


def test_a_key_that_is_no_point_of_the_curve_has_no_signature() -> None:
    """An event whose id is right but whose key lies on no curve is refused, and so is the next of that key."""
    off_curve = Author("alice")
    off_curve.pubkey = "f" * 64
    lines = [off_curve.line(str(number)) for number in range(2)]
    assert check_lines(lines, WALL_S).refused == {"signature": 2}


def test_the_first_bad_line_is_told_without_its_content() -> None:
    """The place of the first line that is no event is told, and what is wrong with it."""
    checked = check_lines([ALICE.line(), b"", b'{"id": "secret"}', b"rubbish"], WALL_S)
    assert (checked.first_bad, checked.refused) == (2, {"not_an_event": 2})
    assert checked.problem.startswith("id must be")
    assert "secret" not in checked.problem


def test_signatures_are_not_looked_at_if_they_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without verification coincurve is not needed; with it, it is."""
    monkeypatch.setitem(sys.modules, "coincurve", None)
    line = forged(ALICE.line())
    assert len(check_lines([line], WALL_S, is_verifying=False).events) == 1
    assert check_lines([b"{}"], WALL_S).events == []
    with pytest.raises(ImportError):
        check_lines([line], WALL_S)
