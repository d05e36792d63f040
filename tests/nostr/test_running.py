"""The Nostr relay in one process: its path, what its options become, its processes, its end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.support.children import FakeChild, FakeChildren
from tests.support.nostr_relay import CLIENT, FakePeer, as_dict, event
from tests.support.nostr_settings import settings
from tests.support.services import services
from twisted.internet.task import Clock

from pyryrelay.guard import Quota
from pyryrelay.nostr import running
from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.options.types.rules import RetentionRule
from pyryrelay.nostr.running import Nostr, reader_config, share_of, writer_config
from pyryrelay.nostr.serving.relay import TICK_S
from pyryrelay.nostr.storage import interface
from pyryrelay.nostr.workers.wire import Call, Ready, ToVerifier, ToWriter, VerifierConfig, Verify
from pyryrelay.protocol import ActionError, HttpRequest, Page, Request, Rule


class Mounted:
    """A protocol in a relay whose children are fakes."""

    def __init__(self, **options: Any) -> None:
        self.children = FakeChildren()
        self.clock = Clock()
        start_child: Any = self.children.services.start_child
        self.settings = made_of = settings(**options)
        made = replace(
            services(self.clock),
            start_child=start_child,
            start_shared=lambda name, received, ended: start_child(
                NOSTR.shared_children(made_of)[name], received, ended
            ),
        )
        built = NOSTR.build(self.settings, made)
        assert isinstance(built, Nostr)
        self.nostr = built
        self.nostr.configure(self.settings)


def test_the_path_leads_to_the_application() -> None:
    """One path, one application."""
    routes = Mounted(nostr_path="/nostr").nostr.routes
    assert {path: application.name for path, application in routes.items()} == {"/nostr": "nostr"}


def test_nothing_is_started_before_the_start() -> None:
    """Building and configuring starts no process; the relay is not healthy then."""
    mounted = Mounted()
    assert mounted.children.started == []
    assert not mounted.nostr.is_healthy()
    assert mounted.nostr.stop() is None


def test_the_start_starts_all_processes() -> None:
    """A writer, readers and verifiers; it is healthy once the writer has opened the store."""
    mounted = Mounted(nostr_readers=2, nostr_verifiers=1)
    mounted.nostr.start()
    assert [child.arguments[-1] for child in mounted.children.started] == ["writer", "reader", "reader", "verifier"]
    assert not mounted.nostr.is_healthy()
    mounted.children.started[0].answer(Ready(5, 3))
    assert mounted.nostr.is_healthy()
    assert mounted.nostr.health() == {"nostr_events": 3, "nostr_subscriptions": 0}


def test_what_was_sent_before_the_start_is_verified() -> None:
    """Messages wait for the start, and the processes are there then: nothing is refused."""
    mounted = Mounted()
    peer = FakePeer()
    session = mounted.nostr.routes["/"].opened(peer, Request("/", {}, CLIENT))
    session.messages([(json.dumps(["EVENT", as_dict(event("early", created_at=int(time.time())))]).encode(), False)])
    mounted.nostr.start()
    mounted.clock.advance(0)
    (verifier,) = [child for child in mounted.children.started if child.arguments[-1] == "verifier"]
    assert [type(message) for message in verifier.take(ToVerifier)] == [VerifierConfig, Verify]
    assert peer.take() == []


def rules(found: Sequence[Rule]) -> dict[str, str]:
    """Return the states of rules by name."""
    return {rule.what: rule.state for rule in found}


def test_what_operators_are_told() -> None:
    """About a client and a key, from what it has sent: nothing is known of another one."""
    mounted = Mounted(nostr_event_quota=Quota.parse("1/hour"))
    nostr = mounted.nostr
    nostr.start()
    mounted.children.started[0].answer(Ready(5, 3))
    session = nostr.routes["/"].opened(FakePeer(), Request("/", {}, CLIENT))
    for text in ("one", "two"):
        sent = as_dict(event(text, created_at=int(time.time())))
        session.messages([(json.dumps(["EVENT", sent]).encode(), False)])
    explained = nostr.explain_client(CLIENT)
    assert rules(explained)["quota of events"] == "refuses"
    assert "EVENT because of rate_limit: 1" in explained[0].detail
    named = nostr.explain_name(event("one").pubkey)
    assert named is not None
    assert named.name.startswith("public key npub1")
    assert rules(named.rules)["quota of events of the author"] == "ok"
    assert nostr.explain_name("192.0.2.7") is None
    with pytest.raises(ActionError):
        nostr.explain_name("npub1")


def test_an_unhealthy_relay_says_so() -> None:
    """Before its store is open, that is why events are refused."""
    assert rules(Mounted().nostr.explain_client(CLIENT))["store"] == "refuses"


@pytest.mark.parametrize("role", ["reader", "verifier"])
def test_it_is_not_healthy_without_readers_or_verifiers(role: str) -> None:
    """Where none of them can be started, clients are refused; one that only ended is replaced before that."""
    mounted = Mounted(nostr_readers=1, nostr_verifiers=1)
    mounted.nostr.start()
    mounted.children.started[0].answer(Ready(5, 3))

    def end() -> None:
        found = [child for child in mounted.children.started if child.arguments[-1] == role]
        found[-1].end("could not be started")

    end()
    assert mounted.nostr.is_healthy()
    mounted.clock.advance(0)
    end()
    assert not mounted.nostr.is_healthy()
    mounted.clock.advance(1)
    assert mounted.nostr.is_healthy()


class Shared:
    """A worker of two, whose children are fakes: those that all workers share, and its own."""

    def __init__(self, index: int = 0, *, has_hosts: bool = False, **options: Any) -> None:
        self.children = FakeChildren()
        self.clock = Clock()
        self.asked: list[str] = []
        start_child: Any = self.children.services.start_child

        def start_shared(name: str, received: Any, ended: Any) -> Any:
            self.asked.append(name)
            return start_child([name], received, ended)

        made = replace(
            services(self.clock),
            start_child=start_child,
            start_shared=start_shared,
            worker_index=index,
            worker_count=2,
            share_quotas=(lambda tables: lambda: None) if has_hosts else None,
        )
        built = NOSTR.build(settings(**options), made)
        assert isinstance(built, Nostr)
        self.nostr = built
        self.nostr.configure(settings(**options))

    @property
    def roles(self) -> list[str]:
        """What was started, in order."""
        return [child.arguments[-1] for child in self.children.started]

    def child(self, role: str) -> FakeChild:
        """Return the last child of a role."""
        return next(child for child in reversed(self.children.started) if child.arguments[-1] == role)


@pytest.mark.parametrize(
    ("has_hosts", "said"),
    [(False, ""), (True, "; other workers and members of the cluster have spent 2: full again in 2 h")],
)
def test_what_a_worker_says_about_an_author(has_hosts: bool, said: str) -> None:
    """What other workers have spent is spent; in a cluster it says so, as it may have been spent at other hosts."""
    worker = Shared(has_hosts=has_hosts, nostr_pubkey_quota=Quota.parse("1/hour burst 3"))
    key = event("one").pubkey
    worker.nostr.relay.charged_elsewhere("author", [bytes.fromhex(key)], [2])
    named = worker.nostr.explain_name(key)
    assert named is not None
    (rule,) = [rule for rule in named.rules if rule.what == "quota of events of the author"]
    assert rule.detail == f"1 of 3 left, 1/hour burst 3 (--nostr-pubkey-quota){said}"


def test_a_worker_serves_when_it_hears_of_all_that_is_stored() -> None:
    """Readers and verifiers are started with the database that the writer names, divided among the workers."""
    worker = Shared(nostr_readers=3, nostr_verifiers=1, nostr_database="sqlite::memory:")
    worker.nostr.start()
    assert worker.roles == ["nostr-exchange", "nostr-writer"]
    peer = FakePeer()
    session = worker.nostr.routes["/"].opened(peer, Request("/", {}, CLIENT))
    session.messages([(b'["REQ","s",{"kinds":[1]}]', False)])
    assert not worker.nostr.is_healthy()
    worker.child("nostr-writer").answer(Ready(5, 3, "sqlite:/found"))
    assert worker.roles[2:] == ["reader", "reader", "verifier"]
    assert b"sqlite:/found" in worker.child("reader").bodies[0]
    assert worker.nostr.is_healthy()
    assert worker.nostr.health() == {"nostr_events": 3, "nostr_subscriptions": 1}
    worker.child("nostr-writer").end("the connection has ended")
    worker.children.clock.advance(0)
    worker.clock.advance(0)
    assert not worker.nostr.is_healthy()


def test_bounds_of_the_whole_relay_are_divided() -> None:
    """Memory and queues, so that all workers together stay within them; what is off stays off."""
    options = settings(nostr_outbox_total_bytes=1001, nostr_write_queue=None, nostr_readers=1)
    one = share_of(options, 2)
    assert (one.nostr_outbox_total_bytes, one.nostr_write_queue, one.nostr_readers) == (501, None, 1)
    assert share_of(options, 1) is options
    worker = Shared(nostr_write_queue=100)
    assert worker.nostr.relay.congestion.max_queue == 50
    worker.nostr.configure(settings(nostr_write_queue=60))
    assert worker.nostr.relay.congestion.max_queue == 30


def test_one_worker_tells_how_much_is_stored() -> None:
    """The figures of all workers are summed."""
    worker = Shared(index=1)
    worker.nostr.start()
    worker.child("nostr-writer").answer(Ready(5, 3, "sqlite:/found"))
    assert worker.nostr.health() == {"nostr_events": 0, "nostr_subscriptions": 0}
    worker.clock.advance(60)
    assert not [one for one in worker.child("nostr-writer").take(ToWriter) if isinstance(one, Call)]


def test_a_worker_lets_go_of_everything_at_its_end() -> None:
    """Also before the store was open."""
    for is_open in (False, True):
        worker = Shared(index=1)
        worker.nostr.start()
        if is_open:
            worker.child("nostr-writer").answer(Ready(5, 3, "sqlite:/found"))
        stopping = worker.nostr.stop()
        assert stopping is not None
        assert all(child.is_closed for child in worker.children.started)
        assert not stopping.called
        for child in worker.children.started:
            child.end("")
        assert stopping.called


def test_a_worker_takes_its_store_back() -> None:
    """If the process that had taken over has died, it connects again, and serves those who are still there."""
    worker = Shared()
    worker.nostr.start()
    worker.child("nostr-writer").answer(Ready(5, 3, "sqlite:/found"))
    worker.nostr.hand_over(0.0)
    for child in list(worker.children.started):
        child.end("")
    worker.nostr.take_back()
    worker.clock.advance(0)
    assert worker.roles.count("nostr-writer") == 2
    worker.child("nostr-writer").answer(Ready(6, 4, "sqlite:/found"))
    assert worker.nostr.is_healthy()
    assert not worker.nostr.relay.is_draining


def test_the_clock_of_the_relay_runs_until_the_stop() -> None:
    """It ticks a few times a second, and not after the end."""
    mounted = Mounted()
    mounted.nostr.start()
    ticks: list[None] = []
    mounted.nostr.relay.tick = lambda: ticks.append(None)  # type: ignore[method-assign]
    for _ in range(4):
        mounted.clock.advance(TICK_S)
    assert len(ticks) == 4
    mounted.nostr.stop()
    for _ in range(4):
        mounted.clock.advance(TICK_S)
    assert len(ticks) == 4


def test_the_stop_ends_all_processes() -> None:
    """It is over when the last one has ended."""
    mounted = Mounted()
    mounted.nostr.start()
    done: list[None] = []
    stopping = mounted.nostr.stop()
    assert stopping is not None
    stopping.addCallback(done.append)
    assert all(child.is_closed for child in mounted.children.started)
    assert done == []
    for child in mounted.children.started:
        child.end("")
    assert done == [None]


def test_a_drain_without_events_is_over_at_once() -> None:
    """Open subscriptions were told."""
    mounted = Mounted()
    mounted.nostr.start()
    peer = FakePeer()
    session = mounted.nostr.routes["/"].opened(peer, Request("/", {}, CLIENT))
    session.messages([(b'["REQ","s",{"limit":0}]', False)])
    peer.take()
    done: list[None] = []
    draining = mounted.nostr.drain()
    assert draining is not None
    draining.addCallback(done.append)
    assert done == [None]
    assert peer.take() == [["CLOSED", "s", "error: the relay is shutting down"]]


def test_a_reload_reaches_the_document_and_the_processes() -> None:
    """What is advertised is what is enforced, and the writer learns the new retention."""
    mounted = Mounted(nostr_max_tags=5)
    mounted.nostr.start()

    def max_tags() -> object:
        request = HttpRequest("GET", "/", {"accept": ["application/nostr+json"]}, CLIENT)
        page = mounted.nostr.routes["/"].http(request)
        assert isinstance(page, Page)
        return json.loads(page.body)["limitation"].get("max_event_tags")

    assert max_tags() == 5
    sent = len(mounted.children.started[0].bodies)
    mounted.nostr.configure(replace(mounted.settings, nostr_max_tags=6, nostr_max_events=1000))
    assert max_tags() == 6
    assert len(mounted.children.started[0].bodies) == sent + 1


def test_browsers_get_a_page() -> None:
    """With the name of the relay."""
    mounted = Mounted(nostr_name="Quayside")
    page = mounted.nostr.routes["/"].http(HttpRequest("GET", "/", {}, CLIENT))
    assert isinstance(page, Page)
    assert b"Quayside" in page.body


def test_a_database_in_memory_is_a_temporary_one_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share one file."""
    monkeypatch.setattr(running, "temporary_url", lambda: "sqlite:/tmp/shared")
    mounted = Mounted(nostr_database="sqlite::memory:")
    mounted.nostr.start()
    assert all(b"sqlite:/tmp/shared" in child.bodies[0] for child in mounted.children.started)


def test_the_writer_is_told_what_to_keep() -> None:
    """Rules, limits, spared keys and durability."""
    made = settings(
        nostr_retain=(RetentionRule(frozenset({1}), 60, 9),),
        nostr_max_events=5,
        nostr_max_database_bytes=1024**2,
        nostr_retain_pubkey=frozenset({"ab" * 32}),
        nostr_durability="relaxed",
    )
    config = writer_config(made, "sqlite:x")
    assert not config.is_durable
    assert config.retention == interface.Retention(
        rules=(interface.RetentionRule(frozenset({1}), 60, 9),),
        max_events=5,
        max_bytes=1024**2,
        spared=frozenset({b"\xab" * 32}),
    )
    assert reader_config(settings(nostr_query_slice_ms=5), "sqlite:x").slice_s == 0.005


def test_it_holds_nothing() -> None:
    """Any process serves a peer, so there is nothing to give up either."""
    nostr = Mounted().nostr
    assert list(nostr.held_keys()) == []
    assert not nostr.holds("anything")
    nostr.evict("anything")
    nostr.move("anything")
    assert not nostr.holds("anything")
