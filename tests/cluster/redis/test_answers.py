"""What answers of scripts look like."""

from __future__ import annotations

from typing import Any

import pytest

from pyryrelay.cluster.broadcast.scripts import ADD, READ
from pyryrelay.cluster.limits.scripts import CHARGE, HOLD, LEARN, MEET, TELL
from pyryrelay.cluster.redis.answers import are_ids, are_lists_of_words, are_numbers, are_words, is_number
from pyryrelay.cluster.redis.interface import AnswerError, Script

ODD: list[Any] = [
    None,
    7,
    b"",
    b"x",
    [],
    [[]],
    [None],
    [AnswerError("ERR")],
    [b"x", [b"x"]],
    [b"1", None, 0],
    [7, b"x"],
]


def test_words() -> None:
    """Texts, some of which are numbers, or ids of entries of a stream."""
    assert are_words([b"a", b""])
    assert are_words([b"a"], 1)
    assert not are_words([b"a"], 2)
    assert are_lists_of_words([[b"a"], [b"b", b"c"]], 2)
    assert not are_lists_of_words([[b"a"]], 2)
    assert are_numbers([1, -2], 2)
    assert not are_numbers([1], 2)
    assert are_ids([b"1-0", b"", b"18446744073709551615-18446744073709551615"])
    assert not any(are_ids([odd]) for odd in (b"1", b"x-1", b"1-1 ", None))
    assert is_number(b"0")
    assert not any(map(is_number, [b"", b"-1", b"inf", b"1e5", "\u0663".encode(), b"9" * 21]))


@pytest.mark.parametrize(
    ("script", "keys", "good"),
    [
        (CHARGE, 2, [0, 5]),
        (HOLD, 2, [0, 5]),
        (MEET, 2, [3, 1]),
        (TELL, 3, [b"", b""]),
        (TELL, 3, [b"2-0", b"1-0", b"2-0", b"row"]),
        (LEARN, 3, [b"", b"", b"row"]),
        (ADD, 3, b"1-0"),
        (READ, 3, [b"", b"new", 0]),
        (READ, 3, [b"17", b"on", 1, b"1-0", b"raw", b"1-1", b""]),
    ],
)
def test_each_script_knows_its_answers(script: Script, keys: int, good: Any) -> None:
    """Those that it gives fit, and others do not."""
    assert script.fits(good, keys)
    assert not any(script.fits(odd, keys) for odd in ODD if (script, odd) not in ((ADD, b""), (ADD, b"x")))
