"""What is kept by default."""

from __future__ import annotations

from pyryrelay.nostr.options.storage import StorageOptions


def test_everything_is_kept_and_durable_by_default() -> None:
    """Nothing is removed unless the operator says so."""
    options = StorageOptions()
    assert (options.nostr_retain, options.nostr_max_events, options.nostr_max_database_bytes) == ((), None, None)
    assert options.nostr_durability == "full"
    assert options.nostr_database == "sqlite:pyryrelay-nostr.sqlite"
