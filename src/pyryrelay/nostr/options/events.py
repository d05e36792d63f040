"""Nostr's options about single events: sizes, times, proof of work, content. PURE.

Units: `_s` seconds, `_bytes` bytes, `_chars` Unicode characters; counts otherwise. A limit that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import CAP, SWITCH, choice, or_off, seconds, whole_number
from pyryrelay.nostr.options.groups import EVENTS
from pyryrelay.nostr.options.types.kinds import KINDS
from pyryrelay.nostr.options.types.rules import DIFFICULTIES

AcceptOrRefuse = Literal["accept", "refuse"]

_LONGEST_S: Final = 100 * 31_536_000.0


@dataclass(frozen=True, kw_only=True)
class EventOptions(ConnectionSettings):
    """What an event may be. An event that is refused is answered with `OK` false and the reason."""

    nostr_max_event_bytes: int | None = option(
        131_072,
        or_off(whole_number(256)),
        EVENTS,
        help="The largest event, in bytes of its shortest JSON.",
        example="65536",
        why="A contact list of 1,700 people fits.",
    )
    nostr_max_tags: int | None = option(
        2000,
        CAP,
        EVENTS,
        help="How many tags an event may have.",
        example="500",
        why="Contact lists have a tag for each contact.",
    )
    nostr_max_tag_value_bytes: int | None = option(
        1024,
        CAP,
        EVENTS,
        help="How long the first value of a tag with a one-letter name may be, in bytes. Such values are indexed.",
        example="100",
        why="Long URLs fit, and the index stays small.",
    )
    nostr_max_indexed_tags: int | None = option(
        None,
        CAP,
        EVENTS,
        help="How many tags with a one-letter name and a value an event may have.",
        example="100",
        why="Contact lists have thousands; `--nostr-max-tags` bounds them.",
    )
    nostr_indexed_tags_kinds: frozenset[int] = option(
        frozenset(),
        KINDS,
        EVENTS,
        help="A kind, or a range of kinds, that `--nostr-max-indexed-tags` applies to; without any, to all.",
        example=("1", "1111"),
        why="A limit applies to all events unless you say otherwise.",
    )
    nostr_indexed_tags_ignore_kinds: frozenset[int] = option(
        frozenset(),
        KINDS,
        EVENTS,
        help="A kind, or a range of kinds, that `--nostr-max-indexed-tags` does not apply to.",
        example=("3", "10000-19999"),
        why="A limit applies to all events unless you say otherwise.",
    )
    nostr_max_content_chars: int | None = option(
        102_400,
        CAP,
        EVENTS,
        help="How long the content of an event may be, in Unicode characters.",
        example="20000",
        why="The largest encrypted payload (NIP-44) has 87,472 characters.",
    )
    nostr_reject_newer_s: float | None = option(
        900.0,
        or_off(seconds(0, _LONGEST_S)),
        EVENTS,
        name="nostr-reject-newer",
        help="How far, in seconds, `created_at` may be in the future.",
        example="1800",
        why="Clocks differ by minutes, and events from the future would stay at the top of every feed.",
    )
    nostr_reject_older_s: float | None = option(
        94_608_000.0,
        or_off(seconds(0, _LONGEST_S)),
        EVENTS,
        name="nostr-reject-older",
        help="How far, in seconds, `created_at` may be in the past. Replaceable events may be older, unless "
        "`--nostr-reject-older-replaceable` says otherwise.",
        example="31536000",
        why="Three years: clients copy notes to a new relay, but a relay is no archive unless you say so.",
    )
    nostr_reject_older_replaceable: bool = option(
        False,
        SWITCH,
        EVENTS,
        help="Apply `--nostr-reject-older` to replaceable events too, such as profiles and contact lists.",
        example="true",
        why="A profile may be old and still be in force.",
    )
    nostr_reject_ephemeral_older_s: float | None = option(
        60.0,
        or_off(seconds(0, _LONGEST_S)),
        EVENTS,
        name="nostr-reject-ephemeral-older",
        help="How old, in seconds, an ephemeral event may be.",
        example="300",
        why="Such events are for those who listen now.",
    )
    nostr_ephemeral_lifetime_s: float = option(
        0.0,
        seconds(0, 86_400),
        EVENTS,
        name="nostr-ephemeral-lifetime",
        help="How long, in seconds, ephemeral events stay in memory for later subscriptions; those of kind 21059 never "
        "do.",
        example="300",
        why="NIP-01 expects that relays do not store them.",
    )
    nostr_ephemeral_bytes: int = option(
        16 * 1024 * 1024,
        whole_number(0),
        EVENTS,
        help="How many bytes of ephemeral events stay in memory at most; the oldest are forgotten first.",
        example="67108864",
        why="It bounds the memory that `--nostr-ephemeral-lifetime` takes.",
    )
    nostr_min_pow: int = option(
        0,
        whole_number(0, 256),
        EVENTS,
        help="How many leading zero bits the id of an event must have (NIP-13). A lower target in its `nonce` tag is "
        "refused as well.",
        example="20",
        why="Most clients do not do this work.",
    )
    nostr_pow_kind: Mapping[int, int] = option(
        MappingProxyType({}),
        DIFFICULTIES,
        EVENTS,
        help="The same for one kind, instead of `--nostr-min-pow`.",
        example=("1=16", "7=0"),
        why="One number for all kinds is easier to explain.",
    )
    nostr_inline_media: AcceptOrRefuse = option(
        "accept",
        choice(get_args(AcceptOrRefuse)),
        EVENTS,
        help="Whether to accept events whose content holds `data:image/` or `data:video/`.",
        example="refuse",
        why="The limit on the size of events applies to them as well.",
    )
    nostr_only_protected: bool = option(
        False,
        SWITCH,
        EVENTS,
        help="Accept protected events only (NIP-70), which only their authors may publish.",
        example="true",
        why="Most notes are meant to spread.",
    )
    nostr_protected: bool = option(
        True,
        SWITCH,
        EVENTS,
        help="Accept protected events (NIP-70) from their authenticated authors. Without it, or without "
        "authentication, they are refused.",
        example="false",
        why="It costs nothing, and authors decide where their events go.",
    )
    nostr_max_deletions: int | None = option(
        1000,
        CAP,
        EVENTS,
        help="How many events and addresses one deletion (kind 5) may name.",
        example="100",
        why="Each of them costs the writer a look-up.",
    )
