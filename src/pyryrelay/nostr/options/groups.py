"""The groups of Nostr's options, in the order of all documentation. PURE."""

from __future__ import annotations

from typing import Final

NOSTR: Final = "Nostr"
EVENTS: Final = "Nostr events"
RATES: Final = "Nostr rates"
QUERIES: Final = "Nostr queries"
ACCESS: Final = "Nostr access"
LISTS: Final = "Nostr lists"
STORAGE: Final = "Nostr storage"
INFORMATION: Final = "Nostr information"
