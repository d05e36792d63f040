"""Caps of what one client has open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import client, quotas, text_of

ME, STRANGER = client("192.0.2.1"), client("198.51.100.1")


@given(st.lists(st.integers(-3, 2), max_size=30))
def test_subscriptions_of_a_client(steps: list[int]) -> None:
    """A client holds at most its cap, and what was released can be held again."""
    made, held = quotas(nostr_max_subscriptions_per_address=16), 0
    for step in steps:
        if step > 0:
            refused = made.subscriptions.hold(ME)
            assert text_of(refused) == ("rate-limited: more than 16 subscriptions" if held == 16 else None)
            held += refused is None
        else:
            made.subscriptions.release(ME, -step)
            held = max(0, held + step)
    assert made.tracked == (held > 0)


@given(st.lists(st.integers(-3, 4), max_size=30))
def test_values_of_a_client(steps: list[int]) -> None:
    """The subscriptions that a client holds have no more values than their cap, whichever of them are released."""
    made = quotas(nostr_max_open_values_per_address=1000)
    held: list[int] = []
    for step in steps:
        values = 150 * step
        if step >= 0:
            refused = made.subscriptions.hold(ME, values)
            is_over = step > 0 and sum(held) + values > 1000
            expected = "rate-limited: more than 1000 values in open subscriptions" if is_over else None
            assert text_of(refused) == expected
            if refused is None:
                held.append(values)
        elif held:
            made.subscriptions.release(ME, values=held.pop(step % len(held)))
    assert made.subscriptions.hold(STRANGER, 1000) is None
    made.subscriptions.release(STRANGER, values=1000)
    assert made.tracked == (len(held) > 0)


def test_a_cap_of_values() -> None:
    """A subscription that is refused counts for nothing, and one without values is never over the cap."""
    made = quotas(nostr_max_open_values_per_address=1000, nostr_max_subscriptions_per_address=16)
    assert made.subscriptions.hold(ME, 1001) is not None
    assert made.subscriptions.hold(ME, 1000) is None
    assert made.subscriptions.hold(ME) is None
    assert made.subscriptions.hold(ME, 1) is not None
    made.subscriptions.release(ME, values=1000)
    assert made.subscriptions.hold(ME, 999) is None
    assert quotas().subscriptions.hold(ME, 10**9) is None


def test_what_a_client_holds() -> None:
    """Operators can be told."""
    held = quotas().subscriptions
    held.hold(ME, 5)
    held.hold(ME)
    assert held.held(ME.key) == (2, 5)
    held.release(ME, 2, 5)
    assert held.held(ME.key) == (0, 0)


def test_a_cap_of_subscriptions() -> None:
    """At the cap one client is refused and another is not; without a cap nobody is."""
    made = quotas(nostr_max_subscriptions_per_address=16)
    assert [made.subscriptions.hold(ME) is None for _ in range(17)] == [True] * 16 + [False]
    assert made.subscriptions.hold(None) is None
    assert [quotas().subscriptions.hold(ME) for _ in range(100)] == [None] * 100
