"""Nostr's options about subscriptions and queries. PURE.

Units: `_s` seconds, `_ms` milliseconds; counts otherwise. A limit that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import CAP, SWITCH, choice, or_off, seconds, whole_number
from pyryrelay.nostr.options.events import AcceptOrRefuse
from pyryrelay.nostr.options.groups import QUERIES
from pyryrelay.nostr.options.types.kinds import KINDS
from pyryrelay.nostr.options.types.sets import choices

FilterNeeds = Literal["nothing", "author-or-tag"]

SCRAPE_RULES: Final = ("bounded", "authors", "named", "precise")

_WHY_OTHERS: Final = "It is meant for relays of one application, whose filters are known."


@dataclass(frozen=True, kw_only=True)
class QueryOptions(ConnectionSettings):
    """What clients may ask for. A subscription that is refused is answered with `CLOSED` and the reason."""

    nostr_max_subscriptions: int | None = option(
        128,
        or_off(whole_number(16)),
        QUERIES,
        help="How many subscriptions one connection may have open.",
        example="32",
        why="Clients open a subscription for every part of a view, and often 20 to 40 of them at once.",
    )
    nostr_max_subscriptions_per_address: int | None = option(
        1024,
        or_off(whole_number(16)),
        QUERIES,
        help="How many subscriptions all connections of one client address may have open.",
        example="4096",
        why="Eight connections that use all of theirs.",
    )
    nostr_max_open_values_per_address: int | None = option(
        200_000,
        or_off(whole_number(1000)),
        QUERIES,
        help="How many values (ids, authors, kinds, tags) the filters of all open subscriptions of one client address "
        "may have together. A value takes about 200 bytes of memory while nobody else asks for it.",
        example="1000000",
        why="Twenty people behind one address who each follow two thousand others in five views, and 40 MiB at most.",
    )
    nostr_max_filters: int | None = option(
        20,
        CAP,
        QUERIES,
        help="How many filters a `REQ` or `COUNT` may have.",
        example="100",
        why="Each of them is a query.",
    )
    nostr_max_filter_values: int | None = option(
        5000,
        CAP,
        QUERIES,
        help="How many values all lists of a `REQ` or `COUNT` may have together.",
        example="2500",
        why="People who follow several thousand others still see all of them.",
    )
    nostr_max_tag_keys: int | None = option(
        3,
        or_off(whole_number(0)),
        QUERIES,
        help="How many tag keys (`#e`, `#p`) a filter may have.",
        example="2",
        why="Queries use one index, and have to look at every event for the other keys.",
    )
    nostr_max_limit: int | None = option(
        500,
        CAP,
        QUERIES,
        help="How many stored events a filter yields at most; clients that ask for more are not told.",
        example="1000",
        why="It is what clients are used to, and they ask for older ones with `until`.",
    )
    nostr_default_limit: int | None = option(
        500,
        CAP,
        QUERIES,
        help="How many stored events a filter without a `limit` yields.",
        example="100",
        why="The same as `--nostr-max-limit`: leaving the limit out asks for everything.",
    )
    nostr_max_results: int | None = option(
        5000,
        CAP,
        QUERIES,
        help="How many stored events all filters of a `REQ` yield together.",
        example="2000",
        why="Ten filters that use all of `--nostr-max-limit`.",
    )
    nostr_max_count: int | None = option(
        1_000_000,
        or_off(whole_number(0)),
        QUERIES,
        help="How far `COUNT` counts (NIP-45); beyond that, the answer is this number, marked as approximate. With 0, "
        "counting is off.",
        example="10000",
        why="`--nostr-max-query-work` usually ends a count before that.",
    )
    nostr_hll: bool = option(
        True,
        SWITCH,
        QUERIES,
        help="Add HyperLogLog registers to the answers of `COUNT` where NIP-45 defines them.",
        example="false",
        why="Clients can add up the counts of several relays with them.",
    )
    nostr_query_slice_ms: int = option(
        10,
        whole_number(1, 1000),
        QUERIES,
        name="nostr-query-slice",
        help="How long, in milliseconds, a query runs before others have their turn.",
        example="5",
        why="Hundreds of short queries fit between two turns of a long one.",
    )
    nostr_max_query_work: int | None = option(
        500_000,
        or_off(whole_number(1000)),
        QUERIES,
        help="How many units of work one query may take: an index entry that is examined, or an event that is loaded. "
        "A query that takes more ends with what it has found, or is closed if it has found nothing.",
        example="100000",
        why="It is about a second of one core.",
    )
    nostr_query_timeout_s: float | None = option(
        30.0,
        or_off(seconds(1, 3600)),
        QUERIES,
        name="nostr-query-timeout",
        help="How long, in seconds, a query may wait, and how long it may run.",
        example="10",
        why="Clients give up sooner.",
    )
    nostr_max_scans: int | None = option(
        4,
        CAP,
        QUERIES,
        help="How many queries of one connection run at a time; further ones wait in order.",
        example="8",
        why="More would not make any of them faster.",
    )
    nostr_scrape: frozenset[str] = option(
        frozenset(),
        choices(SCRAPE_RULES, "allow"),
        QUERIES,
        help="What to refuse of filters that ask for everybody's events: with `bounded`, those without ids, authors "
        "and tags, unless they have a limit of 100 or a window of two hours; with `authors`, such filters for kind 1; "
        "with `named`, filters that name nothing; with `precise`, filters that name only one of authors, kinds and "
        "tags and no ids. Trusted keys and allowed clients are exempt.",
        example=("bounded", "named"),
        why="Budgets bound what they cost, and a feed of everybody is what many clients open first.",
    )
    nostr_complex_filters: AcceptOrRefuse = option(
        "accept",
        choice(get_args(AcceptOrRefuse)),
        QUERIES,
        help="Whether to accept filters with more than two tag keys and more than four kinds and tag keys together.",
        example="refuse",
        why="`--nostr-max-tag-keys` and `--nostr-max-query-work` bound what they cost.",
    )
    nostr_max_filter_kinds: int | None = option(
        None,
        CAP,
        QUERIES,
        help="How many kinds a filter may name.",
        example="3",
        why=_WHY_OTHERS,
    )
    nostr_filter_kinds: frozenset[int] = option(
        frozenset(),
        KINDS,
        QUERIES,
        help="A kind, or a range of kinds, that filters may ask for. If there are any, each filter must name kinds, "
        "and only these.",
        example=("1", "30000-39999"),
        why=_WHY_OTHERS,
    )
    nostr_filter_needs: FilterNeeds = option(
        "nothing",
        choice(get_args(FilterNeeds)),
        QUERIES,
        help="What each filter must name: nothing, or authors, `#e` or `#p` (`author-or-tag`).",
        example="author-or-tag",
        why=_WHY_OTHERS,
    )
