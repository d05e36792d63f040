"""CPU time of all workers per accepted upgrade that is handed over, compared with one that is served where it arrives.

Two workers run on one core; all connections arrive at the first one. Binaries claim a server-id each. In turn, all ids
belong to the first worker, or to the second one, which gets the connections by descriptor. It is measured as in
``upgrades.py``, and once more with connections that come one at a time, each after the answer to the one before: then
nothing is shared between several, and each wakes both workers.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from _attempts import addresses, binary_head, open_upgraded, reset
from _rig import OURS, Row, Server, alternate, arguments, publish, rival
from pyryrelay.workers.steering import owner_of

HERE, THERE = "served where it arrives", "handed over"
SETTLE_S: Final = 0.1


class Contestant:
    """Upgrades of binaries whose ids belong to the worker ``owner``; ``whole_us`` are the costs with their ends."""

    def __init__(self, server: Server, owner: int, count: int, *, is_one_at_a_time: bool = False) -> None:
        self._server = server
        self._owner = owner
        self._count = count
        self._is_one_at_a_time = is_one_at_a_time
        self._addresses = itertools.cycle(addresses())
        self.whole_us: list[float] = []
        self._open(count // 4)

    def _open(self, count: int) -> tuple[float, float]:
        """Return the CPU time of ``count`` upgrades, and the CPU time including their disconnects."""
        heads = itertools.islice(_heads(self._owner), count)
        groups: Iterable[Iterable[bytes]] = ([head] for head in heads) if self._is_one_at_a_time else [heads]
        before_s = self._server.cpu_s(SETTLE_S)
        socks = [sock for group in groups for sock in open_upgraded(self._server, group, self._addresses)]
        open_s = self._server.cpu_s(SETTLE_S) - before_s
        reset(socks)
        return open_s, self._server.cpu_s(2 * SETTLE_S) - before_s

    def measure(self) -> float:
        """Return the microseconds per upgrade."""
        open_s, whole_s = self._open(self._count)
        self.whole_us.append(whole_s / self._count * 1e6)
        return open_s / self._count * 1e6


def _heads(owner: int) -> Iterator[bytes]:
    """Return an endless iterator of heads of different binaries that belong to a worker."""
    names = (f"binary-{next(_numbers)}" for _ in itertools.count())
    return (binary_head(name) for name in names if owner_of(name, 2) == owner)


_numbers = itertools.count()


def row(name: str, there: Sequence[float], here: Sequence[float], target: str = "") -> Row:
    """Return a row, with the spread of the ratio over the rounds."""
    ratios = sorted(one / other for one, other in zip(there, here, strict=True))
    note = f"the ratio was {ratios[0]:.2f} to {ratios[-1]:.2f} in single rounds"
    return Row(f"upgrade for another worker, {name}", "µs", {OURS: there, HERE: here}, target, baseline=HERE, note=note)


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    count, rounds = (300, 3) if options.quick else (2000, 9)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(rival("two_workers"))
        many = {name: Contestant(server, owner, count) for name, owner in ((HERE, 0), (THERE, 1))}
        single = {
            name: Contestant(server, owner, count // 4, is_one_at_a_time=True)
            for name, owner in ((HERE, 0), (THERE, 1))
        }
        found = alternate(
            options.rounds or rounds,
            {
                **{name: one.measure for name, one in many.items()},
                **{f"{name}, one at a time": one.measure for name, one in single.items()},
            },
        )
    rows = [
        row("until it may send", found[THERE], found[HERE], f"at most 1.25 x {HERE}"),
        row("with its end", many[THERE].whole_us, many[HERE].whole_us),
        row("one at a time", found[f"{THERE}, one at a time"], found[f"{HERE}, one at a time"]),
    ]
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
