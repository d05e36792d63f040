"""What answers of scripts look like. PURE.

A server, or a proxy in front of it, that gives answers to the wrong questions would have relays act on them. An answer
that does not fit its script ends the connection; see `pyryrelay.cluster.redis.client`.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["are_ids", "are_lists_of_words", "are_numbers", "are_words", "is_number"]

_NUMBER: Final = re.compile(rb"[0-9]{1,20}")
_ID: Final = re.compile(rb"(?:[0-9]{1,20}-[0-9]{1,20})?")


def are_words(answer: Any, count: int | None = None) -> bool:
    """Tell whether an answer is a list of texts, and not empty; with ``count``, of so many."""
    if type(answer) is not list or not answer or (count is not None and len(answer) != count):
        return False
    return all(type(word) is bytes for word in answer)


def are_lists_of_words(answer: Any, count: int) -> bool:
    """Tell whether an answer is a list of so many lists as `are_words` describes."""
    return type(answer) is list and len(answer) == count and all(map(are_words, answer))


def are_numbers(answer: Any, count: int) -> bool:
    """Tell whether an answer is a list of so many whole numbers."""
    return type(answer) is list and len(answer) == count and all(type(number) is int for number in answer)


def is_number(word: bytes) -> bool:
    """Tell whether a text is a whole number that is not negative."""
    return _NUMBER.fullmatch(word) is not None


def are_ids(words: list[Any]) -> bool:
    """Tell whether all of these are ids of entries of a stream, or empty texts."""
    return all(type(word) is bytes and _ID.fullmatch(word) is not None for word in words)
