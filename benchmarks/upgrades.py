"""CPU time of the server per accepted upgrade until the peer may send, in microseconds.

A thousand connections are opened, 32 at a time. Each sends its request head at once and waits for 101; the server's CPU
time is divided by their number. Then all are reset at once, and the second row has the whole cost, including
disconnects. Ours: phones that join one binary, and binaries that claim a server-id each. It is compared with plain
Autobahn that accepts every client and does nothing else, and a relay given by `--peer`.
"""

from __future__ import annotations

import contextlib
import sys

from _accepting import Accepting, binary_heads, phone_heads
from _attempts import binary_head, open_upgraded, reset
from _rig import AUTOBAHN, OURS, Row, alternate, arguments, peer, publish, relay, rival

BINARIES, PHONES = "pyryrelay, binaries", "pyryrelay, phones"


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    count, rounds = (300, 3) if options.quick else (1000, 7)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(relay())
        plain = stack.enter_context(rival("autobahn_deny", "--accept"))
        binaries = open_upgraded(ours, [binary_head("theirs")])
        stack.callback(reset, binaries)
        found = {
            PHONES: Accepting(ours, lambda: phone_heads(binaries), count),
            BINARIES: Accepting(ours, binary_heads, count),
            AUTOBAHN: Accepting(plain, binary_heads, count),
        }
        if options.peer:
            found["peer"] = Accepting(stack.enter_context(peer(options.peer)), binary_heads, count)
        results = alternate(options.rounds or rounds, {name: one.measure for name, one in found.items()})
    whole = {name: one.whole_us for name, one in found.items()}
    rows = []
    for name, figures, target in (("until it may send", results, "at most 150"), ("with its end", whole, "")):
        others = {other: figures[other] for other in (AUTOBAHN, "peer") if other in figures}
        for kind, contestant in (("phone", PHONES), ("binary", BINARIES)):
            measured = {OURS: figures[contestant], **others}
            rows.append(Row(f"upgrade of a {kind}, {name}", "µs", measured, target, baseline=AUTOBAHN))
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
