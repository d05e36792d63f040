"""Answers of the push service: no exception is raised, pauses are bounded, and only known words are passed on.

Input: the status in two bytes, the length of Retry-After in one byte, Retry-After, the body.
"""

from __future__ import annotations

import re
from typing import Final

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.pyry.push.outcomes import (
        MAX_LIFETIME_S,
        MAX_PAUSE_S,
        MIN_LIFETIME_S,
        AccessToken,
        Answer,
        Next,
        judge,
        read_token,
    )

WORD: Final = re.compile(r"HTTP \d{1,5}|[A-Z_]{4,22}|[a-z_]{8,22}|")
HEADER_VALUE: Final = re.compile(r"[!-~]+")


def check(data: bytes) -> None:
    """Read one answer as each service's."""
    size = data[2] if len(data) > 2 else 0
    retry_after = data[3 : 3 + size].decode("latin-1")
    answer = Answer(int.from_bytes(data[:2], "big"), retry_after, data[3 + size :])
    verdict = judge(answer)
    ensure(WORD.fullmatch(verdict.reason) is not None, "a reason is a known word")
    ensure(0 <= verdict.after_s <= MAX_PAUSE_S, "times are bounded")
    ensure((verdict.after_s > 0) == (verdict.then in (Next.PAUSE, Next.REPEAT)), "only pauses and repetitions wait")
    found = read_token(answer)
    if isinstance(found, AccessToken):
        ensure(HEADER_VALUE.fullmatch(found.text) is not None, "a token is one word of a header")
        ensure(MIN_LIFETIME_S <= found.lifetime_s <= MAX_LIFETIME_S, "lifetimes are bounded")
        ensure(found.text not in repr(found) or len(found.text) < 22, "the text of a token has no token")
    else:
        ensure(WORD.fullmatch(found) is not None, "an error is a known word")


if __name__ == "__main__":
    main(check)
