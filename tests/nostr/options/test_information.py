"""The texts of the relay by default."""

from __future__ import annotations

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import options_of
from pyryrelay.nostr.options.information import InformationOptions


def test_the_relay_says_nothing_of_itself_by_default() -> None:
    """Texts that only the operator knows are empty."""
    shared = {about.name for about in options_of(ConnectionSettings)}
    assert not any(about.default for about in options_of(InformationOptions) if about.name not in shared)
