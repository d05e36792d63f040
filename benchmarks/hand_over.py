"""CPU time of all workers per accepted upgrade that is handed over, compared with one that is served where it arrives.

Two workers run on one core; all connections arrive at the first one. Binaries claim a server-id each. In turn, all ids
belong to the first worker, or to the second one, which gets the connections by descriptor. It is measured as in
``upgrades.py``, and once more with connections that come one at a time, each after the answer to the one before: then
nothing is shared between several, and each wakes both workers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from _accepting import Accepting, binary_heads
from _attempts import CONCURRENCY
from _rig import OURS, Row, Server, alternate, arguments, publish, rival
from pyryrelay.workers.steering import owner_of

HERE, THERE = "served where it arrives", "handed over"


def contestant(server: Server, owner: int, count: int, at_once: int = CONCURRENCY) -> Accepting:
    """Return upgrades of binaries whose ids belong to the worker ``owner``."""
    return Accepting(server, lambda: binary_heads(lambda server_id: owner_of(server_id, 2) == owner), count, at_once)


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
        owners = ((HERE, 0), (THERE, 1))
        many = {name: contestant(server, owner, count) for name, owner in owners}
        single = {name: contestant(server, owner, count // 4, at_once=1) for name, owner in owners}
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
