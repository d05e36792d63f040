"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.command import Runner
from tests.support.fake_relay import FakeRelay, serving_relay


@pytest.fixture
def relay() -> Iterator[FakeRelay]:
    """An admin API that answers what the test has set."""
    with serving_relay() as relay:
        yield relay


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, relay: FakeRelay) -> Runner:
    """Runs a command against the relay."""
    return Runner(monkeypatch, relay)
