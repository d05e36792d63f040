"""Presets, checked against the tables of the specification."""

from __future__ import annotations

import pytest
from tests.nostr.options.test_options import NostrSettings

from pyryrelay.nostr.presets import DEFAULT, PRESETS

# Section 12, "Presets", as it is written there.
TABLE = {
    "strfry": "message 131072, event 65536, tags 2000, tag value 1024, newer 900, older 94608000, ephemerals 60, "
    "lifetime 300, filters 200, subscriptions 200, limits 500, tag keys 3, count 1000000, slice 10 ms, outbox 32 MiB, "
    "neg 1000000, ping 55 s; all rates of events, filters, work and messages off",
    "nostr-rs-relay": "message, event 262144, subscriptions 32, subscription id 256, newer 1800, older off, "
    "queue 4096, idle 1200, ping 300; rates off",
    "khatru": "ApplySaneDefaults: upgrades 1/5m burst 100, events 2/3m burst 10, filters 20/minute burst 100, "
    "inline media and complex filters refused; message 512000, no time window",
    "ngit-grasp": "connections 1000, 10 per address, upgrades 5/minute, subscriptions 20, filters 100 a REQ, "
    "filter quota 30/minute, events 10/minute burst 30, event and message 131072, http quota 60/minute, newer 900, "
    "older 94608000",
    "open": "every rate off; bounds of size, memory and time stay. For private networks",
}
WORDS = {
    "message 131072": {"nostr-max-message-bytes": "131072"},
    "event 65536": {"nostr-max-event-bytes": "65536"},
    "tags 2000": {"nostr-max-tags": "2000"},
    "tag value 1024": {"nostr-max-tag-value-bytes": "1024"},
    "newer 900": {"nostr-reject-newer": "900"},
    # Theirs bind all kinds, as the notes below the table of limits say.
    "older 94608000": {"nostr-reject-older": "94608000", "nostr-reject-older-replaceable": "true"},
    "ephemerals 60": {"nostr-reject-ephemeral-older": "60"},
    "lifetime 300": {"nostr-ephemeral-lifetime": "300"},
    "filters 200": {"nostr-max-filters": "200"},
    "subscriptions 200": {"nostr-max-subscriptions": "200"},
    "limits 500": {"nostr-max-limit": "500", "nostr-default-limit": "500"},
    "tag keys 3": {"nostr-max-tag-keys": "3"},
    "count 1000000": {"nostr-max-count": "1000000"},
    "slice 10 ms": {"nostr-query-slice": "10"},
    "outbox 32 MiB": {"nostr-outbox-bytes": "33554432"},
    # There is no negentropy here.
    "neg 1000000": {},
    "ping 55 s": {"ping-interval": "55"},
    "message": {"nostr-max-message-bytes": "262144"},
    "event 262144": {"nostr-max-event-bytes": "262144"},
    "subscriptions 32": {"nostr-max-subscriptions": "32"},
    "subscription id 256": {"nostr-max-subscription-id-chars": "256"},
    "newer 1800": {"nostr-reject-newer": "1800"},
    "older off": {"nostr-reject-older": "off"},
    "queue 4096": {"nostr-write-queue": "4096"},
    "idle 1200": {"nostr-idle-timeout": "1200"},
    "ping 300": {"ping-interval": "300"},
    "upgrades 1/5m burst 100": {"upgrade-quota": "1/5m burst 100"},
    "events 2/3m burst 10": {"nostr-event-quota": "2/3m burst 10"},
    "filters 20/minute burst 100": {"nostr-req-quota": "20/minute burst 100"},
    "inline media and complex filters refused": {
        "nostr-inline-media": "refuse",
        "nostr-complex-filters": "refuse",
    },
    "message 512000": {"nostr-max-message-bytes": "512000"},
    "no time window": {"nostr-reject-newer": "off", "nostr-reject-older": "off"},
    "connections 1000": {"max-connections": "1000"},
    "10 per address": {"max-connections-per-address": "10"},
    "upgrades 5/minute": {"upgrade-quota": "5/minute"},
    "subscriptions 20": {"nostr-max-subscriptions": "20"},
    "filters 100 a REQ": {"nostr-max-filters": "100"},
    "filter quota 30/minute": {"nostr-req-quota": "30/minute"},
    "events 10/minute burst 30": {"nostr-event-quota": "10/minute burst 30"},
    "event and message 131072": {"nostr-max-event-bytes": "131072", "nostr-max-message-bytes": "131072"},
    "http quota 60/minute": {"http-quota": "60/minute"},
    "bounds of size": {},
    "memory and time stay. For private networks": {},
}
OFF = ("all rates of events, filters, work and messages off", "rates off", "every rate off")
SHARED_RATES = {"upgrade-quota", "prefix-quota", "http-quota", "tls-quota", "tls-prefix-quota", "ping-quota"}
OTHER_RATES = {"nostr-invalid-quota", "nostr-auth-quota"}


def rates() -> set[str]:
    """Return the names of all quotas of events, filters, work and messages that are on by default."""
    names = {about.name for about in NostrSettings.options() if about.name.endswith("-quota") and about.default}
    return names - SHARED_RATES - OTHER_RATES


def expected(text: str) -> dict[str, str]:
    """Return what a row of the table means."""
    text = text.removeprefix("ApplySaneDefaults: ")
    values: dict[str, str] = {}
    for off in OFF:
        if off in text:
            text = text.replace(off, "").strip("; ")
            values |= dict.fromkeys(rates() | (SHARED_RATES | OTHER_RATES if off == OFF[2] else set()), "off")
            break
    for phrase in text.replace(";", ",").split(", "):
        values |= WORDS[phrase.strip()]
    return values


@pytest.mark.parametrize("name", TABLE)
def test_presets_are_those_of_the_specification(name: str) -> None:
    """Each preset sets what its row says, and nothing else."""
    assert dict(PRESETS[name]) == expected(TABLE[name])


def test_every_preset_has_its_row() -> None:
    """There are the presets of the specification, and the default that changes nothing."""
    assert list(PRESETS) == [DEFAULT, *TABLE]
    assert dict(PRESETS[DEFAULT]) == {}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_used(name: str) -> None:
    """Its options exist, and its values are read without contradiction."""
    settings = NostrSettings.from_sources({}, {}, {"nostr-preset": [name]})
    for option, text in PRESETS[name].items():
        about = NostrSettings.by_name()[option]
        assert getattr(settings, about.field) == about.type.read((text,))
