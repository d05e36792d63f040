"""A jail whose policy changes while it holds bans."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.jail import Jail, JailPolicy

POLICY = JailPolicy(refusals=3, within_s=10.0, first_s=100.0, longest_s=350.0)
ALICE, BOB, CAROL = 10 << 2, 11 << 2, 12 << 2
POLICIES = st.builds(
    lambda refusals, within_s, first_s, factor: JailPolicy(refusals, within_s, first_s, first_s * factor),
    st.integers(2, 5),
    st.sampled_from([1.0, 10.0, 60.0]),
    st.sampled_from([1.0, 100.0, 1_000.0]),
    st.sampled_from([1.0, 3.5, 100.0]),
)


def struck(jail: Jail, times: int, now: float) -> list[bool]:
    """Strike Alice, and return at which times there was a ban."""
    return [jail.strike(ALICE, now) is not None for _ in range(times)]


def test_the_same_policy_changes_nothing() -> None:
    """With the same policy strikes count on, and no ban is reported as a change."""
    jail = Jail(POLICY)
    jail.add(BOB, 50.0, 0.0)
    jail.changes()
    struck(jail, 2, 0.0)
    jail.configure(replace(POLICY), 1.0)
    assert jail.changes() == ([], [])
    assert struck(jail, 1, 1.0) == [True]


def test_other_durations_keep_strikes() -> None:
    """With other durations strikes are kept, and the next ban has the new duration."""
    jail = Jail(POLICY)
    struck(jail, 2, 0.0)
    jail.configure(replace(POLICY, first_s=20.0), 1.0)
    sentence = jail.strike(ALICE, 1.0)
    assert sentence is not None
    assert sentence.until_s == 21.0


def test_another_number_of_refusals_counts_from_zero() -> None:
    """Strikes that were counted for another number are forgotten, in favour of the client."""
    jail = Jail(POLICY)
    struck(jail, 2, 0.0)
    jail.configure(replace(POLICY, refusals=2), 1.0)
    assert jail.tracked == 0
    assert struck(jail, 2, 1.0) == [False, True]


def test_sentences_run_on() -> None:
    """Bans keep their end, and the next one follows the new policy."""
    jail = Jail(POLICY)
    struck(jail, 3, 0.0)
    jail.configure(JailPolicy(refusals=3, within_s=10.0, first_s=1.0, longest_s=1.0), 50.0)
    assert jail.is_jailed(ALICE, 99.9)
    assert not jail.is_jailed(ALICE, 100.0)
    assert jail.running(50.0) == 1
    sentence = jail.strike(ALICE, 100.0) or jail.strike(ALICE, 100.0) or jail.strike(ALICE, 100.0)
    assert sentence is not None
    assert (sentence.times, sentence.until_s) == (2, 101.0)


def test_what_is_remembered_follows_the_new_policy() -> None:
    """An ended ban that the new policy would not remember is forgotten at once, and reported as a change."""
    jail = Jail(POLICY)
    struck(jail, 3, 0.0)
    jail.add(BOB, 500.0, 0.0)
    jail.changes()
    jail.configure(replace(POLICY, first_s=5.0), 110.0)
    assert [sentence.key for sentence in jail.entries(110.0)] == [BOB]
    assert jail.changes() == ([], [ALICE])
    jail.sweep(600.0)
    assert len(jail) == 0


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 30.0, 200.0]),
            st.sampled_from([ALICE, BOB, CAROL]),
            st.integers(0, 5),
            st.none() | POLICIES,
        ),
        max_size=30,
    )
)
def test_no_change_of_policy_ends_a_ban(
    steps: list[tuple[float, int, int, JailPolicy | None]],
) -> None:
    """Whatever the policy becomes, every key is jailed until the end of its last ban, and not longer."""
    jail, now, until_s = Jail(POLICY), 0.0, dict[int, float]()
    for step_s, key, strikes, policy in steps:
        now += step_s
        jail.sweep(now)
        if policy is not None:
            jail.configure(policy, now)
        for _ in range(strikes):
            sentence = jail.strike(key, now)
            if sentence is not None:
                assert now >= until_s.get(key, 0.0)
                until_s[key] = sentence.until_s
        for each in (ALICE, BOB, CAROL):
            assert jail.is_jailed(each, now) is (now < until_s.get(each, 0.0))
