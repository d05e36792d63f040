"""The limits of subscriptions and queries by default."""

from __future__ import annotations

from pyryrelay.nostr.options.queries import SCRAPE_RULES, QueryOptions
from pyryrelay.nostr.policies.scraping import SCRAPE_POLICIES


def test_limits_of_queries_are_those_of_the_specification() -> None:
    """Section 12, "Subscriptions, queries, output"."""
    options = QueryOptions()
    limits = {name: value for name, value in vars(options).items() if name.startswith("nostr_max")}
    assert limits == {
        "nostr_max_subscriptions": 128,
        "nostr_max_subscriptions_per_address": 1024,
        "nostr_max_open_values_per_address": 200_000,
        "nostr_max_filters": 20,
        "nostr_max_filter_values": 5000,
        "nostr_max_tag_keys": 3,
        "nostr_max_limit": 500,
        "nostr_max_results": 5000,
        "nostr_max_count": 1_000_000,
        "nostr_max_query_work": 500_000,
        "nostr_max_scans": 4,
        "nostr_max_filter_kinds": None,
    }
    assert options.nostr_default_limit == 500
    assert (options.nostr_query_slice_ms, options.nostr_query_timeout_s) == (10, 30.0)


def test_every_scrape_rule_has_a_policy() -> None:
    """What the option offers is what the policies know."""
    assert set(SCRAPE_RULES) == set(SCRAPE_POLICIES)
