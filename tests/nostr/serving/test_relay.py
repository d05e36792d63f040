"""The state of the whole relay."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_relay import CLIENT, World, as_dict, event, json_of

from pyryrelay.guard import Quota
from pyryrelay.guard.client import named
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.serving.relay import Relay, Rules


def test_there_is_no_store_before_the_start() -> None:
    """Asking for it is a mistake of the program."""
    world = World()
    relay = Relay(world.relay.machine, Rules.of(NostrOptions()), NostrQuotas())
    with pytest.raises(RuntimeError, match="not started"):
        _ = relay.store


def test_hidden_authors_are_those_that_are_denied() -> None:
    """Unless ``--nostr-deny-hides no``."""
    denied = frozenset({"d" * 64})
    assert World(nostr_deny_pubkey=denied).relay.rules.hidden == denied
    assert World(nostr_deny_pubkey=denied, nostr_deny_hides=False).relay.rules.hidden == frozenset()


def test_a_reload_changes_limits_and_keeps_subscriptions() -> None:
    """Rules are replaced at once; what is open stays open."""
    world = World()
    client = world.client()
    client.send(["REQ", "s", {"limit": 0}])
    client.take()
    world.configure(nostr_max_tags=0, nostr_outbox_bytes=None, nostr_max_pending_events=3)
    one = event(tags=[["t", "x"]])
    assert client.publish(one) == [["OK", one.id, False, "invalid: event has more than 0 tags"]]
    assert world.relay.subscriptions == 1
    assert world.relay.outboxes.max_bytes is None
    assert world.relay.congestion.max_pending == 3


def test_malformed_messages_close_only_without_a_token() -> None:
    """Then it is a strike, too."""
    world = World(nostr_invalid_quota=Quota.parse("2/hour burst 2"))
    client = world.client()
    assert client.ask(b"{", b"[]") == [["NOTICE", "invalid: not JSON"], ["NOTICE", "invalid: not a message"]]
    assert world.strikes == []
    client.send(b"x")
    assert client.peer.closed_with == (1008, "too many invalid messages")
    assert world.strikes == ["nostr_invalid"]
    assert world.relay.counts.invalid_closed == 1


def test_exempt_clients_may_be_malformed() -> None:
    """Nothing is charged to clients of the allow list."""
    world = World(nostr_invalid_quota=Quota.parse("1/hour burst 1"))
    world.exempt.add(CLIENT)
    client = world.client()
    client.send(b"{", b"{", b"{")
    assert client.peer.close_code is None


def test_a_client_without_an_address_cannot_be_jailed() -> None:
    """It is closed all the same."""
    world = World(nostr_invalid_quota=Quota.parse("1/hour burst 1"))
    client = world.client(None)
    client.send(b"{", b"{")
    assert client.peer.close_code == 1008
    assert world.strikes == []


def test_slow_clients_are_counted_and_logged() -> None:
    """An outbox over its limit closes its peer."""
    world = World(nostr_outbox_bytes=65_536)
    client = world.client()
    client.send(["REQ", "s", {"limit": 0}])
    client.peer.blocks, client.peer.buffered_bytes = True, 1
    world.client(named("192.0.2.8")).publish(event("x" * 70_000))
    assert client.peer.closed_with == (1008, "reads too slowly")
    assert world.relay.counts.slow_clients_closed == 1
    assert ("slow",) in world.log.lines


def idle(**options: Any) -> World:
    """Return a relay with a short idle timeout."""
    return World(nostr_idle_timeout_s=40, **options)


def test_idle_connections_are_closed() -> None:
    """No subscription and no message for so long: 1000."""
    world = idle()
    client = world.client()
    world.pass_s(39)
    world.pass_s(0)
    client.send(["CLOSE", "x"])
    world.pass_s(39)
    for _ in range(3):
        world.pass_s(0)
    assert client.peer.close_code is None
    world.pass_s(1)
    world.pass_s(0)
    assert client.peer.closed_with == (1000, "idle")


def test_connections_with_a_subscription_are_not_idle() -> None:
    """They listen."""
    world = idle()
    client = world.client()
    client.send(["REQ", "s", {"limit": 0}])
    for _ in range(10):
        world.pass_s(100)
    assert client.peer.close_code is None


def test_connections_that_wait_for_an_ok_are_not_idle() -> None:
    """Their events are still on their way."""
    world = idle()
    world.writer.is_prompt = False
    client = world.client()
    client.publish(event())
    for _ in range(10):
        world.pass_s(100)
    assert client.peer.close_code is None


def test_the_idle_timeout_can_be_off() -> None:
    """Nobody is closed then."""
    world = World(nostr_idle_timeout_s=None)
    client = world.client()
    world.pass_s(10**6)
    assert client.peer.close_code is None


def test_the_store_reports_to_the_relay() -> None:
    """Batches, health and readiness are counted, logged and passed on."""
    world = World()
    ready: list[None] = []
    relay = world.relay
    relay.writer_ready(7, 5)
    relay.on_ready = lambda: ready.append(None)
    relay.writer_ready(7, 5)
    relay.batch_written(12, 0.5)
    relay.verified(3, 0.25)
    relay.health_changed(False, "disk full")
    relay.removed("expired", [b"e" * 32])
    assert ready == [None]
    assert relay.stored_events == 4
    assert relay.counts.write_s.total == 0.5
    assert relay.counts.verify_s.total == 0.25
    assert sum(relay.counts.write_batch_events.counts) == 1
    assert relay.counts.expired == 1
    assert ("health", False, "disk full") in world.log.lines


def test_ephemerals_are_swept() -> None:
    """The tick forgets what is over."""
    world = World(nostr_ephemeral_lifetime_s=10)
    world.client().publish(event(kind=20001))
    assert len(world.relay.ephemerals) == 1
    world.pass_s(10)
    assert len(world.relay.ephemerals) == 0


def test_what_tools_store_is_delivered() -> None:
    """An import reaches subscribers, and its events are known from then on."""
    world = World()
    client = world.client()
    client.send(["REQ", "s", {"limit": 0}])
    client.take()
    one = event()
    world.relay.imported([(one, json_of(one), 1)])
    assert client.take() == [["EVENT", "s", as_dict(one)]]
    assert client.publish(one) == [["OK", one.id, True, "duplicate: already have this event"]]
    assert world.relay.stored_events == 1


@pytest.mark.parametrize(("jump_s", "lines"), [(61, [("jumped", 61)]), (-3600, [("jumped", -3600)]), (60, [])])
def test_a_clock_that_was_set_is_worth_a_warning(jump_s: int, lines: list[tuple[str, int]]) -> None:
    """Expirations and time windows follow the wall clock."""
    world = World()
    world.pass_s(5)
    world.wall_s += jump_s
    world.pass_s(5)
    world.pass_s(5)
    assert world.log.lines == lines
