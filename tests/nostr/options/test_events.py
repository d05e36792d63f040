"""The limits of single events by default."""

from __future__ import annotations

from pyryrelay.nostr.options.events import EventOptions


def test_limits_of_events_are_those_of_the_specification() -> None:
    """Section 12, "Messages and events"."""
    options = EventOptions()
    assert {name: value for name, value in vars(options).items() if isinstance(value, int | float | str)} == {
        "nostr_max_event_bytes": 131_072,
        "nostr_max_tags": 2000,
        "nostr_max_tag_value_bytes": 1024,
        "nostr_max_content_chars": 102_400,
        "nostr_reject_newer_s": 900.0,
        "nostr_reject_older_s": 94_608_000.0,
        "nostr_reject_older_replaceable": False,
        "nostr_reject_ephemeral_older_s": 60.0,
        "nostr_ephemeral_lifetime_s": 0.0,
        "nostr_ephemeral_bytes": 16 * 1024 * 1024,
        "nostr_min_pow": 0,
        "nostr_inline_media": "accept",
        "nostr_only_protected": False,
        "nostr_protected": True,
        "nostr_max_deletions": 1000,
        "excess_timeout_s": 300.0,
        "ping_interval_s": 30.0,
    }
