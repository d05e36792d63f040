"""Nostr's options about its endpoint, its connections and its processes. PURE.

Units: `_s` seconds, `_bytes` bytes; counts otherwise. A cap or time that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pyryrelay.config.guard_options import ConnectionSettings, Preset
from pyryrelay.config.sources import option
from pyryrelay.config.types import CAP, SWITCH, choice, or_off, seconds, whole_number
from pyryrelay.nostr.options.groups import NOSTR
from pyryrelay.nostr.options.types.texts import PATH, RELAY_URL
from pyryrelay.nostr.presets import DEFAULT, PRESETS

Deflate = Literal["off", "no-context", "context"]


@dataclass(frozen=True, kw_only=True)
class TransportOptions(ConnectionSettings):
    """Whether there is a Nostr relay, where, and what its connections may take."""

    nostr: bool = option(
        False,
        SWITCH,
        NOSTR,
        help="Serve a Nostr relay.",
        restart=True,
        example="true",
        why="An update should not open a relay to the public that nobody asked for.",
    )
    nostr_preset: str = option(
        DEFAULT,
        choice(tuple(PRESETS)),
        NOSTR,
        help="Take the limits of another relay as defaults: `strfry`, `nostr-rs-relay`, `khatru` or `ngit-grasp`, or "
        "with `open` no limits of rates at all, for private networks. Options that are given by themselves win. "
        "`--check` shows which values come from the preset.",
        example="strfry",
        why="The defaults are meant for a public relay that strangers use.",
    )
    nostr_path: str = option(
        "/",
        PATH,
        NOSTR,
        help="The path of the Nostr relay.",
        restart=True,
        example="/nostr",
        why="Clients expect a relay there.",
    )
    nostr_url: str = option(
        "",
        RELAY_URL,
        NOSTR,
        help="The URL that clients use for this relay. Authentication (NIP-42) needs it, because clients sign it; "
        "without it, only a relay whose endpoints are all on the loopback interface can authenticate clients, as "
        "`ws://localhost` and the loopback addresses. Events of private kinds, such as direct messages, are served to "
        "authenticated clients only.",
        example="wss://relay.example.com/",
        why="Only you know it. The `Host` header cannot replace it, since an attacker who passes a challenge on "
        "chooses that header.",
    )
    nostr_deflate: Deflate = option(
        "off",
        choice(get_args(Deflate)),
        NOSTR,
        help="Whether to compress messages (permessage-deflate): not at all, each message by itself (`no-context`), or "
        "with what was sent before as its dictionary (`context`). Clients have to ask for it.",
        example="no-context",
        why="Clients would choose how much memory and CPU time of the relay it takes.",
    )
    max_nostr_connections: int | None = option(
        None,
        CAP,
        NOSTR,
        help="How many Nostr clients may be connected at once, from all addresses together; more are answered with "
        "503.",
        example="9000",
        why="`--max-connections` bounds all connections together. Set a cap to keep room for other protocols.",
    )
    nostr_max_message_bytes: int = option(
        262_144,
        whole_number(1024, 64 * 1024 * 1024),
        NOSTR,
        help="The longest message of a client, in bytes, after decompression; the sender of a longer one is closed "
        "with 1009.",
        restart=True,
        example="524288",
        why="It holds a subscription to 3,900 authors; each connection may take this much memory.",
    )
    nostr_max_subscription_id_chars: int = option(
        64,
        whole_number(1, 256),
        NOSTR,
        help="How many characters the id of a subscription may have.",
        example="256",
        why="NIP-01 says so.",
    )
    nostr_idle_timeout_s: float | None = option(
        1200.0,
        or_off(seconds(1, 604_800)),
        NOSTR,
        name="nostr-idle-timeout",
        help="How long, in seconds, a client may stay connected without a subscription and without a message. It is "
        "then closed with 1000.",
        example="300",
        why="Such a connection takes a place that others may need. Twenty minutes leave time to write a note.",
    )
    nostr_outbox_bytes: int | None = option(
        4 * 1024 * 1024,
        or_off(whole_number(65_536)),
        NOSTR,
        help="How many bytes may wait for a client that reads too slowly; it is closed with 1008 above that.",
        example="33554432",
        why="A gap in the events would be worse than a reconnect, and memory must not grow with what clients do not "
        "read.",
    )
    nostr_outbox_total_bytes: int | None = option(
        512 * 1024 * 1024,
        or_off(whole_number(1024 * 1024)),
        NOSTR,
        help="How many bytes may wait for all clients together. Above that, the clients for which most is waiting are "
        "closed first.",
        example="134217728",
        why="It leaves room for everything else on a machine with 1 GiB.",
    )
    nostr_max_pending_events: int | None = option(
        64,
        CAP,
        NOSTR,
        help="How many events of one connection may wait for their answer; meanwhile the connection is not read from. "
        "An event of more than 32 tags counts as a quarter of their number.",
        example="256",
        why="It is enough to keep the writer busy, and nothing is lost or refused for it.",
    )
    nostr_write_queue: int | None = option(
        4096,
        or_off(whole_number(16)),
        NOSTR,
        help="How many events of all clients may wait to be stored. Publishers are not read from while it is full, and "
        "one client may hold at most a quarter of it. Events of many tags count for more, as above.",
        example="16384",
        why="At 10,000 events a second it is half a second.",
    )
    nostr_readers: int = option(
        2,
        whole_number(1, 64),
        NOSTR,
        help="How many processes answer queries.",
        restart=True,
        example="4",
        why="One expensive query leaves the other process to everybody else.",
    )
    nostr_verifiers: int = option(
        1,
        whole_number(1, 64),
        NOSTR,
        help="How many processes verify signatures.",
        restart=True,
        example="2",
        why="One process verifies more events than one disk usually stores.",
    )

    @classmethod
    def preset(cls, values: Mapping[str, Any]) -> Preset:
        """Return the defaults of ``--nostr-preset``."""
        name = values.get("nostr_preset", DEFAULT)
        return Preset(f"preset {name}", PRESETS[name])
