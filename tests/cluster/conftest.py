"""Fixtures of the tests of clusters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.redis_server import RedisServer, running


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running server. Mark the test with `tests.support.redis_server.needs_redis`."""
    server = RedisServer(tmp_path / "redis")
    with running(server):
        yield server
