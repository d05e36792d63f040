"""One Redis of the directory; `test_directory` tests it as a whole."""

from __future__ import annotations

import pytest
from tests.support.capture import captured
from tests.support.instances import World
from tests.support.resp import RespClient, needs_resp_server
from twisted.internet.defer import fail

from pyryrelay.cluster.directory.shard import RENEW_S, WARN_S
from pyryrelay.cluster.redis.interface import AnswerError

pytestmark = needs_resp_server


def test_the_lease_is_renewed_each_few_seconds(client: RespClient) -> None:
    """It counts from when its renewal was sent, and a quiet instance makes few calls."""
    world = World(client)
    a = world.start("a:1")
    world.pass_time(20.0)
    (shard,) = a.directory.shards
    assert 20.0 / RENEW_S <= len(a.redis.calls) <= 20.0 / RENEW_S + 2
    assert shard.leased_until - (shard.renewed_at or 0) == 6.0


def test_a_server_that_answers_errors_is_told_about(client: RespClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is no outage of the network, so operators read it, once a minute."""
    world = World(client)
    a = world.start("a:1")
    monkeypatch.setattr(a.redis, "call", lambda *args: fail(AnswerError("NOPERM no permission")))
    with captured() as log:
        world.pass_time(WARN_S - 1.0)
    assert sum("NOPERM" in text for text in log.texts) == 1
    with captured() as log:
        world.pass_time(2.0)
    assert sum("NOPERM" in text for text in log.texts) == 1
    assert not a.directory.shards[0].is_ready


def test_a_fault_in_asserting_is_logged(client: RespClient) -> None:
    """It does not end the periodic work."""
    world = World(client)
    a = world.start("a:1")
    a.held.held_keys = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    with captured() as log:
        world.pass_time(0.5)
    assert any("could not be renewed" in text for text in log.texts)
