"""CPU time of all workers per accepted upgrade that is handed over, compared with one that is served where it arrives.

Two workers run; all connections arrive at the first one. Binaries claim a server-id each. In turn, all ids belong to
the first worker, or to the second one, which gets the connections by descriptor. It is measured as in ``upgrades.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator

from _attempts import binary_head
from _rig import OURS, Row, alternate, arguments, publish, rival
from pyryrelay.workers.steering import owner_of
from upgrades import Contestant

HERE, THERE = "served where it arrives", "handed over"


def heads(owner: int) -> Iterator[bytes]:
    """Return an endless iterator of heads of different binaries that belong to a worker."""
    names = (f"binary-{next(_numbers)}" for _ in itertools.count())
    return (binary_head(name) for name in names if owner_of(name, 2) == owner)


_numbers = itertools.count()


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    count, rounds = (300, 3) if options.quick else (1000, 7)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(rival("two_workers"))
        found = {
            HERE: Contestant(server, lambda: heads(0), count),
            THERE: Contestant(server, lambda: heads(1), count),
        }
        results = alternate(options.rounds or rounds, {name: one.measure for name, one in found.items()})
    whole = {name: one.whole_us for name, one in found.items()}
    rows = [
        Row(
            f"upgrade for another worker, {name}",
            "µs",
            {OURS: measured[THERE], HERE: measured[HERE]},
            target,
            baseline=HERE,
        )
        for name, measured, target in (
            ("until it may send", results, f"at most 1.25 x {HERE}"),
            ("with its end", whole, ""),
        )
    ]
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
