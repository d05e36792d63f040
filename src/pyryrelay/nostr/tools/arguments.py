"""Values of the command line: filters and times. Raises `argparse.ArgumentTypeError`, which ends a command with 2."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from time import time
from typing import Final

from pyryrelay.nostr.events import MAX_CREATED_AT
from pyryrelay.nostr.filters import Filter, FilterError, parse_filter

__all__ = ["filter_argument", "time_argument"]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])")


def filter_argument(text: str) -> Filter:
    """Return a filter, given as JSON."""
    try:
        return parse_filter(text.encode())
    except (FilterError, UnicodeEncodeError) as error:
        raise ArgumentTypeError(
            f"not a filter ({str(error).partition(': ')[2] or error}): write one like a REQ's, "
            """such as '{"kinds":[1],"limit":10}'"""
        ) from None


def time_argument(text: str) -> int:
    """Return a unix time, given as that, as a date or time (UTC unless it says otherwise), or as an age."""
    if text.isascii() and text.isdigit():
        return min(int(text[:20]), MAX_CREATED_AT)
    if ago := _AGO.fullmatch(text):
        return max(0, int(time()) - int(ago[1]) * _UNITS_S[ago[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is not a time: write a unix time, a date such as 2026-11-28, or an age such as 2d"
        ) from None
    return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
