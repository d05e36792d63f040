"""The choice of an index."""

from __future__ import annotations

import pytest
from hypothesis import given
from tests.support.nostr_filters import A, B, C, filters

from pyryrelay.nostr.events import MAX_CREATED_AT
from pyryrelay.nostr.filters import NO_KIND, Filter, can_match
from pyryrelay.nostr.storage.sqlite.queries.planning import MAX_PAIRED_KINDS, Index, Plan, plan
from pyryrelay.nostr.storage.sqlite.schema import tag_key

MANY_KINDS = tuple(range(MAX_PAIRED_KINDS + 1))
A_BYTES, B_BYTES = bytes.fromhex(A), bytes.fromhex(B)


def planned(filter_: Filter) -> Plan:
    """Return the plan of a filter that can match."""
    found = plan(filter_)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("filter_", "index"),
    [
        (Filter(), Index.TIME),
        (Filter(since=3, until=4), Index.TIME),
        (Filter(kinds=(1,)), Index.KINDS),
        (Filter(authors=(A,)), Index.AUTHORS),
        (Filter(authors=(A,), kinds=(1, 2)), Index.AUTHORS_KINDS),
        (Filter(authors=(A,), kinds=MANY_KINDS), Index.AUTHORS),
        (Filter(authors=(A,), kinds=(1,), tags=(("t", ("x",)),)), Index.TAGS),
        (Filter(ids=(C,), authors=(A,), kinds=(1,), tags=(("t", ("x",)),)), Index.IDS),
    ],
)
def test_the_rarest_is_looked_up(filter_: Filter, index: Index) -> None:
    """Ids go before tags, those before authors with kinds, authors, kinds and time."""
    assert planned(filter_).index is index


def test_of_tags_the_key_with_the_fewest_values_is_looked_up() -> None:
    """The order of the keys decides nothing."""
    found = planned(Filter(tags=(("t", ("x", "y")), ("p", (A,)), ("e", (A, B, C)))))
    assert list(found.ranges()) == [(tag_key("p", A),)]


def test_ranges() -> None:
    """Authors and kinds are paired; the other indexes have a range for each value, and time has one."""
    assert list(planned(Filter(authors=(A, B), kinds=(7, 1))).ranges()) == [
        (A_BYTES, 7),
        (A_BYTES, 1),
        (B_BYTES, 7),
        (B_BYTES, 1),
    ]
    assert list(planned(Filter(kinds=(7, 1))).ranges()) == [(7,), (1,)]
    assert list(planned(Filter(authors=(A,))).ranges()) == [(A_BYTES,)]
    assert list(planned(Filter(ids=(B,))).ranges()) == [(B_BYTES,)]
    assert list(planned(Filter()).ranges()) == [()]


@pytest.mark.parametrize(
    ("filter_", "is_exact"),
    [
        (Filter(), True),
        (Filter(ids=(A,), kinds=(1,)), True),
        (Filter(ids=(A,), authors=(B,)), False),
        (Filter(ids=(A,), tags=(("t", ("x",)),)), False),
        (Filter(authors=(A,), kinds=(1,)), True),
        (Filter(tags=(("t", ("x", "y")),), kinds=(1,)), True),
        (Filter(tags=(("t", ("x", A)),)), False),
        (Filter(tags=(("t", (A.upper(),)),)), False),
        (Filter(tags=(("t", ("x",)),), authors=(B,)), False),
        (Filter(tags=(("t", ("x",)), ("T", ("x",)))), False),
    ],
)
def test_the_index_is_enough(filter_: Filter, is_exact: bool) -> None:
    """A plan says whether entries have to be compared with the filter; also where anybody can make up a twin's key."""
    assert planned(filter_).is_exact is is_exact


def test_times() -> None:
    """Missing times are the first and the last that events can have, and later ones are cut."""
    assert (planned(Filter()).since, planned(Filter()).until) == (0, MAX_CREATED_AT)
    assert (planned(Filter(since=5)).since, planned(Filter(until=6)).until) == (5, 6)
    assert planned(Filter(until=MAX_CREATED_AT + 1)).until == MAX_CREATED_AT


@given(filters())
def test_what_cannot_match_has_no_plan(filter_: Filter) -> None:
    """Whatever can match has a plan, and with it at least one range."""
    found = plan(filter_)
    assert (found is not None) is can_match(filter_)
    assert found is None or next(found.ranges(), None) is not None


def test_kinds_that_cannot_be_seen_are_not_looked_for() -> None:
    """They are left out of the ranges, and a filter for nothing else has no plan."""
    unseen = frozenset({4})
    found = plan(Filter(kinds=(4, 1, NO_KIND)), unseen)
    assert found is not None
    assert list(found.ranges()) == [(1,), (NO_KIND,)]
    assert plan(Filter(kinds=(4,), ids=(A,)), unseen) is None
    found = plan(Filter(authors=(A,)), unseen)
    assert found is not None
    assert found.unseen_kinds == unseen
