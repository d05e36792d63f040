"""Quotas: only `QuotaSyntaxError` is raised, and the text of a quota parses to the same quota.

Input: the text in UTF-8.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.guard.errors import QuotaSyntaxError
    from pyryrelay.guard.rate.quota import MAX_COUNT, MAX_FULL_AFTER_S, Quota


def check(data: bytes) -> None:
    """Parse, print and parse again."""
    text = data.decode("utf-8", "replace")
    try:
        quota = Quota.parse(text)
    except QuotaSyntaxError as error:
        ensure("\n" not in str(error), "an error is one line")
        return
    ensure(Quota.parse(str(quota)) == quota, "the text of a quota parses to the same quota")
    ensure(1 <= quota.count <= MAX_COUNT and 1 <= quota.burst <= MAX_COUNT, "numbers are bounded")
    ensure(quota.emission_interval_s > 0 and quota.full_after_s <= MAX_FULL_AFTER_S, "times are bounded")


if __name__ == "__main__":
    main(check)
