"""The Nostr relay in one process: its path, what its options become, its processes, its end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.support.children import FakeChildren
from tests.support.nostr_relay import CLIENT, FakePeer
from tests.support.nostr_settings import settings
from tests.support.services import services
from twisted.internet.task import Clock

from pyryrelay.nostr import running
from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.options.types.rules import RetentionRule
from pyryrelay.nostr.running import Nostr, reader_config, writer_config
from pyryrelay.nostr.serving.relay import TICK_S
from pyryrelay.nostr.storage import interface
from pyryrelay.nostr.workers.wire import Ready
from pyryrelay.protocol import HttpRequest, Page, Request


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
    assert not nostr.holds("anything")
