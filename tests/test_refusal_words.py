"""The transport's words for refusals: fixed, distinct, and fit for logs, metrics and options."""

from __future__ import annotations

import re

import pytest

from pyryrelay.guard import Reason
from pyryrelay.refusal_words import NEVER_ANSWERED, RefusalWord


@pytest.mark.parametrize("word", RefusalWord)
def test_a_word_is_its_own_text(word: RefusalWord) -> None:
    """A word is the lower-case name of its member, and fits log fields, labels and ``--refusal``."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", word)
    assert str(word) == word.value == word.name.lower()


def test_words_are_not_reasons_of_the_guard() -> None:
    """No word is also a reason of the guard."""
    assert not set(RefusalWord) & set(Reason)


def test_reasons_without_an_answer_exist() -> None:
    """Each reason that has no HTTP answer is a word of the transport or a reason of the guard."""
    assert {*RefusalWord, *Reason} >= NEVER_ANSWERED
    assert NEVER_ANSWERED & {*RefusalWord}
    assert NEVER_ANSWERED & {*Reason}
