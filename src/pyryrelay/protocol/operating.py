"""What operators see of a protocol, and what they ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from twisted.internet.defer import Deferred

Figure: TypeAlias = int | float | str
"""A value of `RunningProtocol.figures`."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of the dashboard.

    ``series`` has the key of a figure for each line, by what the legend calls it; ``parts_of`` is the key of a sum
    whose parts have a line each. Totals are shown per second. ``unit`` is that of the figures.
    """

    title: str
    series: Mapping[str, str] = field(default_factory=dict)
    parts_of: str = ""
    unit: Literal["", "s", "bytes"] = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """The part of a protocol in the dashboard. ``words`` explains its refusal words in a sentence each.

    ``shared`` names the figures, and the keys of `RunningProtocol.health`, that all processes of a relay have in
    common, such as the size of a database: the relay has as much as the one that shows most, and not the sum.
    """

    title: str
    plots: Sequence[Plot]
    words: Mapping[str, str] = field(default_factory=dict)
    shared: Sequence[str] = ()


Action: TypeAlias = Callable[[bytes], "bytes | Deferred[bytes]"]
"""Takes the body of a request of the operator, and returns JSON. Raises `ActionError`, or has the Deferred fail so."""


class ActionError(ValueError):
    """A request of the operator that cannot be fulfilled; `str` of it is one line with the fix."""
