"""What the dashboard is sent each second."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.admin.dashboard.samples import HISTORY, History, difference, encode, event
from pyryrelay.observe.sampling import Snapshot

BEFORE = Snapshot(
    at_s=100.0,
    connections={"server": 1, "client": 0},
    handshakes=2,
    admitted={"server": 1, "client": 5},
    refused={"rate_limit": 3},
    messages=(10, 20),
    bytes=(100, 200),
    tracked=4,
    jailed=5,
    memory_bytes=6000,
    cpu_s=1.0,
    reactor_lag_s=0.001,
    decisions=10,
    decisions_s=0.01,
    protocols={"room": {"visitors": 3, "echoes_total": 7, "parts_total.one": 1, "parts_total.two": 2, "name": "x"}},
)


def test_what_happened_in_a_second() -> None:
    """Counters become differences, of which those that are 0 are left out; gauges stay as they are."""
    after = replace(
        BEFORE,
        at_s=102.0,
        connections={"server": 1, "client": 9},
        admitted={"server": 1, "client": 9},
        refused={"rate_limit": 4, "jailed": 2},
        messages=(11, 22),
        bytes=(110, 220),
        cpu_s=1.5,
        reactor_lag_s=0.25,
        decisions=14,
        decisions_s=0.012,
        protocols={"room": {"visitors": 3, "echoes_total": 8, "parts_total.one": 1, "parts_total.two": 4, "name": "x"}},
    )
    assert difference(BEFORE, after, 1.8e9, "running") == {
        "at": 1.8e9,
        "elapsed_s": 2.0,
        "state": "running",
        "connections": {"server": 1, "client": 9},
        "handshakes": 2,
        "admitted": {"client": 4},
        "refused": {"rate_limit": 1, "jailed": 2},
        "messages": [1, 2],
        "bytes": [10, 20],
        "tracked": 4,
        "jailed": 5,
        "memory_bytes": 6000,
        "cpu": 0.25,
        "lag_s": 0.25,
        "decision_s": 0.0005,
        "protocols": {"room": {"visitors": 3, "echoes_total": 1, "parts_total.two": 2, "name": "x"}},
    }


def test_nothing_happened() -> None:
    """Two snapshots that are the same have no rates, and no time of a decision."""
    found = difference(BEFORE, BEFORE, 0.0, "draining")
    assert (found["admitted"], found["refused"], found["decision_s"], found["cpu"]) == ({}, {}, None, 0.0)
    assert found["state"] == "draining"


def test_a_figure_that_is_new() -> None:
    """A protocol or a figure that was not there before counts from 0."""
    after = replace(BEFORE, at_s=101.0, protocols={**BEFORE.protocols, "other": {"things_total": 2}})
    assert difference(BEFORE, after, 0.0, "running")["protocols"]["other"] == {"things_total": 2}


def test_events_are_single_lines() -> None:
    """An event is its name and one line of data, whatever the data has."""
    text = event("sample", encode({"a": "one\ntwo\u2028<script>"}))
    assert text.count(b"\n") == 3
    assert text.startswith(b"event: sample\ndata: ")
    assert json.loads(text.split(b"data: ")[1]) == {"a": "one\ntwo\u2028<script>"}


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=40), st.integers(1, 10), st.integers(1, 7))
def test_a_reader_of_the_history_misses_nothing(events: list[bytes], most: int, step: int) -> None:
    """Whoever reads step by step gets the events that are kept, in order, once each, and never more than asked for."""
    history = History(most)
    for one in events:
        history.add(one)
    kept, number, found = events[-most:] if events else [], history.start, b""
    assert (len(history), history.end) == (len(kept), len(events))
    while number < history.end:
        data, after = history.after(number, step)
        assert 0 < after - number <= step
        number, found = after, found + data
    assert found == b"".join(kept)


def test_a_reader_that_is_late() -> None:
    """Events that are gone are left out."""
    history = History(2)
    for one in (b"a", b"b", b"c"):
        history.add(one)
    assert history.after(0, 5) == (b"bc", 3)
    assert history.after(3, 5) == (b"", 3)
    assert HISTORY == 15 * 60
