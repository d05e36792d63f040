"""The plots of docs/performance.md, drawn with matplotlib as small SVG files with selectable text."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _results import Row

COLOURS = ("#0b6e99", "#d9730d", "#6b6b6b", "#8a4fae")
SIZES = {"64 B": 64, "1 KiB": 1024, "16 KiB": 16384, "256 KiB": 262144}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pyryrelay",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "legend.frameon": False,
}


def draw(rows: Sequence[Row], directory: Path) -> list[str]:
    """Write the plots for which there are rows, and return their names. Raises `ImportError` without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    style: Any = STYLE  # matplotlib has a type for each key, and may not be installed
    with matplotlib.rc_context(style):
        for name, plot in (("throughput", _throughput), ("growth", _growth), ("latency", _latency)):
            figure = plot(pyplot, rows)
            if figure is not None:
                figure.savefig(
                    directory / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight", facecolor="white"
                )
                pyplot.close(figure)
                written.append(f"{name}.svg")
    return written


def _medians(row: Row) -> Mapping[str, float]:
    return {who: statistics.median(values) for who, values in row.results.items() if values}


def _colours(rows: Sequence[Row]) -> Mapping[str, str]:
    names = list(dict.fromkeys(who for row in rows for who in row.results))
    return {who: COLOURS[number % len(COLOURS)] for number, who in enumerate(names)}


def _throughput(pyplot: Any, rows: Sequence[Row]) -> Any:
    """Plot frames per second of CPU time by size, in one panel for each direction."""
    found = [row for row in rows if row.unit == "frames/s of CPU" and row.name.rpartition(", ")[2] in SIZES]
    directions = list(dict.fromkeys(row.name.rpartition(", ")[0] for row in found))
    if not found:
        return None
    colours = _colours(found)
    figure, axes = pyplot.subplots(1, len(directions), figsize=(8, 3.2), sharey=True, squeeze=False)
    for axis, direction in zip(axes[0], directions, strict=True):
        lines = {row.name.rpartition(", ")[2]: _medians(row) for row in found if row.name.startswith(direction)}
        for who in colours:
            points = [(SIZES[size], medians[who]) for size, medians in lines.items() if who in medians]
            axis.plot(*zip(*points, strict=True), marker="o", color=colours[who], label=who)
        axis.set(xscale="log", yscale="log", title=direction, xlabel="payload")
        axis.set_xticks([*SIZES.values()], [*SIZES])
        axis.minorticks_off()
    axes[0][0].set_ylabel("frames a second of CPU time")
    axes[0][-1].legend()
    return figure


def _growth(pyplot: Any, rows: Sequence[Row]) -> Any:
    """Plot costs by the number of open connections."""
    found = [row for row in rows if row.name.startswith("growth: ")]
    if not found:
        return None
    figure, axis = pyplot.subplots(figsize=(5, 3.2))
    for colour, row in zip(COLOURS, found, strict=False):
        points = sorted((_number(level), cost) for level, cost in _medians(row).items())
        axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=row.name.removeprefix("growth: "))
    axis.set(xscale="log", xlabel="open connections", ylabel="µs of CPU")
    levels = sorted({_number(level) for row in found for level in row.results})
    axis.set_xticks(levels, [f"{level:,}" for level in levels])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure


def _number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


def _latency(pyplot: Any, rows: Sequence[Row]) -> Any:
    """Plot median and 99th percentile of round trips by the number of pairs."""
    found = {
        (_number(match[1]), match[2]): row
        for row in rows
        if (match := re.fullmatch(r"round trips, ([\d,]+) pairs?, (p50|p99)", row.name))
    }
    if not found:
        return None
    colours = _colours([*found.values()])
    figure, axis = pyplot.subplots(figsize=(5, 3.2))
    for who, colour in colours.items():
        for percentile, line in (("p50", "-"), ("p99", "--")):
            points = sorted((pairs, _medians(row)[who]) for (pairs, which), row in found.items() if which == percentile)
            axis.plot(*zip(*points, strict=True), line, marker="o", color=colour, label=f"{who}, {percentile}")
    pairs = sorted({pairs for pairs, _ in found})
    axis.set(xscale="log", yscale="log", xlabel="pairs, one frame on its way for each", ylabel="µs there and back")
    axis.set_xticks(pairs, [f"{number:,}" for number in pairs])
    axis.minorticks_off()
    axis.legend()
    return figure
