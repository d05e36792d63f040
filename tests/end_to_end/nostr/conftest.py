"""Relays that speak Nostr: one that is shared, and others with options of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import GENEROUS, LOCALHOST, Launch, Relay, assert_clean, http_get

CORE = {"test_protocol"}
"""What every interpreter and reactor must pass; the rest runs once."""
NOSTR = ("--nostr", "--no-pyry")
OPEN = (*NOSTR, *GENEROUS, "--nostr-preset", "open")
"""A relay without quotas; its bounds of size, memory and time stay."""


def restarted(former: Relay, options: Sequence[str]) -> Relay:
    """Start a relay in the folder and on the port of one that has ended."""
    relay = Relay(former.directory, options, Launch(listen=(f"tcp:{former.port}:interface={LOCALHOST}",)))
    relay.port = former.port
    return relay


def children(relay: Relay, role: str) -> list[int]:
    """Return the processes that work for a relay in this role."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (path / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes().split(b"\0")
            if int(fields[1]) == relay.process.pid and b"pyryrelay.nostr.workers.child" in words:
                found += [int(path.name)] * (role.encode() in words)
    return found


def health(relay: Relay) -> dict[str, Any]:
    """Return what /healthz says, whatever its status."""
    found: dict[str, Any] = json.loads(http_get(relay.admin_port, "/healthz")[1])
    return found


def subscriptions(relay: Relay) -> int:
    """Return how many subscriptions are open."""
    return int(health(relay)["nostr_subscriptions"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is not in `CORE`, so that the matrix can leave it out."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.stem not in CORE:
            item.add_marker("thorough")


@pytest.fixture
def start_nostr(start_relay: StartRelay) -> StartRelay:
    """Start Nostr relays with options of the test's own; their quotas are the defaults."""

    def start(*options: str, launch: Launch = Launch()) -> Relay:  # noqa: B008
        return start_relay(*NOSTR, *options, launch=launch)

    return start


@pytest.fixture(scope="session")
def shared_nostr_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay without quotas, that takes events of all times, for many tests."""
    timeless = ("--nostr-reject-older", "off", "--nostr-reject-newer", "off")
    relay = Relay(tmp_path_factory.mktemp("shared-nostr"), (*OPEN, *timeless))
    yield relay
    relay.stop()


@pytest.fixture
def relay(shared_nostr_relay: Relay) -> Iterator[Relay]:
    """The shared relay, whose log must be clean after each test."""
    yield shared_nostr_relay
    assert_clean(shared_nostr_relay.log())
