"""What operators see of a protocol, and what they ask of it."""

from __future__ import annotations

from pyryrelay.protocol.operating import ActionError, Panel, Plot


def test_a_protocol_may_show_nothing() -> None:
    """A panel needs no plots, and a plot no lines: then it explains no words and shares no figures."""
    panel = Panel("Room", [])
    assert (panel.words, panel.shared) == ({}, ())
    plot = Plot("Events")
    assert (plot.series, plot.parts_of, plot.unit) == ({}, "", "")


def test_the_error_of_an_action_is_its_line() -> None:
    """What an operator reads is the text of the error, which a room that knows no actions can catch as well."""
    assert str(ActionError("no such key: list them")) == "no such key: list them"
    assert isinstance(ActionError(""), ValueError)
