"""What holds for the panel of each protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyryrelay.protocol import Figure, Panel


def check_panel(panel: Panel, figures: Mapping[str, Figure], words: Sequence[str]) -> None:
    """Check that plots show figures that there are, of one kind each, and that all refusal words are explained."""
    for plot in panel.plots:
        assert bool(plot.series) != bool(plot.parts_of), plot.title
        if plot.parts_of:
            assert [name for name in figures if name.startswith(f"{plot.parts_of}.")], plot.title
        assert set(plot.series.values()) <= figures.keys(), plot.title
        kinds = {key.partition(".")[0].endswith("_total") for key in plot.series.values()}
        assert len(kinds) <= 1, f"{plot.title} mixes totals and gauges"
    assert len({plot.title for plot in panel.plots}) == len(panel.plots)
    assert panel.words.keys() == {*words}
    assert all(text.endswith(".") for text in panel.words.values())
