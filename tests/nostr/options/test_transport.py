"""Presets, as the settings apply them."""

from __future__ import annotations

import pytest
from tests.nostr.options.test_options import NostrSettings

from pyryrelay.config.settings import effective
from pyryrelay.config.sources import SettingsError
from pyryrelay.guard import Quota
from pyryrelay.nostr.options.transport import TransportOptions


def test_a_preset_changes_defaults() -> None:
    """Options of the preset have its values, shared ones too, and the others their own defaults."""
    settings = NostrSettings.from_sources({}, {}, {"nostr-preset": ["khatru"]})
    assert settings.upgrade_quota == Quota.parse("1/5m burst 100")
    assert settings.nostr_max_message_bytes == 512_000
    assert settings.nostr_reject_newer_s is None
    assert settings.nostr_max_tags == NostrSettings().nostr_max_tags


@pytest.mark.parametrize("source", ["file", "environment", "command line"])
def test_what_is_given_wins(source: str) -> None:
    """An option that any source gives is not the preset's."""
    toml = {"nostr-preset": "khatru", **({"upgrade-quota": "7/minute"} if source == "file" else {})}
    env = {"PYRYRELAY_UPGRADE_QUOTA": "7/minute"} if source == "environment" else {}
    argv = {"upgrade-quota": ["7/minute"]} if source == "command line" else {}
    settings = NostrSettings.from_sources(toml, env, argv)
    assert settings.upgrade_quota == Quota.parse("7/minute")
    assert settings.nostr_event_quota == Quota.parse("2/3m burst 10")


def test_check_tells_which_preset_it_was() -> None:
    """The effective settings name the preset as the source of its values."""
    text = effective(NostrSettings.from_sources({"nostr-preset": "ngit-grasp"}, {}, {}))
    assert 'upgrade-quota = "5/minute burst 5"  # from preset ngit-grasp' in text
    assert 'nostr-preset = "ngit-grasp"  # from configuration file: nostr-preset' in text


def test_errors_name_the_preset() -> None:
    """A value of a preset that contradicts another option is said to come from the preset."""
    settings = NostrSettings.from_sources({"nostr-preset": "strfry"}, {}, {})
    assert settings.error("nostr-max-filters", "does not fit").source == "preset strfry"


def test_an_unknown_preset() -> None:
    """Presets are a choice."""
    with pytest.raises(SettingsError, match="strfry"):
        NostrSettings.from_sources({"nostr-preset": "damus"}, {}, {})


def test_without_a_preset_nothing_changes() -> None:
    """The default preset has no values."""
    assert TransportOptions.preset({}).texts == {}
    assert NostrSettings.from_sources({"nostr-preset": "default"}, {}, {}) == NostrSettings()
