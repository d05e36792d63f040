"""Lines of text."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.logger import LogLevel, formatEventAsClassicLogText

from pyryrelay.observe.log_formats.records import NAMESPACE
from pyryrelay.observe.log_formats.text_lines import text_line

VALUES = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none())
PARTS = st.sampled_from(["{a}", "{b!r}", "{a:>3}", "{a.imag}", "{{", " said\n", "{c}", "ü"])
EVENTS = st.fixed_dictionaries(
    {
        "log_format": st.lists(PARTS).map("".join),
        "log_level": st.sampled_from([LogLevel.info, LogLevel.error, None]),
        "a": VALUES,
        "b": VALUES,
    },
    optional={
        "log_time": st.floats(0, 2**32),
        "log_namespace": st.sampled_from([NAMESPACE, "twisted.x"]),
        "log_system": st.sampled_from(["x#info worker 1", "y\n", None]),
    },
)


@given(event=EVENTS)
@example({"log_format": "{a} ", "a": "x", "log_level": LogLevel.info, "log_time": 1.9999995231628418})
def test_any_line(event: dict[str, Any]) -> None:
    """It is what Twisted writes, whatever a format shows."""
    assert text_line(event) == formatEventAsClassicLogText(event)


def test_a_line() -> None:
    """Time, who says it at which level, and the text; more lines of a text are indented."""
    event = {"log_format": "it said {a} to {b}", "log_time": 0.9, "log_level": LogLevel.info, "a": "x\ny", "b": 7}
    line = text_line({**event, "log_namespace": NAMESPACE})
    assert line is not None
    assert line.startswith(("1970-01-01T", "1969-12-31T"))
    assert line.endswith(" [pyryrelay#info] it said x\n\ty to 7\n")
