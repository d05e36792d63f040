"""Subscriptions of a relay without sockets, for tests of queries."""

from __future__ import annotations

from typing import Any

from tests.support.nostr_relay import Client, World, as_dict

from pyryrelay.guard.client import named
from pyryrelay.nostr.events import Event

OTHER = named("198.51.100.1")


def sent(subscription: str, *events: Event) -> list[list[Any]]:
    """Return what a subscription is sent of events."""
    return [["EVENT", subscription, as_dict(one)] for one in events]


def opened(*filters: dict[str, Any], **options: Any) -> tuple[World, Client]:
    """Return a relay, and a client whose subscription ``s`` is being scanned."""
    world = World(**options)
    client = world.client()
    client.send(["REQ", "s", *(filters or ({},))])
    return world, client
