"""Real servers: by TCP, UNIX socket and TLS, with and without passwords, and found by sentinels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import write_certificate
from tests.support.on_reactor import on_reactor
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer, Sentinel, cluster_server, has_tls, needs_redis, running, tls_options
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock

from pyryrelay.cluster.redis.client import ReactorSurroundings, RedisClient, client_of
from pyryrelay.cluster.redis.interface import AnswerError, DownError, Script
from pyryrelay.config.options.redis_url import RedisUrl

pytestmark = needs_redis
ECHO = Script("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
DEADLINE_S = 30.0


@dataclass
class Started:
    """A client, and the reasons for which its server could not be used; "" each time it could."""

    client: RedisClient
    changes: list[str]

    async def becomes(self, wanted: str) -> None:
        """Wait until a change begins with ``wanted``; "" is a server that can be used."""
        await self.until(lambda: any(each == wanted or (wanted and each.startswith(wanted)) for each in self.changes))

    async def until(self, condition: Any) -> None:
        """Wait until a condition holds."""
        from twisted.internet import reactor

        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, self.changes
            await deferLater(reactor, 0.005)


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[list[RedisClient]]:
    """Clients that are stopped afterwards."""
    made: list[RedisClient] = []
    yield made
    for client in made:
        client.stop()


def start(clients: list[RedisClient], url: str, base: Path) -> Started:
    """Start a client of a server."""
    from twisted.internet import reactor

    changes: list[str] = []
    surroundings = ReactorSurroundings(reactor, time.monotonic, time.time)
    client = client_of(RedisUrl.parse(url), base, "pyryrelay-test", reactor, surroundings, changes.append)
    clients.append(client)
    client.start()
    return Started(client, changes)


@on_reactor
async def test_a_server_by_tcp(redis_server: RedisServer, clients: list[RedisClient], tmp_path: Path) -> None:
    """Calls are executed in the order in which they are made."""
    started = start(clients, redis_server.url, tmp_path)
    await started.becomes("")
    calls = [started.client.call(ECHO, ["k"], [number]) for number in range(100)]
    assert [await call for call in calls] == [[b"k", b"%d" % number, number + 1] for number in range(100)]
    assert b"name=pyryrelay-test" in redis_server.ask("CLIENT", "LIST")
    redis_server.ask("SCRIPT", "FLUSH")
    assert (await started.client.call(ECHO, ["k"], ["x"]))[2] == 101
    with pytest.raises(AnswerError, match="wrong number of arguments"):
        await started.client.command("GET")
    assert abs(started.client.figures.skew_s) < 1
    assert started.client.server is not None


@on_reactor
async def test_a_server_by_a_socket(tmp_path: Path, clients: list[RedisClient]) -> None:
    """UNIX sockets need no port."""
    path = tmp_path / "redis.sock"
    with running(RedisServer(tmp_path, "--unixsocket", str(path))):
        started = start(clients, f"redis+unix://{path}", tmp_path)
        await started.becomes("")
        assert await started.client.command("PING") == b"PONG"


@on_reactor
async def test_a_server_that_is_not_there(tmp_path: Path, clients: list[RedisClient]) -> None:
    """It is used as soon as it is there, and again after it was killed."""
    server = RedisServer(tmp_path)
    started = start(clients, server.url, tmp_path)
    await started.becomes("Connection refused")
    with running(server):
        await started.becomes("")
        server.kill()
        await started.becomes("it closed the connection")
        started.changes.clear()
        with pytest.raises(DownError):
            await started.client.command("PING")
        server.start()
        await started.becomes("")
        assert await started.client.command("PING") == b"PONG"


def test_a_server_that_does_not_accept(tmp_path: Path) -> None:
    """It is given up in time, and the reason says so."""
    reactor: Any = MemoryReactorClock()
    url = RedisUrl.parse("redis://127.0.0.1:7000")
    surroundings = ReactorSurroundings(reactor, reactor.seconds, time.time)
    changes: list[str] = []
    client = client_of(url, tmp_path, "test", reactor, surroundings, changes.append)
    client.start()
    reactor.pump([0.1] * 9)
    assert changes == []
    reactor.pump([0.1] * 2)
    assert changes == ["no connection in 1 s"]
    client.stop()


@on_reactor
async def test_a_server_that_has_stopped(redis_server: RedisServer, clients: list[RedisClient], tmp_path: Path) -> None:
    """Its calls fail after half a second, further ones at once, and it is used again when it runs."""
    started = start(clients, redis_server.url, tmp_path)
    await started.becomes("")
    redis_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(DownError, match=r"no answer in 0\.5 s"):
            await started.client.command("PING")
        assert time.monotonic() - began >= 0.4
        with pytest.raises(DownError):
            await started.client.command("PING")
        started.changes.clear()
        await started.becomes("no answer in 0.5 s")
    finally:
        redis_server.go_on()
    await started.becomes("")
    assert await started.client.command("PING") == b"PONG"


@on_reactor
async def test_passwords(tmp_path: Path, clients: list[RedisClient]) -> None:
    """A wrong one is told, and the right one is used as soon as it is in the file."""
    server = RedisServer(tmp_path / "redis", "--requirepass", "secret")
    server.folder.mkdir(exist_ok=True)
    with running(server):
        without = start(clients, server.url, tmp_path)
        await without.becomes("it wants a password: write ?password-file=FILE")
        wrong = start(clients, f"{server.url}?password-file=pw", tmp_path)
        await wrong.becomes(f"{tmp_path}/pw: No such file or directory")
        (tmp_path / "pw").write_text("wrong\n", encoding="utf-8")
        await wrong.becomes("it refuses the user name or the password")
        (tmp_path / "pw").write_text("secret\n", encoding="utf-8")
        await wrong.becomes("")
        assert await wrong.client.command("PING") == b"PONG"
        assert "secret" not in str(wrong.changes)


@on_reactor
async def test_users(redis_server: RedisServer, clients: list[RedisClient], tmp_path: Path) -> None:
    """A user that may do little can still be used; what it may not do fails alone."""
    redis_server.ask("ACL", "SETUSER", "relay", "on", ">secret", "~pyry:*", "+eval", "+evalsha", "+time", "+incr")
    (tmp_path / "pw").write_text("secret", encoding="utf-8")
    url = f"redis://relay@127.0.0.1:{redis_server.port}?password-file=pw"
    started = start(clients, url, tmp_path)
    await started.becomes("")
    assert await started.client.call(ECHO, ["pyry:k"], ["x"]) == [b"pyry:k", b"x", 1]
    with pytest.raises(AnswerError, match="NOPERM"):
        await started.client.command("GET", "pyry:k")
    with pytest.raises(AnswerError, match="NOPERM"):
        await started.client.call(ECHO, ["other"], ["x"])
    assert started.client.is_up


@on_reactor
async def test_a_redis_cluster(tmp_path: Path, clients: list[RedisClient]) -> None:
    """It is told of in one clear line."""
    server = cluster_server(tmp_path)
    with running(server):
        started = start(clients, server.url, tmp_path)
        await started.becomes("it belongs to a Redis Cluster, which is not supported")


@has_tls
@on_reactor
async def test_tls(tmp_path: Path, clients: list[RedisClient]) -> None:
    """A certificate must belong to the host, and be trusted; what is wrong is told in one line."""
    certificate, key = write_certificate(tmp_path, "localhost")
    tls_port = free_port()
    with running(server := RedisServer(tmp_path / "redis", *tls_options(tls_port, certificate, key, "no"))):
        started = start(clients, f"rediss://localhost:{tls_port}?ca={certificate}", tmp_path)
        untrusted = start(clients, f"rediss://localhost:{tls_port}", tmp_path)
        other = start(clients, f"rediss://127.0.0.1:{tls_port}?ca={certificate}", tmp_path)
        plain = start(clients, f"redis://localhost:{tls_port}", tmp_path)
        no_tls = start(clients, f"rediss://localhost:{server.port}?ca={certificate}", tmp_path)
        no_file = start(clients, f"rediss://localhost:{tls_port}?ca={key}", tmp_path)
        await started.becomes("")
        assert await started.client.command("PING") == b"PONG"
        await untrusted.becomes("its certificate is self-signed, and not trusted")
        await other.becomes("its certificate is for another name")
        await plain.becomes("it closed the connection at once: if it wants TLS, write rediss://")
        await no_tls.becomes("it does not answer with TLS")
        await no_file.becomes(f"{key}: it has no certificates in PEM")
        assert "" not in untrusted.changes + other.changes + plain.changes + no_tls.changes + no_file.changes


@has_tls
@on_reactor
async def test_certificates_of_clients(tmp_path: Path, clients: list[RedisClient]) -> None:
    """A server that wants one gets that of the relay, also one that was renewed meanwhile."""
    certificate, key = write_certificate(tmp_path, "localhost")
    strange = write_certificate(tmp_path, "strange")
    shown = tmp_path / "shown.pem"
    shown.write_bytes(strange[0].read_bytes() + strange[1].read_bytes())
    tls_port = free_port()
    with running(RedisServer(tmp_path / "redis", *tls_options(tls_port, certificate, key, "yes"))):
        url = f"rediss://localhost:{tls_port}?ca={certificate}"
        without = start(clients, url, tmp_path)
        renewed = start(clients, f"{url}&cert=shown.pem", tmp_path)
        await without.becomes("it wants a certificate of the relay: write cert=FILE&key=FILE")
        await renewed.becomes("it refuses the certificate of the relay")
        shown.write_bytes(certificate.read_bytes() + key.read_bytes())
        await renewed.becomes("")
        assert "" not in without.changes


@on_reactor
async def test_sentinels(tmp_path: Path, clients: list[RedisClient]) -> None:
    """They are asked one after the other where the primary is."""
    primary = RedisServer(tmp_path / "redis")
    sentinel, dead = Sentinel(tmp_path / "redis", primary.port, 1), RedisServer(tmp_path)
    with running(primary, sentinel):
        hosts = f"127.0.0.1:{dead.port},127.0.0.1:{sentinel.port}"
        started = start(clients, f"redis+sentinel://{hosts}/mymaster", tmp_path)
        await started.becomes("")
        await started.client.command("SET", "pyry:a", "1")
        assert primary.ask("GET", "pyry:a") == b"$1\r\n1\r\n"
        unknown = start(clients, f"redis+sentinel://127.0.0.1:{sentinel.port}/other", tmp_path)
        await unknown.becomes("no sentinel knows 'other' (no such name: other)")
        itself = start(clients, f"redis://127.0.0.1:{sentinel.port}", tmp_path)
        await itself.becomes("it is a sentinel: write redis+sentinel://HOST:PORT/NAME")


@on_reactor
async def test_a_primary_that_becomes_a_replica(tmp_path: Path, clients: list[RedisClient]) -> None:
    """The client leaves it, and comes back if it is the primary again."""
    first, second = RedisServer(tmp_path / "redis"), RedisServer(tmp_path / "redis")
    with running(first, second):
        started = start(clients, first.url, tmp_path)
        await started.becomes("")
        first.ask("REPLICAOF", "127.0.0.1", str(second.port))
        started.client.call(ECHO, ["k"], ["x"]).addErrback(lambda failure: None)
        await started.until(lambda: not started.client.is_up)
        await started.becomes("it is a")
        started.changes.clear()
        first.ask("REPLICAOF", "NO", "ONE")
        await started.becomes("")


@pytest.mark.thorough
@on_reactor
async def test_a_failover(tmp_path: Path, clients: list[RedisClient]) -> None:
    """When the primary dies, the client finds its successor by itself: 1 primary, 2 replicas, 3 sentinels."""
    primary = RedisServer(tmp_path / "redis")
    replicas = [RedisServer(tmp_path / "redis", "--replicaof", "127.0.0.1", str(primary.port)) for _ in range(2)]
    with running(primary, *replicas):
        sentinels = [Sentinel(tmp_path / "redis", primary.port, 2) for _ in range(3)]
        with running(*sentinels):
            hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
            started = start(clients, f"redis+sentinel://{hosts}/mymaster", tmp_path)
            await started.becomes("")
            await started.until(
                lambda: all(
                    b"num-slaves\r\n$1\r\n2" in state and b"num-other-sentinels\r\n$1\r\n2" in state
                    for state in (each.ask("SENTINEL", "MASTER", "mymaster") for each in sentinels)
                )
            )
            started.changes.clear()
            primary.kill()
            await started.until(lambda: not started.client.is_up)
            await started.becomes("")
            assert await started.client.call(ECHO, ["k"], ["x"]) == [b"k", b"x", 1]
            assert started.client.figures.outages >= 1
