"""The metrics of the Nostr relay: complete from the first scrape, monotonic, and without anything from clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.nostr_relay import World, as_dict, event
from tests.support.scrape import Samples, key, samples_of
from twisted.internet.defer import Deferred

from pyryrelay.nostr.messages import SENT_VERBS, VERBS
from pyryrelay.nostr.observe.figures import StoreFigures
from pyryrelay.nostr.observe.metrics import PREFIX, NostrCollector, figures
from pyryrelay.nostr.policies.refusal import CLOSED_WORDS
from pyryrelay.nostr.serving.counts import ABORTS, AUTH_OUTCOMES, EVENT_OUTCOMES
from pyryrelay.observe.metrics import exposition

SECRET = "a-text-that-must-stay-secret"
LABELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "messages_received_total": ("verb", VERBS),
    "messages_sent_total": ("verb", SENT_VERBS),
    "events_total": ("outcome", EVENT_OUTCOMES),
    "events_stored": ("class", ("regular", "replaceable", "addressable")),
    "closed_total": ("reason", CLOSED_WORDS),
    "query_aborted_total": ("reason", ABORTS),
    "auth_total": ("outcome", AUTH_OUTCOMES),
    "rate_limited_total": (
        "limit",
        (
            *(
                "events",
                "events_of_key",
                "repeated_content",
                "queries",
                "subscriptions",
                "open_values",
                "authentications",
            ),
            "invalid_messages",
        ),
    ),
}
SINGLE = (
    *("subscriptions", "queries_running", "queries_waiting", "query_work_units_total", "write_queue"),
    *("fanout_deliveries_total", "outbox_bytes", "slow_clients_closed_total", "authed_connections", "exempt_total"),
    *("expired_total", "deleted_total", "database_bytes", "reload_failures_total"),
)
HISTOGRAMS = ("write_batch_events", "write_seconds", "verify_seconds")


class Metrics:
    """A relay that a test plays with, and the page with its metrics."""

    def __init__(self) -> None:
        self.world = World()
        self.failures = 0
        self.answer: Deferred[object] = Deferred()
        self.figures = StoreFigures(lambda: self.answer, self.world.clock.callLater, self)
        self._scrape: Callable[[], bytes] = exposition(
            [NostrCollector(self.world.relay, self.figures, lambda: self.failures)]
        )

    def store_opened(self, events: int, size_bytes: int, version: int) -> None:
        """Log nothing."""

    def text(self) -> str:
        """Return one scrape."""
        return self._scrape().decode()

    def samples(self) -> Samples:
        """Return one parsed scrape."""
        return samples_of(self.text())

    def value(self, name: str, **labels: str) -> float:
        """Return one sample."""
        return self.samples()[key(f"{PREFIX}{name}", labels)]


@pytest.fixture
def metrics() -> Metrics:
    """Metrics to which nothing has happened yet."""
    return Metrics()


def test_everything_exists_from_the_first_scrape(metrics: Metrics) -> None:
    """Every metric of the specification has all its label values, at 0, before anything has happened."""
    samples = metrics.samples()
    for name, (label, values) in LABELS.items():
        found = {dict(labels)[label]: value for (found, labels), value in samples.items() if found == PREFIX + name}
        assert found == dict.fromkeys(values, 0), name
    for name in SINGLE:
        assert samples[key(PREFIX + name, {})] == 0, name
    for name in HISTOGRAMS:
        assert samples[key(f"{PREFIX}{name}_count", {})] == 0, name
    for kind in ("first", "whole"):
        assert samples[key(f"{PREFIX}query_seconds_count", {"kind": kind})] == 0
    assert samples[key(f"{PREFIX}subscriptions_per_connection_gcount", {})] == 0


def test_nothing_but_these_exists(metrics: Metrics) -> None:
    """No metric has another name, so that the tests above have seen all of them."""
    known = {*LABELS, *SINGLE, *HISTOGRAMS, "query_seconds", "subscriptions_per_connection"}
    found = {name.removeprefix(PREFIX) for name, _ in metrics.samples()}
    bases = {name for name in found if not name.endswith(("_bucket", "_count", "_sum", "_gcount", "_gsum", "_created"))}
    assert bases <= known
    assert all(any(name.startswith(one) for one in known) for name in found)


def test_traffic_is_counted(metrics: Metrics) -> None:
    """Events, queries and deliveries change the counters that are named after them."""
    client = metrics.world.client()
    client.send(["REQ", "s", {"kinds": [1]}])
    metrics.world.readers.running[0].answer()
    client.send(["EVENT", as_dict(event(SECRET))])
    client.send(["EVENT", as_dict(event(SECRET))])
    metrics.world.turn()
    assert metrics.value("messages_received_total", verb="REQ") == 1
    assert metrics.value("messages_received_total", verb="EVENT") == 2
    assert metrics.value("events_total", outcome="stored") == 1
    assert metrics.value("events_total", outcome="duplicate") == 1
    assert metrics.value("subscriptions") == 1
    assert metrics.value("fanout_deliveries_total") == 1
    assert metrics.value("query_seconds_count", kind="whole") == 1
    assert metrics.value("query_work_units_total") == 1


def test_refusals_are_counted_by_their_word(metrics: Metrics) -> None:
    """What is refused is counted under the word of its refusal, and quotas once more by what they are about."""
    world = metrics.world
    client = world.client()
    client.send(["EVENT", as_dict(event(sig="0" * 128))])
    client.send(["REQ", "s", {"kinds": [4]}])
    assert metrics.value("events_total", outcome="signature") == 1
    assert metrics.value("closed_total", reason="private") == 1
    world.relay.counts.events["rate_limit"] += 3
    world.relay.counts.closed["subscriptions"] += 2
    world.relay.counts.invalid_closed += 1
    metrics.failures = 4
    assert metrics.value("rate_limited_total", limit="events") == 3
    assert metrics.value("rate_limited_total", limit="subscriptions") == 2
    assert metrics.value("rate_limited_total", limit="invalid_messages") == 1
    assert metrics.value("reload_failures_total") == 4


def test_connections_by_their_subscriptions(metrics: Metrics) -> None:
    """The distribution is that of this moment: connections leave it when they end."""
    clients = [metrics.world.client() for _ in range(3)]
    for number in range(3):
        clients[0].send(["REQ", str(number), {"kinds": [1]}])
    clients[1].send(["REQ", "s", {"kinds": [1]}])
    buckets = [metrics.value("subscriptions_per_connection_bucket", le=le) for le in ("0.0", "1.0", "2.0", "4.0")]
    assert buckets == [1, 2, 2, 3]
    assert metrics.value("subscriptions_per_connection_gsum") == 4
    clients[0].session.closed(1000, "")
    assert metrics.value("subscriptions_per_connection_gcount") == 2
    assert metrics.value("subscriptions_per_connection_gsum") == 1


def test_figures_of_the_store_are_those_that_it_told_last(metrics: Metrics) -> None:
    """Stored events by class and the size of the database come from the store."""
    metrics.figures.ready()
    metrics.answer.callback({"events": {"regular": 5, "replaceable": 2}, "database_bytes": 4096, "version": 1})
    assert metrics.value("events_stored", **{"class": "regular"}) == 5
    assert metrics.value("database_bytes") == 4096
    metrics.figures.stop()


def test_nothing_of_clients_is_a_label(metrics: Metrics) -> None:
    """Neither content nor verbs, kinds or ids of clients appear in a scrape, and the series stay the same."""
    before = set(metrics.samples())
    client = metrics.world.client()
    client.send([SECRET, SECRET])
    client.send(["REQ", SECRET, {"#t": [SECRET]}])
    for kind in (7, 12345, 30001, 20001):
        client.send(["EVENT", as_dict(event(SECRET, kind=kind, tags=[["t", SECRET]]))])
    client.send(["AUTH", as_dict(event(SECRET))])
    assert SECRET not in metrics.text()
    assert "12345" not in metrics.text()
    assert set(metrics.samples()) == before


def test_figures() -> None:
    """What operators watch has fixed names, and follows the counters and the store."""
    metrics = Metrics()
    before = figures(metrics.world.relay, metrics.figures)
    assert not any(before.values())
    metrics.figures.events = {"regular": 2, "replaceable": 3}
    metrics.figures.database_bytes = 4096
    metrics.world.relay.counts.events["stored"] += 1
    after = figures(metrics.world.relay, metrics.figures)
    assert (after["events"], after["database_bytes"], after["events_total.stored"]) == (5, 4096, 1)
    assert {name.partition(".")[2] for name in after if name.startswith("events_total.")} == {*EVENT_OUTCOMES}
    assert {name.partition(".")[2] for name in after if name.startswith("closed_total.")} == {*CLOSED_WORDS}
