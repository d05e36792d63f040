"""The options of the log."""

from __future__ import annotations

import pytest

from pyryrelay.config.groups import LOGGING
from pyryrelay.config.log_options import LogOptions
from pyryrelay.config.sources import SettingsError, options_of
from pyryrelay.mounts import Settings


def test_defaults() -> None:
    """Text for people, fields for the journal, and a log that cannot fill the disk."""
    options = LogOptions()
    assert (options.log_format, options.log_max_bytes, options.log_keep) == ("auto", 1_000_000, 20)
    assert {(option.group, option.restart) for option in options_of(LogOptions)} == {(LOGGING, True)}


@pytest.mark.parametrize(
    ("name", "text"), [("log-format", "xml"), ("log-max-bytes", "9999"), ("log-keep", "0"), ("log-keep", "all")]
)
def test_what_is_refused(name: str, text: str) -> None:
    """One line with option, value and fix."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_sources(None, {}, {name: [text]})
    assert f"--{name}" in str(caught.value)
    assert repr(text) in str(caught.value)


def test_bounds_can_be_off() -> None:
    """Other programs may rotate and remove."""
    settings = Settings.from_sources(None, {}, {"log-max-bytes": ["off"], "log-keep": ["off"]})
    assert (settings.log_max_bytes, settings.log_keep) == (None, None)
