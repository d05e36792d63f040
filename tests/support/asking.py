"""Sending requests to HTTP connections, and reading the one answer."""

from __future__ import annotations

from tests.support.harness import ALICE, DATE, Connection, World

from pyryrelay.guard import GateConfig, Quota

SMALL = GateConfig(upgrade_quota=Quota.parse("1/10s burst 3"))
PAGES = GateConfig(http_quota=Quota.parse("1/10s burst 3"))
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def answered(connection: Connection) -> bytes:
    """Return the one answer that a connection got, and check that it is complete and the connection is closing."""
    answer = connection.take()
    assert answer.count(b"HTTP/1.1 ") == 1
    head, _, _ = answer.partition(b"\r\n\r\n")
    assert head.endswith((b"\r\nConnection: close", b"\r\nConnection: Upgrade, close"))
    assert head.count(DATE) == 1
    assert connection.has_ended() or connection.is_closed()
    return answer


def status(connection: Connection) -> int:
    """Return the status of the one answer that a connection got."""
    return int(answered(connection).split()[1])


def ask(world: World, data: bytes, host: str = ALICE) -> Connection:
    """Return a connection that has sent ``data``."""
    connection = world.connect(host)
    connection.feed(data)
    return connection


def use_up(world: World, host: str = ALICE) -> None:
    """Spend the client's burst."""
    world.tokens_spent(host)
