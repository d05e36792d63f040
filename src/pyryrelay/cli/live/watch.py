"""A running relay at its latest moments."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.commands.status import status_of
from pyryrelay.cli.figures import LIMITS, Rates, Section, headline, overview, rates, refused_most, refused_per_second
from pyryrelay.cli.protocol_commands import CommandError
from pyryrelay.cli.worker_rows import worker_rows, workers_ready

__all__ = ["HISTORY", "Watch", "curve"]

HISTORY: Final = 60
"""Moments that the curves show."""
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


class Watch:
    """What is known about a relay at the latest moments."""

    def __init__(self, client: AdminClient, first: Mapping[str, Any]) -> None:
        self._client = client
        self.body, self.before = first, first
        self.rates: Rates | None = None
        self.problem = ""
        self.open: deque[float] = deque(maxlen=HISTORY)
        self.refused: deque[float] = deque(maxlen=HISTORY)

    def look(self) -> None:
        """Ask the relay. While it cannot be reached, the problem says so, and the figures are those of before."""
        try:
            body = status_of(self._client)
        except CommandError as error:
            self.problem, self.rates = str(error), None
            return
        self.problem, self.before, self.body = "", self.body, body
        self.rates = rates(self.before, body)
        self.open.append(self.connections)
        self.refused.append(0.0 if self.rates is None else self.rates.refused)

    @property
    def connections(self) -> float:
        """Open connections of all kinds."""
        return float(sum(self.body.get("connections", {}).values()))

    @property
    def reasons(self) -> list[tuple[str, float]]:
        """The reasons that refuse most at this moment, with refusals per second."""
        if self.body.get("pid") != self.before.get("pid"):
            return []
        return refused_most(refused_per_second(self.before, self.body))

    def title(self) -> str:
        """One line about the process."""
        return headline(self.body) + workers_ready(self.body)

    def workers(self) -> Sequence[Sequence[str]]:
        """A row for each worker, with its share of a processor; none if the relay is one process."""
        return worker_rows(self.body, self.before)

    def sections(self) -> list[Section]:
        """The sections of the page that can change, without the limits."""
        return [section for section in overview(self.body, time.time()) if section.title != LIMITS]


def curve(values: Sequence[float]) -> str:
    """Return a curve of characters, the largest value at full height."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[round(value / most * (len(_BLOCKS) - 1))] for value in values)
