"""What a protocol tells operators who ask why something is refused, as `pyryrelay explain` shows it. PURE.

It answers with rules: what each one is, and how it stands now. They never hold secrets, or contents of messages. Times
are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from pyryrelay.guard import Level

__all__ = ["Named", "Rule", "State", "level_figures", "level_text", "time_text"]

State: TypeAlias = Literal["ok", "refuses", "info"]


class Rule(NamedTuple):
    """A rule, as it holds for a client, or for something else that an operator has named.

    ``what`` names the rule, and ``detail`` says in a sentence how it stands, with its option. ``advice`` is what can be
    done if it refuses. ``figures`` are figures for programs, as JSON has them. ``used`` says how much was used of what
    the rule allows, so that the same rule of several processes can be compared; 0 is nothing.
    """

    what: str
    state: State
    detail: str
    advice: str = ""
    figures: Mapping[str, object] = MappingProxyType({})
    used: float = 0.0


class Named(NamedTuple):
    """Something that an operator has named, such as a key: what it is, in words, and the rules that hold for it."""

    name: str
    rules: list[Rule]


def level_text(level: Level[Any], option: str, others: str = "other members of the cluster") -> str:
    """Return what a bucket holds; ``others`` are the processes that spend its tokens as well."""
    if level.wait_s:
        text = f"none left for {time_text(level.wait_s)}, {level.quota} ({option})"
    else:
        text = f"{level.tokens} of {level.quota.burst} left, {level.quota} ({option})"
    if not level.elsewhere:
        return text
    owes = f", so it owes {level.owes}" if level.owes else ""
    return f"{text}; {others} have spent {level.elsewhere}{owes}: full again in {time_text(level.full_s)}"


def level_figures(level: Level[Any], option: str) -> dict[str, object]:
    """Return the same for programs."""
    return {
        "option": option,
        "quota": str(level.quota),
        "left": level.tokens,
        "wait_s": round(level.wait_s, 3),
        "full_s": round(level.full_s, 3),
        "elsewhere": level.elsewhere,
        "owes": level.owes,
    }


def time_text(seconds: float) -> str:
    """Format a time for people: ``5 s``, ``9 min``, ``2 h``, rounded up."""
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{ceil(seconds / unit_s)} {unit}"
    return f"{max(1, ceil(seconds - 1e-6))} s"
