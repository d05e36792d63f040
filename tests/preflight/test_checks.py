"""The kinds of findings."""

from __future__ import annotations

import re

from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings
from pyryrelay.preflight import checks
from pyryrelay.preflight.checks import CHECKS, ENDPOINT, found_by
from pyryrelay.protocol_options import Check


def test_every_check_is_in_the_table_once() -> None:
    """All constants are in the table; names are unique among those of protocols too, and fit an option."""
    assert {value for value in vars(checks).values() if isinstance(value, Check)} == set(CHECKS)
    names = [check.name for check in (*CHECKS, *(c for protocol in Settings.protocols for c in protocol.checks))]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)


def test_an_error_about_a_setting_is_a_finding() -> None:
    """The line of the finding is the text of the error."""
    error = SettingsError("listen", "command line", "'tcp:1' is taken", "choose another")
    assert str(found_by(ENDPOINT, error)) == str(error)
