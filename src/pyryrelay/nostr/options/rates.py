"""Nostr's quotas: of messages, events, filters, work, errors and authentications. PURE.

A quota that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import BYTE_QUOTA, QUOTA
from pyryrelay.guard import ByteQuota, Quota, ThrottlePolicy
from pyryrelay.nostr.options.groups import RATES
from pyryrelay.nostr.options.types.rules import KIND_QUOTAS, WORK_QUOTA, KindQuota, WorkQuota

_EXCESS_S: Final = 30.0
"""How long a client may exceed its quota of messages or bytes without a break, if `--excess-timeout` is no less."""

_WHY_PREFIX: Final = "Ten times the quota of an address: a rented subnet must not have one for each of its addresses."
_WHY_EPHEMERAL: Final = "Applications send them far more often than notes, and neither should keep the other out."


@dataclass(frozen=True, kw_only=True)
class RateOptions(ConnectionSettings):
    """How much clients and authors may send in which time."""

    nostr_message_quota: Quota | None = option(
        Quota.parse("1200/minute burst 2400"),
        QUOTA,
        RATES,
        help="How many WebSocket frames one connection may send. A connection that exceeds it is not read from until "
        "it has earned its tokens, and is closed with 1008 after 30 s of that (or `--excess-timeout`, if that is "
        "less).",
        example="6000/minute",
        why="Clients send 10 to 40 requests in their first second, and then hardly any.",
    )
    nostr_byte_quota: ByteQuota | None = option(
        ByteQuota.parse("16 MiB/minute burst 32 MiB"),
        BYTE_QUOTA,
        RATES,
        help="How many bytes one connection may send, in the same way.",
        example="1 MiB/s burst 16 MiB",
        why="A client can republish 20,000 notes at full speed.",
    )
    nostr_event_quota: Quota | None = option(
        Quota.parse("60/minute burst 120"),
        QUOTA,
        RATES,
        help="How many events one client address may publish, without ephemeral ones. It is charged before the "
        "signature is verified.",
        example="10/minute burst 30",
        why="People write less than one note per second, and a client that has been offline sends a few dozen at once.",
    )
    nostr_event_prefix_quota: Quota | None = option(
        Quota.parse("600/minute burst 1200"),
        QUOTA,
        RATES,
        help="How many events a whole /24 (IPv4) or /48 (IPv6) may publish, in the same way.",
        example="3000/minute",
        why=_WHY_PREFIX,
    )
    nostr_connection_event_quota: Quota | None = option(
        None,
        QUOTA,
        RATES,
        help="How many events one connection may publish, and how many ephemeral ones besides.",
        example="60/minute",
        why="Reconnecting resets it, so it stops nobody.",
    )
    nostr_pubkey_quota: Quota | None = option(
        Quota.parse("60/minute burst 120"),
        QUOTA,
        RATES,
        help="How many events one author may publish, from all addresses together, without ephemeral ones. It is "
        "charged after the signature was verified, so nobody else can use it up.",
        example="20/minute burst 60",
        why="As for a client address: a key that publishes from many addresses is no more than a person.",
    )
    nostr_authed_quota: Quota | None = option(
        None,
        QUOTA,
        RATES,
        help="How many events may be published with one authenticated key. It replaces the quotas of the client "
        "address and of the author for clients that are authenticated.",
        example="600/minute",
        why="Keys cost nothing, so authentication alone is no reason for trust.",
    )
    nostr_ephemeral_quota: Quota | None = option(
        Quota.parse("300/minute burst 600"),
        QUOTA,
        RATES,
        help="How many ephemeral events (kinds 20000 to 29999) one client address may publish.",
        example="1200/minute",
        why=_WHY_EPHEMERAL,
    )
    nostr_ephemeral_prefix_quota: Quota | None = option(
        Quota.parse("3000/minute burst 6000"),
        QUOTA,
        RATES,
        help="How many ephemeral events a whole /24 (IPv4) or /48 (IPv6) may publish.",
        example="12000/minute",
        why=_WHY_PREFIX,
    )
    nostr_ephemeral_pubkey_quota: Quota | None = option(
        Quota.parse("300/minute burst 600"),
        QUOTA,
        RATES,
        help="How many ephemeral events one author may publish.",
        example="1200/minute",
        why=_WHY_EPHEMERAL,
    )
    nostr_relay_event_quota: Quota | None = option(
        None,
        QUOTA,
        RATES,
        help="How many events all clients together may publish, and how many ephemeral ones besides.",
        example="100/second",
        why="One spammer would silence everybody.",
    )
    nostr_kind_quota: tuple[KindQuota, ...] = option(
        (),
        KIND_QUOTAS,
        RATES,
        help="How many events of these kinds together one client address may publish, in addition to its other quotas. "
        "In the environment, values are separated by semicolons.",
        example=("0,3=10/hour", "30000-39999=60/hour burst 120"),
        why="Which kinds are expensive depends on what your relay is for.",
    )
    nostr_repeat_quota: Quota | None = option(
        None,
        QUOTA,
        RATES,
        help="How often the same content of 32 or more characters may be published, by any author.",
        example="5/hour",
        why="Bots and forms publish the same text for good reasons.",
    )
    nostr_invalid_quota: Quota | None = option(
        Quota.parse("30/minute burst 60"),
        QUOTA,
        RATES,
        help="How many malformed messages, wrong ids and wrong signatures one client address may send. A client that "
        "exceeds it is closed with 1008.",
        example="6/minute burst 10",
        why="A working client sends none. The burst is for one that republishes what a broken one has written.",
    )
    nostr_auth_quota: Quota | None = option(
        Quota.parse("30/minute burst 30"),
        QUOTA,
        RATES,
        help="How many times one client address may authenticate.",
        example="10/minute",
        why="A client authenticates once per connection and key.",
    )
    nostr_req_quota: Quota | None = option(
        Quota.parse("300/minute burst 600"),
        QUOTA,
        RATES,
        help="How many filters one client address may send in `REQ` messages.",
        example="20/minute burst 100",
        why="Clients send up to 40 requests when they start, and a few with every view.",
    )
    nostr_connection_req_quota: Quota | None = option(
        None,
        QUOTA,
        RATES,
        help="How many filters one connection may send in `REQ` messages.",
        example="60/minute",
        why="Reconnecting resets it, so it stops nobody.",
    )
    nostr_count_quota: Quota | None = option(
        Quota.parse("60/minute burst 60"),
        QUOTA,
        RATES,
        help="How many `COUNT` messages one client address may send.",
        example="10/minute",
        why="Counting is bounded as queries are; clients count the reactions to the notes on a screen.",
    )
    nostr_work_quota: Quota | None = option(
        WorkQuota.parse("2000000/minute burst 5000000"),
        WORK_QUOTA,
        RATES,
        help="How much work the queries of one client address may cause, in units: an index entry that is examined, or "
        "an event that is loaded. The queries of a client in debt wait.",
        example="500000/minute burst 1000000",
        why="An ordinary query takes a few hundred units, and two million are a few seconds of one core.",
    )

    def nostr_throttle(self) -> ThrottlePolicy:
        """Return the quotas of one connection."""
        longest_s = self.excess_timeout_s
        return ThrottlePolicy(
            frames=self.nostr_message_quota,
            bytes=self.nostr_byte_quota,
            pings=self.ping_quota,
            excess_timeout_s=None if longest_s is None else min(longest_s, _EXCESS_S),
        )
