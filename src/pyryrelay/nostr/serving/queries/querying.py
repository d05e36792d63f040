"""The subscriptions and queries of one connection: REQ, COUNT and CLOSE (spec sections 7 and 8).

A subscription is in the live index before its scan begins. Until the scan has ended, live events are held back; then
those are sent that the scan's snapshot did not have. So each event is sent once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyryrelay.nostr.filters import Filter, can_match, value_count
from pyryrelay.nostr.messages import CountMessage, ReqMessage, eose
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.queries.counting import Counting
from pyryrelay.nostr.serving.queries.running import or_unlimited
from pyryrelay.nostr.serving.queries.scan import Scan
from pyryrelay.nostr.serving.queries.subscription import Subscription
from pyryrelay.nostr.serving.queries.turns import Turns
from pyryrelay.nostr.serving.recent import MAX_EXAMINED, Kept
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.serving.surroundings import Member
from pyryrelay.nostr.storage.visibility import may_see

_SHUTTING_DOWN: Final = refusal.SHUTTING_DOWN()


class Querying(Turns):
    """The subscriptions and queries of one connection. ``member`` is that connection among the relay's."""

    __slots__ = ("_examined", "subscriptions")

    def __init__(self, relay: Relay, connection: Connection, member: Member) -> None:
        super().__init__(relay, connection, member)
        self.subscriptions: dict[str, Subscription] = {}
        self._examined = 0

    def has_searched_enough(self) -> bool:
        """Return whether so many ephemeral events were looked at that others have their turns; then start anew."""
        if self._examined < MAX_EXAMINED:
            return False
        self._examined = 0
        return True

    # REQ

    def req(self, message: ReqMessage) -> None:
        """Open a subscription, or refuse it. One of the same id ends without a word."""
        self._end(message.id)
        relay, connection = self.relay, self.connection
        values = value_count(message.filters)
        refused = self._refused(message, values)
        if refused is not None:
            connection.reply(relay.refuse_query(connection, message.id_json, refused))
            self.start_waiting()
            return
        subscription = self.subscriptions[message.id] = Subscription(connection, message.id_json, values)
        subscription.snapshot = relay.fanout.last_seq
        relay.fanout.add(subscription, message.filters)
        possible = [one for one in message.filters if can_match(one)]
        scanned = tuple(one for one in possible if one.limit != 0)
        # Nobody looks for what a limit of 0 leaves out.
        is_complete = len(scanned) == len(possible)
        if not scanned:
            connection.outgoing.send([eose(message.id_json, "finish" if is_complete else None)], subscription)
            return
        subscription.held = []
        scan = Scan(self, message, subscription)
        scan.filters = scanned
        scan.is_complete = is_complete
        if not is_complete:
            # What is committed from now on may match a filter that nothing is looked for, so all of it is live.
            scan.max_seq = subscription.snapshot
        if relay.ephemerals.size:
            most = or_unlimited(relay.options.nostr_max_limit)
            usual = or_unlimited(relay.options.nostr_default_limit)
            scan.take_ephemerals(self._ephemerals(scanned, most, usual), most, usual)
        if self._scans is None:
            self._scans = {}
        self._scans[message.id] = scan
        self.enqueue(scan)

    def _refused(self, message: ReqMessage, values: int) -> Refused | None:
        relay, connection = self.relay, self.connection
        if relay.is_draining:
            return _SHUTTING_DOWN
        refused = relay.rules.filters.check(message.filters, connection.context(relay.wall_s())) or self._over_cap()
        if refused is not None:
            return refused
        client = connection.client
        refused = relay.quotas.subscriptions.hold(client, values)
        if refused is None and not connection.is_exempt:
            refused = relay.quotas.queries.spend_filters(client, len(message.filters), connection.quotas, relay.now())
            if refused is not None:
                relay.quotas.subscriptions.release(client, values=values)
        return refused

    def _ephemerals(self, filters: Sequence[Filter], max_limit: int, default_limit: int) -> list[Kept]:
        """Return the ephemeral events in memory that this connection may see, and charge the search."""
        relay, view = self.relay, self._view()
        found, work = relay.ephemerals.matching(
            filters, max_limit, default_limit, relay.now(), lambda one: may_see(one, view)
        )
        self._searched(work)
        return found

    def _searched(self, work: int) -> None:
        """Charge a search through ephemeral events."""
        self._examined += work
        self._charge(work)

    # COUNT

    def count(self, message: CountMessage) -> None:
        """Count events, or refuse to. A COUNT of the same id ends without a word."""
        relay, connection = self.relay, self.connection
        self.end_count(message.id)
        refused = self._count_refused(message)
        if refused is not None:
            connection.reply(relay.refuse_query(connection, message.id_json, refused))
            self.start_waiting()
            return
        counting = Counting(self, message)
        if relay.ephemerals.size:
            view = self._view()
            number, work, is_whole = relay.ephemerals.count(
                message.filters, relay.now(), lambda one: may_see(one, view)
            )
            self._searched(work)
            counting.add_ephemerals(number, is_whole)
        if self._counts is None:
            self._counts = {}
        self._counts[message.id] = counting
        self.enqueue(counting)

    def _count_refused(self, message: CountMessage) -> Refused | None:
        relay, connection = self.relay, self.connection
        if relay.is_draining:
            return _SHUTTING_DOWN
        if relay.options.nostr_max_count == 0:
            return refusal.NO_COUNT()
        refused = relay.rules.filters.check(message.filters, connection.context(relay.wall_s()), is_count=True)
        refused = refused or self._over_cap()
        if refused is None and not connection.is_exempt:
            refused = relay.quotas.queries.spend_count(connection.client, relay.now())
        return refused

    def _over_cap(self) -> Refused | None:
        """Refuse one more subscription or COUNT if the connection has as many as it may have."""
        limit = self.relay.options.nostr_max_subscriptions
        if limit is None or len(self.subscriptions) + len(self._counts or ()) < limit:
            return None
        return refusal.TOO_MANY_SUBSCRIPTIONS(limit)

    # CLOSE

    def close(self, id_: str) -> None:
        """End a subscription and a COUNT of this id, if there are such, without a word."""
        self._end(id_)
        self.end_count(id_)
        self.start_waiting()

    def close_subscription(self, id_: str) -> None:
        """End a subscription without a word."""
        self._end(id_)
        self.start_waiting()

    def close_with(self, id_: str, refused: Refused) -> None:
        """End a subscription, and tell the client why."""
        subscription = self.subscriptions.get(id_)
        if subscription is not None:
            self._end(id_)
            self.connection.reply(self.relay.refuse_query(self.connection, subscription.id_json, refused))

    def leave(self) -> None:
        """End everything: the connection is over."""
        self.relay.counts.queries_waiting -= len(self._waiting or ())
        self._waiting = None
        for id_ in list(self.subscriptions):
            self._end(id_)
        for id_ in list(self._counts or ()):
            self.end_count(id_)
        self.relay.waiting.pop(self._member, None)

    def drain(self) -> None:
        """End everything, and say that the relay is shutting down."""
        for id_ in list(self.subscriptions):
            self.close_with(id_, _SHUTTING_DOWN)
        for id_, counting in list((self._counts or {}).items()):
            self.end_count(id_)
            counting.refuse(_SHUTTING_DOWN)

    def _end(self, id_: str) -> None:
        subscription = self.subscriptions.pop(id_, None)
        if subscription is None:
            return
        self.relay.fanout.remove(subscription)
        self.relay.quotas.subscriptions.release(self.connection.client, values=subscription.values)
        scan = None if self._scans is None else self._scans.pop(id_, None)
        if scan is not None:
            self.cancel(scan)
        subscription.end()
