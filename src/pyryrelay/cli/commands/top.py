"""``pyryrelay top``: what a running relay does, live."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.arguments import positive_seconds
from pyryrelay.cli.commands.status import status_of
from pyryrelay.cli.figures import Rates, amount, size
from pyryrelay.cli.live.terminal import can_redraw, keys
from pyryrelay.cli.live.watch import Watch
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import CommandError
from pyryrelay.text import printable

__all__ = ["add"]

_COLUMNS: Final = (
    ("TIME", 8),
    ("OPEN", 8),
    ("ADMIT/s", 8),
    ("REFUSE/s", 9),
    ("IN/s", 9),
    ("OUT/s", 9),
    ("B-IN/s", 10),
    ("B-OUT/s", 10),
    ("CPU", 5),
    ("MEMORY", 9),
    ("JAILED", 7),
)
_EXAMPLES: Final = """\
examples:
  pyryrelay top                            a screen, drawn anew each second; q or Ctrl-C ends it
  pyryrelay top --interval 5
  pyryrelay top --plain --count 10         ten lines, for a log or a terminal that cannot redraw
  pyryrelay top --json --count 2           one JSON object a line, as `pyryrelay status --json`

The screen needs the package rich: pip install 'pyryrelay[top]'. In a pipe, and on a terminal that cannot redraw, there
is a line for each moment.

exit codes: 0 it was ended, 1 the relay could not be reached at first
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    top = commands.add_parser("top", help="show live what the relay does", epilog=_EXAMPLES, parents=[common])
    top.add_argument(
        "--interval",
        metavar="SECONDS",
        type=positive_seconds,
        default=1.0,
        help="seconds between two moments (default: 1)",
    )
    top.add_argument("--count", metavar="N", type=_count, help="end after so many moments (default: never)")
    top.add_argument("--plain", action="store_true", help="write a line for each moment")
    top.set_defaults(run=_top)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of moments: write 1 or more")
    return int(text)


def _top(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    draws = not (arguments.plain or output.as_json) and can_redraw(output.stream, arguments.environ)
    # Before the screen is taken: an error at first is told as always.
    first = status_of(client)
    watch = Watch(client, first)
    if draws:
        try:
            from pyryrelay.cli.live.screen import Screen
        except ImportError:
            raise CommandError(
                "the screen needs rich, which is not installed: pip install 'pyryrelay[top]', or use --plain"
            ) from None
        with Screen(output.stream) as screen:
            _each_moment(watch, arguments, lambda: screen.draw(watch))
        return
    write = _json_writer(output, watch) if output.as_json else _line_writer(output, watch)
    _each_moment(watch, arguments, write)


def _each_moment(watch: Watch, arguments: argparse.Namespace, show: Callable[[], None]) -> None:
    """Look and show, until it is enough, or q or Ctrl-C is pressed. The first moment shows no rates."""
    shown = 0
    with contextlib.suppress(KeyboardInterrupt), keys() as pressed:
        show()
        shown += 1
        due = time.monotonic() + arguments.interval
        while arguments.count is None or shown < arguments.count:
            while (left_s := due - time.monotonic()) > 0:
                if "q" in pressed(left_s).lower():
                    return
            # After a machine has slept, there is one moment and not many.
            due = max(due + arguments.interval, time.monotonic())
            watch.look()
            show()
            shown += 1


def _json_writer(output: Output, watch: Watch) -> Callable[[], None]:
    import json

    def write() -> None:
        body: object = {"error": watch.problem} if watch.problem else watch.body
        output.stream.write(json.dumps(body) + "\n")
        output.stream.flush()

    return write


def _line_writer(output: Output, watch: Watch) -> Callable[[], None]:
    lines = 0

    def write() -> None:
        nonlocal lines
        if output.is_terminal and lines % 20 == 0:
            output.stream.write("".join(f"{title:>{width}} " for title, width in _COLUMNS).rstrip() + "\n")
        lines += 1
        output.stream.write(_line(watch, aligned=output.is_terminal) + "\n")
        output.stream.flush()

    return write


def _line(watch: Watch, *, aligned: bool) -> str:
    moment = time.strftime("%H:%M:%S")
    if watch.problem:
        return f"{moment} {printable(watch.problem)}"
    cells = [moment, amount(watch.connections), *_rate_cells(watch.rates)]
    cells += [size(watch.body.get("memory_bytes", 0)), amount(watch.body.get("jailed", 0))]
    if not aligned:
        return "\t".join(cells)
    return " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


def _rate_cells(found: Rates | None) -> Iterator[str]:
    if found is None:
        yield from "-" * 7
        return
    yield from map(amount, found[:4])
    yield from map(size, found[4:6])
    yield f"{found.cpu:.0%}"
