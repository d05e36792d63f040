"""One open subscription."""

from __future__ import annotations

from tests.support.nostr_relay import World, event, json_of

from pyryrelay.nostr.serving.queries.subscription import Live, Subscription


def subscription() -> Subscription:
    """Return a subscription whose scan runs."""
    made = Subscription(World().client().session._connection, b'"s"')
    made.held = []
    return made


def test_what_the_snapshot_has_is_not_sent_again() -> None:
    """Of what was held back only later events are left, in order."""
    made = subscription()
    made.snapshot = 2
    lives = [Live(one := event(str(seq)), json_of(one), seq, False, None) for seq in (1, 2, 3, 4)]
    made.hold(lives)
    assert made.settle() == lives[2:]
    assert made.settle() == []
    made.hold(lives)
    assert made.settle() == []


def test_an_ended_subscription_holds_nothing() -> None:
    """It is not open, and what was held back is gone."""
    made = subscription()
    made.hold([Live(one := event(), json_of(one), 1, False, None)])
    assert made.connection.outgoing.held_bytes > len(json_of(one))
    made.end()
    assert made.connection.outgoing.held_bytes == 0
    assert not made.is_open
    assert made.held is None


def test_events_are_spliced_behind_the_id() -> None:
    """The id is encoded once."""
    assert subscription().before == b'["EVENT","s",'
