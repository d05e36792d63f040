"""Requests that ask for no upgrade: pages, and answers of an application."""

from __future__ import annotations

import pytest
from tests.support.asking import HEALTH, PAGES
from tests.support.harness import ALICE, DATE, World, client_of, request_head

from pyryrelay.guard import ClientAddress
from pyryrelay.http.message import parse_head
from pyryrelay.http.plain_requests import answer_page_request

OK = b"HTTP/1.1 200 OK" + DATE + b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"


def ask_page(world: World, raw: bytes, client: ClientAddress | None = None, *, is_local: bool = False) -> bytes:
    """Ask for what a head names."""
    return answer_page_request(world.context, parse_head(raw), client or client_of(ALICE), is_local=is_local)


def test_a_page_is_answered_with_its_fields_and_body() -> None:
    """A page is answered with its fields and body, and HEAD without the body."""
    world = World()
    assert ask_page(world, HEALTH) == OK + b"ok"
    assert ask_page(world, HEALTH.replace(b"GET", b"HEAD")) == OK
    assert world.observer.refusals == []


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [(HEALTH.replace(b"GET", b"POST"), 405, "bad_method"), (request_head("/nowhere"), 404, "unknown_path")],
)
def test_other_requests_off_the_paths_of_applications(raw: bytes, status: int, reason: str) -> None:
    """Pages accept GET and HEAD, and other paths are not found."""
    world = World()
    assert int(ask_page(world, raw).split()[1]) == status
    assert world.observer.refusals == [(None, status, reason, ALICE)]


def test_pages_cost_a_token_from_elsewhere() -> None:
    """A page costs a token of the quota of requests, except for this machine."""
    world = World(gate=PAGES)
    for _ in range(5):
        assert ask_page(world, HEALTH, is_local=True) == OK + b"ok"
    statuses = [int(ask_page(world, HEALTH).split()[1]) for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert int(ask_page(world, request_head("/nowhere"), is_local=True).split()[1]) == 429
