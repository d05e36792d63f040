"""Quotas: how many attempts in which period, and how many at once.

A `Quota` is a value. Its text form is ``N/period [burst B]``: ``10/minute burst 20`` is a bucket that holds
20 tokens and gains one every 6 seconds. A `ByteQuota` counts bytes and may write them with units:
``16 MiB/minute burst 32 MiB``. Periods are whole seconds; times derived from them are floats in seconds.

Invariants: all three numbers are positive and bounded, and ``Quota.parse(str(quota)) == quota``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from pyryrelay.guard.errors import QuotaSyntaxError

__all__ = ["MAX_BYTES", "MAX_COUNT", "MAX_FULL_AFTER_S", "MAX_PERIOD_S", "ByteQuota", "Quota"]

MAX_COUNT: Final = 1_000_000
"""Largest count and largest burst."""

MAX_BYTES: Final = 2**40
"""Largest count and largest burst of bytes."""

MAX_PERIOD_S: Final = 366 * 86_400
"""Longest period."""

MAX_FULL_AFTER_S: Final = 366 * 86_400
"""Longest time an empty bucket may need to fill up; a key is remembered for up to twice that long."""

_WORD_S: Final = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
_UNIT_S: Final = _WORD_S | {word[0]: seconds for word, seconds in _WORD_S.items()}
_NUMBER: Final = r"\d{1,13}(?: *[KMG]iB)?"
_UNIT_BYTES: Final = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_QUOTA: Final = re.compile(
    rf"(?P<count>{_NUMBER}) */ *(?:(?P<word>second|minute|hour|day)|(?P<multiple>\d{{1,9}})?(?P<letter>[smhd]))"
    rf"(?: +burst +(?P<burst>{_NUMBER}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Quota:
    """``count`` tokens per ``period_s`` seconds, of which at most ``burst`` can be saved up.

    Raises `QuotaSyntaxError` for numbers that are not positive, not whole or beyond the module's bounds.
    """

    count: int
    period_s: float
    burst: int
    emission_interval_s: float = field(init=False, repr=False, compare=False)
    """Time in which one token drips into the bucket (GCRA's T)."""
    full_after_s: float = field(init=False, repr=False, compare=False)
    """Time an empty bucket needs to be full; GCRA's tolerance for the burst."""

    MAX: ClassVar[int] = MAX_COUNT
    FORM: ClassVar[str] = "write N/PERIOD [burst B] such as '10/minute burst 20' or '100/5m'"

    def __post_init__(self) -> None:
        """Refuse numbers that no bucket can enforce."""
        for name, number in (("count", self.count), ("burst", self.burst)):
            if not 1 <= number <= self.MAX:
                raise QuotaSyntaxError(f"quota {name} {number!r} is out of range: use 1 to {self.MAX}")
        if not 1 <= self.period_s <= MAX_PERIOD_S or self.period_s != int(self.period_s):
            raise QuotaSyntaxError(
                f"quota period {self.period_s!r} s is out of range: use whole seconds, 1 to {MAX_PERIOD_S}"
            )
        # Worked out once: they are asked for with every decision.
        object.__setattr__(self, "emission_interval_s", self.period_s / self.count)
        object.__setattr__(self, "full_after_s", self.burst * self.period_s / self.count)
        if self.full_after_s > MAX_FULL_AFTER_S:
            raise QuotaSyntaxError(
                f"quota burst {self.burst!r} takes {self.full_after_s!r} s to refill: "
                f"lower the burst or raise the rate until it takes at most {MAX_FULL_AFTER_S} s"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``N/PERIOD [burst B]``; without a burst it equals the count.

        PERIOD is ``second``, ``minute``, ``hour``, ``day``, or ``s``, ``m``, ``h``, ``d`` with an optional
        whole multiple (``30s``, ``5m``). Raises `QuotaSyntaxError`.
        """
        found = _QUOTA.fullmatch(text.strip())
        if found is None:
            raise QuotaSyntaxError(f"{text!r} is not a quota: {cls.FORM}")
        period_s = int(found["multiple"] or 1) * _UNIT_S[found["word"] or found["letter"]]
        try:
            count = cls._number(found["count"])
            burst = count if found["burst"] is None else cls._number(found["burst"])
            return cls(count, float(period_s), burst)
        except QuotaSyntaxError as error:
            raise QuotaSyntaxError(f"{text!r} is not a usable quota: {error}") from None

    def __str__(self) -> str:
        """Return the canonical text, burst included: ``10/minute burst 20``."""
        return f"{self._text(self.count)}/{_period_text(int(self.period_s))} burst {self._text(self.burst)}"

    @classmethod
    def _number(cls, text: str) -> int:
        if not text.isdigit():
            raise QuotaSyntaxError(
                f"{text!r} has a unit of bytes, and this quota counts no bytes: leave '{text[-3:]}' out"
            )
        return int(text)

    @staticmethod
    def _text(number: int) -> str:
        return str(number)


class ByteQuota(Quota):
    """A quota whose tokens are bytes; its text may use KiB, MiB and GiB."""

    __slots__ = ()

    MAX: ClassVar[int] = MAX_BYTES
    FORM: ClassVar[str] = "write N/PERIOD [burst B] such as '16 MiB/minute burst 32 MiB' or '4096/s'"

    @classmethod
    def _number(cls, text: str) -> int:
        unit = text[-3:]
        return int(text) if text.isdigit() else int(text.removesuffix(unit)) * _UNIT_BYTES[unit]

    @staticmethod
    def _text(number: int) -> str:
        unit = next((unit for unit, size in _UNIT_BYTES.items() if number % size == 0), None)
        return str(number) if unit is None else f"{number // _UNIT_BYTES[unit]} {unit}"


def _period_text(period_s: int) -> str:
    """Name a period with the largest unit that divides it."""
    word = next(word for word, seconds in _WORD_S.items() if period_s % seconds == 0)
    multiple = period_s // _WORD_S[word]
    return word if multiple == 1 else f"{multiple}{word[0]}"
