"""The limits of other relays, as defaults for ours: ``--nostr-preset``. PURE.

`PRESETS` maps the name of a preset to the names of options and the texts that these are read from. It is the table of
section 12 of the specification. A preset changes defaults: an option that is given by itself wins. Where another relay
counts what ours does not, or has a limit that ours does not need, there is no entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["DEFAULT", "PRESETS"]

DEFAULT: Final = "default"

_OFF: Final = "off"

_NO_RATES: Final = dict.fromkeys(
    (
        "nostr-message-quota",
        "nostr-byte-quota",
        "nostr-event-quota",
        "nostr-event-prefix-quota",
        "nostr-pubkey-quota",
        "nostr-ephemeral-quota",
        "nostr-ephemeral-prefix-quota",
        "nostr-ephemeral-pubkey-quota",
        "nostr-req-quota",
        "nostr-count-quota",
        "nostr-work-quota",
    ),
    _OFF,
)
"""The rates of messages, events, filters and work. Those that are off anyway are not named."""

_STRFRY: Final = {
    "nostr-max-message-bytes": "131072",
    "nostr-max-event-bytes": "65536",
    "nostr-max-tags": "2000",
    "nostr-max-tag-value-bytes": "1024",
    "nostr-reject-newer": "900",
    "nostr-reject-older": "94608000",
    "nostr-reject-older-replaceable": "true",
    "nostr-reject-ephemeral-older": "60",
    "nostr-ephemeral-lifetime": "300",
    "nostr-max-filters": "200",
    "nostr-max-subscriptions": "200",
    "nostr-max-limit": "500",
    "nostr-default-limit": "500",
    "nostr-max-tag-keys": "3",
    "nostr-max-count": "1000000",
    "nostr-query-slice": "10",
    "nostr-outbox-bytes": "33554432",
    "ping-interval": "55",
    **_NO_RATES,
}

_NOSTR_RS_RELAY: Final = {
    "nostr-max-message-bytes": "262144",
    "nostr-max-event-bytes": "262144",
    "nostr-max-subscriptions": "32",
    "nostr-max-subscription-id-chars": "256",
    "nostr-reject-newer": "1800",
    "nostr-reject-older": _OFF,
    "nostr-write-queue": "4096",
    "nostr-idle-timeout": "1200",
    "ping-interval": "300",
    **_NO_RATES,
}

_KHATRU: Final = {
    "upgrade-quota": "1/5m burst 100",
    "nostr-event-quota": "2/3m burst 10",
    "nostr-req-quota": "20/minute burst 100",
    "nostr-inline-media": "refuse",
    "nostr-complex-filters": "refuse",
    "nostr-max-message-bytes": "512000",
    "nostr-reject-newer": _OFF,
    "nostr-reject-older": _OFF,
}

_NGIT_GRASP: Final = {
    "max-connections": "1000",
    "max-connections-per-address": "10",
    "upgrade-quota": "5/minute",
    "http-quota": "60/minute",
    "nostr-max-subscriptions": "20",
    "nostr-max-filters": "100",
    "nostr-req-quota": "30/minute",
    "nostr-event-quota": "10/minute burst 30",
    "nostr-max-event-bytes": "131072",
    "nostr-max-message-bytes": "131072",
    "nostr-reject-newer": "900",
    "nostr-reject-older": "94608000",
    "nostr-reject-older-replaceable": "true",
}

_OPEN: Final = {
    "upgrade-quota": _OFF,
    "prefix-quota": _OFF,
    "http-quota": _OFF,
    "tls-quota": _OFF,
    "tls-prefix-quota": _OFF,
    "ping-quota": _OFF,
    "nostr-invalid-quota": _OFF,
    "nostr-auth-quota": _OFF,
    **_NO_RATES,
}

PRESETS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        DEFAULT: MappingProxyType({}),
        "strfry": MappingProxyType(_STRFRY),
        "nostr-rs-relay": MappingProxyType(_NOSTR_RS_RELAY),
        "khatru": MappingProxyType(_KHATRU),
        "ngit-grasp": MappingProxyType(_NGIT_GRASP),
        "open": MappingProxyType(_OPEN),
    }
)
