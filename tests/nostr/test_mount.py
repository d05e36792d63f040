"""The Nostr relay as it is mounted: its path, what its options become, its processes, its end."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.children import FakeChildren
from tests.support.nostr_relay import CLIENT, FakePeer
from tests.support.services import services
from twisted.internet.task import Clock

from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import Quota
from pyryrelay.nostr import mount
from pyryrelay.nostr.application import REFUSAL_WORDS
from pyryrelay.nostr.mount import NOSTR, Nostr, database_of, database_problem, reader_config, writer_config
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.options.types import RetentionRule
from pyryrelay.nostr.serving.relay import TICK_S
from pyryrelay.nostr.storage import interface
from pyryrelay.nostr.storage.sqlite.database import Lock, open_for_writing
from pyryrelay.nostr.workers.wire import Ready
from pyryrelay.protocol import HttpRequest, Page, Request


@dataclass(frozen=True, kw_only=True)
class Settings(NostrOptions, SharedSettings):
    """The settings of a relay that speaks nothing else."""


def settings(**options: Any) -> Settings:
    """Return the settings of a relay that speaks Nostr."""
    return replace(Settings(nostr=True, listen=("tcp:8080:interface=127.0.0.1",)), **options)


class Mounted:
    """A protocol in a relay whose children are fakes."""

    def __init__(self, **options: Any) -> None:
        self.children = FakeChildren()
        self.clock = Clock()
        start_child: Any = self.children.services.start_child
        made = replace(services(self.clock), start_child=start_child)
        self.settings = settings(**options)
        self.nostr: Nostr = NOSTR.build(self.settings, made)
        self.nostr.configure(self.settings)


def test_it_is_off_unless_it_is_asked_for() -> None:
    """The default relay speaks pyry alone."""
    assert not NOSTR.is_on(Settings())
    assert NOSTR.is_on(settings())


def test_the_path_leads_to_the_application() -> None:
    """One path, one application."""
    routes = Mounted(nostr_path="/nostr").nostr.routes
    assert {path: application.name for path, application in routes.items()} == {"/nostr": "nostr"}


def test_the_routes_policy_is_that_of_the_options() -> None:
    """Caps, quotas, sizes and compression."""
    made = settings(
        max_nostr_connections=7,
        nostr_message_quota=Quota.parse("5/s"),
        nostr_max_message_bytes=2048,
        nostr_deflate="no-context",
    )
    policy = NOSTR.routes(made)["nostr"]
    assert (policy.max_connections, policy.max_message_bytes, policy.deflate) == (7, 2048, "no-context")
    assert policy.throttle == made.nostr_throttle()
    assert ("Access-Control-Allow-Origin", "*") in policy.answer_fields
    assert NOSTR.routes(settings())["nostr"].deflate is None


def test_the_kind_says_what_it_uses() -> None:
    """Words of refusals, and no findings of a preflight."""
    assert NOSTR.name == "nostr"
    assert NOSTR.refusal_words == REFUSAL_WORDS
    assert NOSTR.preflight(settings(), Path()) == ()


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


def test_a_relative_database_starts_at_the_base() -> None:
    """An absolute one, and one in memory, do not."""
    base = Path("/base")
    assert database_of(settings(nostr_database="sqlite:a.sqlite"), base) == "sqlite:/base/a.sqlite"
    assert database_of(settings(nostr_database="sqlite:/x/a.sqlite"), base) == "sqlite:/x/a.sqlite"
    assert database_of(settings(nostr_database="sqlite::memory:"), base) == "sqlite::memory:"


def test_a_database_in_memory_is_a_temporary_one_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share one file."""
    monkeypatch.setattr(mount, "temporary_url", lambda: "sqlite:/tmp/shared")
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


# What prevents the start


def test_a_usable_database_is_no_problem(tmp_path: Path) -> None:
    """Neither a new one, nor one in memory, and nothing is created by looking."""
    assert NOSTR.problems(settings(), tmp_path) == []
    assert database_problem("sqlite::memory:") is None
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_a_problem(tmp_path: Path) -> None:
    """The fix is to create it."""
    (line,) = NOSTR.problems(settings(nostr_database="sqlite:missing/a.sqlite"), tmp_path)
    assert line == f"--nostr-database: '{tmp_path}/missing' is not a directory: create it"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    """The database cannot be created there."""
    tmp_path.chmod(0o500)
    (line,) = NOSTR.problems(settings(), tmp_path)
    assert "cannot be written" in line


def test_a_file_of_another_program_is_a_problem(tmp_path: Path) -> None:
    """It is not overwritten."""
    database = sqlite3.connect(tmp_path / "pyryrelay-nostr.sqlite")
    database.execute("CREATE TABLE other (x)")
    database.close()
    (line,) = NOSTR.problems(settings(), tmp_path)
    assert "belongs to another program" in line


def test_a_damaged_file_is_a_problem(tmp_path: Path) -> None:
    """Damage is found before the relay starts."""
    path = tmp_path / "x.sqlite"
    open_for_writing(path).close()
    with path.open("r+b") as file:
        file.seek(2048)
        file.write(b"\xff" * 4096)
    problem = database_problem(f"sqlite:{path}")
    assert problem is not None
    assert "damaged" in problem


def test_a_file_of_another_relay_is_a_conflict(tmp_path: Path) -> None:
    """Only the start minds that another relay has the database."""
    path = tmp_path / "x.sqlite"
    options = settings(nostr_database="sqlite:x.sqlite")
    assert NOSTR.conflicts(options, tmp_path) == ()
    assert list(tmp_path.iterdir()) == []
    open_for_writing(path).close()
    lock = Lock(path)
    (conflict,) = NOSTR.conflicts(options, tmp_path)
    assert conflict.startswith("--nostr-database: ")
    assert "in use by another process" in conflict
    assert NOSTR.problems(options, tmp_path) == []
    lock.release()
    assert NOSTR.conflicts(options, tmp_path) == ()
    assert NOSTR.conflicts(settings(nostr_database="sqlite::memory:"), tmp_path) == ()


def test_a_missing_library_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line with the command that installs it."""
    monkeypatch.setattr(mount, "find_spec", lambda name: None)
    (line,) = NOSTR.problems(settings(), tmp_path)
    assert line.endswith("pip install 'pyryrelay[nostr]'")


def test_contradictions_are_problems_and_doubts_are_warnings(tmp_path: Path) -> None:
    """Both come from the checks of the options."""
    public = settings(listen=("tcp:8080",), nostr_write="auth")
    assert any("--nostr-url" in line for line in NOSTR.problems(public, tmp_path))
    assert any("--nostr-url" in line for line in NOSTR.warnings(public))
    assert NOSTR.warnings(settings()) == []
