"""What the dashboard shows of the Nostr relay."""

from __future__ import annotations

from typing import Final

from pyryrelay.protocol import Panel, Plot

PANEL: Final = Panel(
    "Nostr",
    (
        Plot("Events received, by outcome", parts_of="events_total"),
        Plot("Subscriptions", {"open": "subscriptions", "authenticated clients": "authed_connections"}),
        Plot("Queries", {"running": "queries_running", "waiting": "queries_waiting"}),
        Plot("Writer queue", {"events by weight": "write_queue"}),
        Plot("Live events sent", {"sent": "fanout_total"}),
        Plot("Subscriptions refused or ended, by reason", parts_of="closed_total"),
        Plot("Stored events", {"events": "events"}),
        Plot("Bytes", {"database": "database_bytes", "waiting for slow clients": "outbox_bytes"}, unit="bytes"),
    ),
    {
        "bad_media_type": "A POST to the Nostr relay is not of a kind that it answers.",
        "no_management": "A request asks the Nostr relay to be managed (NIP-86), which it is not.",
    },
    shared=("events", "database_bytes", "nostr_events"),
)
