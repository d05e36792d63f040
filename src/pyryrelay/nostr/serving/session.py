"""The session of one peer: what its messages mean, in order (spec section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred

from pyryrelay.close_codes import CloseCode
from pyryrelay.guard import ClientAddress
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.messages import (
    AuthMessage,
    ClientMessage,
    CloseMessage,
    CountMessage,
    EventMessage,
    Malformed,
    ReqMessage,
    Unsupported,
    parse,
)
from pyryrelay.nostr.policies.refusal import FIELD_WRONG, FILTER_KEY
from pyryrelay.nostr.serving.authentication import authenticate
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.outgoing import Outgoing
from pyryrelay.nostr.serving.publishing import Publisher
from pyryrelay.nostr.serving.queries.querying import Querying
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.protocol import Message, Peer

IDLE: Final = "idle"


class NostrSession:
    """One peer. See `pyryrelay.protocol.Session`."""

    __slots__ = ("_connection", "_is_held", "_publisher", "_querying", "_relay", "_rest", "_waiting")

    def __init__(self, relay: Relay, peer: Peer, client: ClientAddress | None) -> None:
        self._relay = relay
        outgoing = Outgoing(peer, relay.outboxes)
        is_exempt = client is not None and relay.machine.is_exempt(client)
        relay.counts.exempt += is_exempt
        self._connection = Connection(client, outgoing, relay.now(), is_exempt=is_exempt)
        self._publisher: Publisher | None = None
        self._querying: Querying | None = None
        self._rest: Sequence[Message] = ()
        self._waiting: Deferred[None] | None = None
        self._is_held = False
        """Whether messages wait because the connection is leaving."""
        relay.members[outgoing] = self

    @property
    def client(self) -> ClientAddress | None:
        """The address of the client."""
        return self._connection.client

    @property
    def subscriptions(self) -> int:
        """How many subscriptions are open."""
        return 0 if self._querying is None else len(self._querying.subscriptions)

    def challenge(self) -> None:
        """Ask the client to authenticate."""
        self._connection.reply(self._relay.challenge(self._connection))

    # Messages

    def messages(self, batch: Sequence[Message]) -> Deferred[None] | None:
        """See `pyryrelay.protocol.Session`."""
        self._connection.heard_s = self._relay.now()
        if not self._relay.is_started:
            return self._relay.when_started().addCallback(lambda _: self._take(batch))
        return self._take(batch)

    def _take(self, batch: Sequence[Message]) -> Deferred[None] | None:
        """Process messages until one of them has to be waited for. Consecutive events are published together."""
        if self._connection.is_leaving:
            self._is_held = True
            return self._wait(batch)
        received, outgoing = self._relay.counts.received, self._connection.outgoing
        options = self._relay.options
        max_id_characters, max_filters = options.nostr_max_subscription_id_chars, options.nostr_max_filters
        events: list[Event] = []
        for position, (payload, is_binary) in enumerate(batch, 1):
            if outgoing.is_closed:
                return None
            message = parse(payload, is_binary, max_id_characters, max_filters)
            received[message.verb] += 1
            if type(message) is EventMessage:
                events.append(message.event)
                continue
            if events:
                self._publish(events)
                events = []
            if self._process(message):
                # What comes next may depend on the key.
                return self._wait(batch[position:])
            if position < len(batch) and self._querying is not None and self._querying.has_searched_enough():
                # Others have their turns first.
                self._relay.machine.call_later(0, self._go_on)
                return self._wait(batch[position:])
        if events:
            self._publish(events)
        return None if self._publisher is None or outgoing.is_closed else self._publisher.wait()

    def _wait(self, rest: Sequence[Message]) -> Deferred[None]:
        """Keep what is still to be processed until `_go_on`."""
        self._rest = rest
        self._waiting = Deferred()
        return self._waiting

    def _process(self, message: ClientMessage) -> bool:
        """Process a message other than EVENT. Returns whether the next one must wait for `_go_on`."""
        match message:
            case ReqMessage():
                self._queries.req(message)
            case CloseMessage(id=id_):
                if self._querying is not None:
                    self._querying.close(id_)
            case CountMessage():
                self._queries.count(message)
            case AuthMessage(event=event):
                return authenticate(self._relay, self._connection, event, self._go_on)
            case Malformed() | Unsupported():
                self._refuse(message)
        return False

    def _publish(self, events: Sequence[Event]) -> None:
        if self._publisher is None:
            self._publisher = Publisher(self._relay, self._connection)
        self._publisher.publish(events)

    @property
    def _queries(self) -> Querying:
        if self._querying is None:
            self._querying = Querying(self._relay, self._connection, self)
        return self._querying

    def _refuse(self, message: Malformed | Unsupported) -> None:
        if message.closes is not None and self._querying is not None:
            self._querying.close_subscription(message.closes)
        is_malformed, counts = isinstance(message, Malformed), self._relay.counts
        words = {"EVENT": counts.events, "AUTH": counts.auth, "REQ": counts.closed, "COUNT": counts.closed}
        if message.verb in words:
            word = FIELD_WRONG.word if is_malformed else FILTER_KEY.word
            words[message.verb][word] += 1
            self._relay.note_refused(message.verb, self.client, word)
        self._connection.reply([self._relay.rules.texts.reply(message.reply)])
        if is_malformed:
            self._relay.charge_invalid(self._connection)

    def _go_on(self) -> None:
        """Go on with what had to wait."""
        waiting, self._waiting = self._waiting, None
        rest, self._rest = self._rest, ()
        if waiting is None or self._connection.is_closed:
            return
        try:
            more = self._take(rest)
        except Exception:
            waiting.errback()
            return
        if more is None:
            waiting.callback(None)
        else:
            more.chainDeferred(waiting)

    # What the relay asks

    def tick(self, now: float) -> None:
        """See `pyryrelay.nostr.serving.surroundings.Member`."""
        if self._querying is not None:
            self._querying.tick(now)

    def close_if_idle(self, now: float, timeout_s: float) -> None:
        """See `pyryrelay.nostr.serving.surroundings.Member`."""
        connection, publisher = self._connection, self._publisher
        is_used = self.subscriptions or (publisher is not None and publisher.pending) or self._waiting
        if not (is_used or connection.is_closed) and now - connection.heard_s >= timeout_s:
            connection.outgoing.close(CloseCode.NORMAL, IDLE)

    def drain(self) -> None:
        """See `pyryrelay.nostr.serving.surroundings.Member`."""
        if self._querying is not None:
            self._querying.drain()
        if self._publisher is not None:
            self._publisher.drain()

    def leave(self) -> None:
        """See `pyryrelay.nostr.serving.moving.Mover`."""
        self._connection.is_leaving = True
        if self._publisher is None or not self._publisher.pending:
            self._connection.close_if_leaving()

    def stay(self) -> None:
        """See `pyryrelay.nostr.serving.moving.Mover`."""
        self._connection.is_leaving = False
        if self._is_held:
            self._is_held = False
            self._go_on()

    def closed(self, code: int, reason: str) -> None:
        """See `pyryrelay.protocol.Session`."""
        relay, connection = self._relay, self._connection
        relay.members.pop(connection.outgoing, None)
        connection.outgoing.clear()
        self._waiting = None
        self._rest = ()
        relay.counts.authed_connections -= bool(connection.keys)
        if self._querying is not None:
            self._querying.leave()
        if self._publisher is not None:
            self._publisher.leave()
