"""The screen of a live command, drawn with rich. It is drawn over and never cleared, so it does not flicker."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TextIO

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pyryrelay.cli.figures import Section, amount, size
from pyryrelay.cli.live.watch import Watch, curve
from pyryrelay.cli.worker_rows import WORKER_TITLES
from pyryrelay.text import printable

__all__ = ["Screen", "page"]


class Screen:
    """The whole terminal, which is as before after the ``with`` statement."""

    def __init__(self, stream: TextIO) -> None:
        self._live = Live(console=Console(file=stream), screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def draw(self, watch: Watch) -> None:
        """Draw the latest moment."""
        self._live.update(page(watch), refresh=True)


def page(watch: Watch) -> RenderableType:
    """Return what is drawn. Nothing of it is read as markup, whatever the relay says."""
    head = Text(printable(watch.title()), style="bold", no_wrap=True, overflow="ellipsis")
    head.append("   q ends", style="dim")
    problem = [Text(printable(watch.problem), style="bold red")] if watch.problem else []
    panels = [_panel(section) for section in watch.sections()]
    return Group(head, *problem, _rates(watch), *_workers(watch), Columns(panels, equal=False, expand=False))


def _workers(watch: Watch) -> list[RenderableType]:
    """Return a table of the workers, if there are several processes."""
    rows = watch.workers()
    if not rows:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, title in enumerate(WORKER_TITLES):
        table.add_column(title.lower(), no_wrap=True, justify="left" if number == 2 else "right")
    for row in rows:
        state = Text(printable(row[2]), "bold" if row[2] == "running" else "bold red")
        table.add_row(*(Text(printable(cell)) for cell in row[:2]), state, *(Text(printable(cell)) for cell in row[3:]))
    return [table]


def _rates(watch: Watch) -> RenderableType:
    found = watch.rates
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(no_wrap=True)
    most = f"highest {amount(max(watch.open, default=0.0))}"
    table.add_row(Text("open"), Text(amount(watch.connections), "bold"), Text(curve(watch.open), "green"), Text(most))
    refused = "-" if found is None else f"{amount(found.refused)}/s"
    most = f"highest {amount(max(watch.refused, default=0.0))}/s"
    table.add_row(Text("refused"), Text(refused, "bold"), Text(curve(watch.refused), "red"), Text(most))
    for reason, per_second in watch.reasons:
        table.add_row(Text(f"  {printable(reason)}"), Text(f"{amount(per_second)}/s"))
    if found is not None:
        table.add_row(Text("admitted"), Text(f"{amount(found.admitted)}/s", "bold"))
        for way, messages, octets in (
            ("in", found.messages_in, found.bytes_in),
            ("out", found.messages_out, found.bytes_out),
        ):
            table.add_row(Text(way), Text(f"{amount(messages)} messages/s", "bold"), Text(f"{size(octets)}/s"))
        table.add_row(Text("processor"), Text(f"{found.cpu:.0%} of one", "bold"))
    return table


def _panel(section: Section) -> Panel:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for name, value in section.rows:
        table.add_row(Text(printable(name)), Text(printable(value)))
    return Panel(table, title=Text(printable(section.title)), expand=False)
