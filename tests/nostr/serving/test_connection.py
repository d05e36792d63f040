"""The state of one peer."""

from __future__ import annotations

from tests.support.nostr_relay import ALICE, CLIENT, FakePeer

from pyryrelay.nostr.policies.refusal import Context
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.outgoing import Outboxes, Outgoing


def connection(peer: FakePeer) -> Connection:
    """Return the connection of a peer."""
    return Connection(CLIENT, Outgoing(peer, Outboxes(lambda outgoing: None, {})), 0.0, is_exempt=False)


def test_policies_are_told_who_sends_something() -> None:
    """Address, keys and time."""
    one = connection(FakePeer())
    one.keys = frozenset({ALICE})
    assert one.context(7) == Context(CLIENT, frozenset({ALICE}), 7, is_exempt=False)


def test_nothing_is_sent_after_the_end() -> None:
    """Replies to a connection that is closed are dropped, and so are empty ones."""
    peer = FakePeer()
    one = connection(peer)
    one.reply([])
    assert peer.sends == 0
    one.reply([b"a"])
    one.outgoing.close(1000, "")
    one.reply([b"b"])
    assert one.is_closed
    assert peer.wire == [b"a"]
