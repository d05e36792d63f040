"""The words of one protocol stay in its room: the others serve any protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.source_tree import SOURCE

PLACES = ("pyry/", "mounts.py")
"""Where pyry may be spoken of."""

WORDS: Mapping[str, re.Pattern[str]] = {
    word: re.compile(pattern, re.IGNORECASE)
    for word, pattern in {
        "server-id": r"server[-_ ]?ids?(?![a-z])",
        "phone": r"(?<!micro)(?<!tele)phone",
        # The role, not the type of WebSocket messages: "a binary" but not "a binary message".
        "binary": r"(?<![a-z])binaries(?![a-z])"
        r"|(?<![a-z])(?:an?|the|its|their|each|every|one|another|other|no)\s+binary(?![a-z_])"
        r"(?!\s+(?:one|search|header|message|frame|opcode|data|payload|format)s?\b)"
        r"|(?<![a-z])binary_(?!opcode|messages?\b|frames?\b|payloads?\b)[a-z]"
        r"|(?<!is)_binary(?![a-z_])"
        r"|[\"'\s]binary (?:of|claimed|gone)\b",
        "envelope": r"envelopes?(?![a-z])",
        "pyrycode": r"pyrycode",
        "conn_id": r"conn[-_ ]?ids?(?![a-z])",
    }.items()
}

EXCEPTIONS: Mapping[str, set[str]] = {}
"""Words of pyry that are still in other rooms. It may only shrink."""


def words_in(text: str) -> set[str]:
    """Return the words of pyry that a text has: code, strings, comments and docstrings alike."""
    return {word for word, pattern in WORDS.items() if pattern.search(text)}


def found() -> dict[str, set[str]]:
    """Return the words of pyry in each module outside its places, names of files included."""
    result = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        words = words_in(f"{Path(name).with_suffix('')}\n{path.read_text(encoding='utf-8')}")
        if words and not name.startswith(PLACES):
            result[name] = words
    return result


def test_other_rooms_do_not_speak_of_pyry() -> None:
    """No identifier, string, comment or docstring outside pyry and the mount list has a word of pyry."""
    unexpected = {name: words - EXCEPTIONS.get(name, set()) for name, words in found().items()}
    assert {name: words for name, words in unexpected.items() if words} == {}


def test_each_exception_is_needed() -> None:
    """A word that is gone is no exception any more: take it out of `EXCEPTIONS`."""
    present = found()
    unneeded = {name: words - present.get(name, set()) for name, words in EXCEPTIONS.items()}
    assert {name: words for name, words in unneeded.items() if words} == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("self.server_id = 1", {"server-id"}),
        ("server-ids", {"server-id"}),
        ('"bad_server_id"', {"server-id"}),
        ("class TooManyPhones", {"phone"}),
        ("max_phone_connections", {"phone"}),
        ("PHONE_PATHS", {"phone"}),
        ("a binary or the binary", {"binary"}),
        ("connected_binaries", {"binary"}),
        ("BINARY_PATHS, binary_frame_quota, max_binary_connections", {"binary"}),
        ("phone_to_binary", {"binary", "phone"}),
        ('"binary of {}"', {"binary"}),
        ("dropped_envelope_quota of Envelopes", {"envelope"}),
        ("pyrycode_relay_x", {"pyrycode"}),
        ("{conn_id!r}", {"conn_id"}),
        ("is_binary, binary: bool, binary=binary, BINARY_OPCODE, BINARY = 0x82, a binary one", set()),
        ("text, binary and ping frames; a binary search; a binary header; --no-binary", set()),
        ("microphone, telephone, server identity, pyryrelay", set()),
    ],
)
def test_the_words_are_told_from_others(text: str, words: set[str]) -> None:
    """The patterns find identifiers in any spelling, and leave the type of WebSocket messages alone."""
    assert words_in(text) == words
