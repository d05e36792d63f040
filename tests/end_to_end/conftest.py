"""Relays for the tests of this folder: one that is shared, and others with options of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.end_to_end.harness import GENEROUS, NEVER_S, Launch, Relay, assert_clean
from tests.support.redis_server import RedisServer, running

CORE = {"test_client", "test_http", "test_listeners", "test_relaying", "test_shutdown", "test_start"}
"""What every interpreter and reactor must pass; the rest runs once."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is not in `CORE`, so that the matrix can leave it out."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.stem not in CORE:
            item.add_marker("thorough")


class StartRelay(Protocol):
    """Start a relay that is stopped and checked when the test ends."""

    def __call__(self, *options: str, launch: Launch = ...) -> Relay: ...


@pytest.fixture
def start_relay(tmp_path: Path) -> Iterator[StartRelay]:
    """Start relays with options of the test's own."""
    relays: list[Relay] = []

    def start(*options: str, launch: Launch = Launch()) -> Relay:  # noqa: B008
        relays.append(Relay(tmp_path / f"relay-{len(relays)}", options, launch))
        return relays[-1]

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [stack.callback(relay.stop) for relay in relays])
        yield start


@pytest.fixture(scope="session")
def shared_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for many tests, with generous quotas and timeouts that a busy machine does not reach."""
    relay = Relay(tmp_path_factory.mktemp("shared"), GENEROUS, Launch(times={"head_timeout_s": NEVER_S}))
    yield relay
    relay.stop()


@pytest.fixture
def relay(shared_relay: Relay) -> Iterator[Relay]:
    """The shared relay, whose log must be clean after each test."""
    yield shared_relay
    assert_clean(shared_relay.log())


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis server. Mark the test with `tests.support.redis_server.needs_redis`."""
    server = RedisServer(tmp_path / "redis")
    with running(server):
        yield server
