"""CPU time of all processes per attempt, with two workers and with one process, in microseconds.

A refused attempt is one of an address whose quota is spent: it is accepted and refused by the worker that the kernel
has chosen, so it should cost what it costs without workers. An accepted upgrade is one of a phone from any address:
half of them are passed to the worker that has the binary. The load is that of `refusals` and `upgrades`.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Final

from _attempts import binary_head, open_upgraded, reset
from _rig import OURS, Row, alternate, arguments, publish, relay
from refusals import NO_JAIL, SPENT
from refusals import Contestant as Refusing
from upgrades import Contestant as Accepting
from upgrades import phone_heads

WORKERS: Final = ("--workers", "2")
ALONE: Final = "one process"
SOURCES: Final = tuple(f"127.1.{number}.1" for number in range(8))
"""Addresses of several networks, which reach both workers."""


def refusals(stack: contextlib.ExitStack, count: int) -> dict[str, Refusing]:
    """Return what is measured for refusals."""
    found = {}
    for name, options in ((OURS, WORKERS), (ALONE, ())):
        server = stack.enter_context(relay(*SPENT, *NO_JAIL, *options, generous=False))
        found[name] = Refusing(server, count, frozenset({429}), sources=SOURCES)
    return found


def upgrades(stack: contextlib.ExitStack, count: int) -> dict[str, Accepting]:
    """Return what is measured for upgrades."""
    found = {}
    for name, options in ((OURS, WORKERS), (ALONE, ())):
        server = stack.enter_context(relay(*options))
        binaries = open_upgraded(server, [binary_head("theirs")])
        stack.callback(reset, binaries)
        found[name] = Accepting(server, lambda binaries=binaries: phone_heads(binaries), count)  # type: ignore[misc]
    return found


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    (refused, accepted), rounds = ((500, 300), 3) if options.quick else ((4000, 1000), 5)
    rounds = options.rounds or rounds
    with contextlib.ExitStack() as stack:
        refusing = alternate(rounds, {name: one.measure for name, one in refusals(stack, refused).items()})
    with contextlib.ExitStack() as stack:
        accepting = alternate(rounds, {name: one.measure for name, one in upgrades(stack, accepted).items()})
    publish(
        [
            Row("refused upgrade, two workers", "µs", refusing, f"at most 1.1 x {ALONE}", baseline=ALONE),
            Row("upgrade of a phone, two workers", "µs", accepting, f"at most 1.25 x {ALONE}", baseline=ALONE),
        ],
        options,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
