"""Which events of a store the other hosts have been told of. PURE.

Events are known by their numbers in the store. All up to one number were announced, and of those above it the ones that
were announced ahead; what was taken in from other hosts needs no announcing. The servers of the cluster may lose what
was added in the last minute before an outage, so it is remembered what was announced before then, and `Progress.rewind`
goes back there. Announcing an event twice does no harm.

A process that stops in order leaves behind what the next one needs to know for that, `Progress.kept` and
`Progress.foreign`. One that is killed has kept `Progress.safe` some seconds ago.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["AGAIN_S", "Progress"]

AGAIN_S: Final = 60.0
"""What was announced in this time before the last success is announced again after an outage."""
SAFE_S: Final = 10.0
"""What was announced in this time may have reached nobody if this process and a server end at the same moment."""
MARK_S: Final = 1.0
"""How exactly that is known."""
MAX_FOREIGN: Final = 200_000
"""So many numbers of events of other hosts are remembered, about 20 MB. Without them they are announced once more."""
MAX_AHEAD: Final = 100_000
"""So many numbers of events that were announced ahead may be remembered."""
MAX_RANGES: Final = 20_000
"""How many ranges of them a process leaves behind."""


class Progress:
    """How far the announcing has got. ``announced`` and ``last`` are numbers of events; ``foreign`` is as `foreign`."""

    def __init__(self, announced: int, last: int, now: float, foreign: str = "") -> None:
        self.announced = announced
        """All up to this number were announced, or need not be."""
        self.last = max(announced, last)
        """The highest number that is known to be in the store."""
        self.rewinds = 0
        """How often it was rewound."""
        self._marks: deque[tuple[float, int]] = deque([(now, announced)])
        self._foreign = dict.fromkeys(seq for seq in _numbers(foreign) if announced < seq <= self.last)
        self._ahead: dict[int, None] = {}
        self.top = max(announced, max(self._foreign, default=0))
        """The highest number of an event that was announced, by anybody; it never falls."""
        self._skip()

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be announced ahead: too much of it is remembered."""
        return len(self._ahead) >= MAX_AHEAD

    @property
    def waiting(self) -> int:
        """How many numbers there are that were not announced; some of their events may be gone."""
        return self.last - self.announced

    @property
    def kept(self) -> int:
        """The number up to which nothing can be lost by an outage of a server."""
        return self._marks[0][1]

    @property
    def safe(self) -> int:
        """The number up to which what was announced has surely reached those who were listening."""
        newest_s = self._marks[-1][0]
        return next((seq for at_s, seq in reversed(self._marks) if at_s <= newest_s - SAFE_S), self.kept)

    @property
    def foreign(self) -> str:
        """The events above `kept` that other hosts have announced, as ranges such as ``3-5,8-8``."""
        ranges: list[list[int]] = []
        for seq in sorted(self._foreign):
            if ranges and ranges[-1][1] == seq - 1:
                ranges[-1][1] = seq
            else:
                ranges.append([seq, seq])
        return ",".join(f"{first}-{last}" for first, last in ranges[-MAX_RANGES:])

    def stored(self, seq: int) -> None:
        """Note that the store has events up to a number."""
        self.last = max(self.last, seq)
        self._skip()

    def taken_in(self, seqs: Iterable[int]) -> None:
        """Note events that other hosts have announced. Call it before `stored` with a number that is as high."""
        for seq in seqs:
            if seq > self.announced:
                self._foreign[seq] = None
                self.last = max(self.last, seq)
                self.top = max(self.top, seq)
        while len(self._foreign) > MAX_FOREIGN:
            del self._foreign[next(iter(self._foreign))]
        self._skip()

    def is_told(self, seq: int) -> bool:
        """Tell whether an event need not be announced: another host has done that, or it was announced ahead."""
        return seq in self._foreign or seq in self._ahead

    def advance(self, seq: int, now: float) -> None:
        """Note that everything up to a number has been announced now."""
        if now - self._marks[-1][0] >= MARK_S:
            self._marks.append((now, self.announced))
        while len(self._marks) > 1 and self._marks[1][0] <= now - AGAIN_S:
            self._marks.popleft()
        self.announced = max(self.announced, seq)
        self.last = max(self.last, seq)
        self._skip()
        self.top = max(self.top, self.announced)
        self._forget()

    def announced_ahead(self, seq: int) -> None:
        """Note that an event was announced although others before it wait.

        This is no success that counts for `rewind`: with several servers, one may be down meanwhile.
        """
        if seq > self.announced:
            self._ahead[seq] = None
            self.last = max(self.last, seq)
            self.top = max(self.top, seq)
        self._skip()

    def rewind(self, now: float) -> None:
        """Announce again what may be lost."""
        self.back_to(self.kept, now)

    def back_to(self, seq: int, now: float) -> None:
        """Announce everything again after a number, if it was announced; all of it may be lost from now on."""
        self.rewinds += 1
        self.announced = max(0, min(seq, self.kept))
        self._marks = deque([(now, self.announced)])
        self._ahead.clear()
        self._skip()

    def _skip(self) -> None:
        """Leave out events that are next and need not be announced."""
        while self.announced < self.last and self.is_told(self.announced + 1):
            self.announced += 1

    def _forget(self) -> None:
        """Forget numbers that no rewinding leads to. They were added in ascending order, or nearly so."""
        while self._ahead and (first := next(iter(self._ahead))) <= self.announced:
            del self._ahead[first]
        kept = self.kept
        while self._foreign and (first := next(iter(self._foreign))) <= kept:
            del self._foreign[first]


def _numbers(ranges: str) -> Iterator[int]:
    """Yield the numbers of `Progress.foreign`."""
    for one in ranges.split(",") if ranges else ():
        first, _, last = one.partition("-")
        yield from range(int(first), int(last) + 1)
