"""A real server that hangs for longer than a lease, by its own clock."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.redis_server import RedisServer, needs_redis, running
from tests.support.resp import RespClient

from pyryrelay.cluster.directory.scripts import ENTRY_MS, LEASE_US, RENEW, SILENCE_US, VISIT, WARM_UP_US, Names
from pyryrelay.cluster.keys import Keys

pytestmark = [needs_redis, pytest.mark.thorough]

CLUSTER = Keys("test", b"secret")
PARTITION = Names(CLUSTER).partitions[0]
HANG_S = 7.0


class Caller:
    """One instance, with a connection of its own."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.client = RespClient(path)

    def renew(self) -> None:
        """Renew the lease."""
        args = (self.name, "boot", LEASE_US, self.name, "mac", "0", SILENCE_US)
        self.client.script(RENEW, PARTITION, args)

    def ask(self, kind: str, key: str) -> list[str]:
        """Claim a key or look it up; return the answer without numbers."""
        args = (self.name, "boot", WARM_UP_US, SILENCE_US, ENTRY_MS, kind, 0)
        ((answer),) = self.client.script(VISIT, (*PARTITION, CLUSTER.key(0, "s:", key.encode())), args)
        return [word for word in answer if not word.isdigit()][:2]


@pytest.fixture
def callers() -> Iterator[tuple[RedisServer, list[Caller]]]:
    """Run a server with three instances."""
    with tempfile.TemporaryDirectory(prefix="pyry-hang-") as folder, contextlib.ExitStack() as stack:
        path = f"{folder}/s"
        server = RedisServer(Path(folder), "--unixsocket", path)
        stack.enter_context(running(server))
        callers = [Caller(name, path) for name in "abc"]
        for caller in callers:
            stack.callback(caller.client.close)
        yield server, callers


def claimed(callers: list[Caller], caller: Caller, key: str) -> list[str]:
    """Return the answer to a claim when the warm-up is over; some instances renew meanwhile."""
    until = time.monotonic() + 3 * WARM_UP_US / 1e6
    while time.monotonic() < until:
        for each in callers:
            each.renew()
        if (answer := caller.ask("claim", key)) != ["wait"]:
            return answer
        time.sleep(0.1)
    raise AssertionError("the warm-up does not end")


def test_nothing_is_given_away_after_a_hang(callers: tuple[RedisServer, list[Caller]]) -> None:
    """The instance that is back first waits for the holder; keys of a dead one are free after the warm-up."""
    server, (a, b, c) = callers
    assert claimed([a, b, c], a, "x") == ["here"]
    assert claimed([a, b, c], c, "y") == ["here"]
    server.pause()
    time.sleep(HANG_S)
    server.go_on()
    assert b.ask("look", "x") == ["wait"]
    assert b.ask("claim", "x") == ["unleased"]
    b.renew()
    assert b.ask("claim", "x") == ["wait"]
    assert b.ask("look", "x") == ["wait"]
    a.renew()
    assert a.ask("claim", "x") == ["here"]
    assert b.ask("claim", "x") == ["owner", "a"]
    assert b.ask("claim", "y") == ["wait"]
    assert claimed([a, b], b, "y") == ["here"]
    assert a.ask("look", "y") == ["owner", "b"]
