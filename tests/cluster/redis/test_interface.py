"""What a call is, and what its errors say."""

from __future__ import annotations

import pytest

from pyryrelay.cluster.redis.interface import AnswerError, Script


def test_a_script_is_known_by_its_digest() -> None:
    """The name is that of SCRIPT LOAD: the SHA-1 of the source."""
    assert Script("return 1").sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOPERM User has no permissions", "NOPERM"),
        ("READONLY You can't write against a read only replica.", "READONLY"),
        ("ERR Error running script (call to f_e): @user_script:1: -READONLY You can't write", "READONLY"),
        (
            "ERR Error running script (call to f_219bb33e7c6773035c720850383aa2ebb63d9904): "
            "@user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
            "OOM",
        ),
        ("ERR Error running script (call to f_e): @user_script: 1: Wrong number of args calling Redis command", "ERR"),
        ("", ""),
    ],
)
def test_the_first_word_of_an_error_is_its_kind(text: str, code: str) -> None:
    """Redis before 7.0 wraps what a script met."""
    assert AnswerError(text).code == code


def test_operators_are_not_told_which_line_of_a_script_it_was() -> None:
    """Redis 7 and Valkey write it after what the script met."""
    text = "OOM command not allowed when used memory > 'maxmemory'."
    assert str(AnswerError(f"{text} script: {'0a' * 20}, on @user_script:52.")) == text
