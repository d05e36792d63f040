"""Relays that share limits by a real Redis server, which stops, hangs, dies, returns empty and fails over.

Clients are told apart by what the proxy says, as loopback is never jailed.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from tests.end_to_end.admin import pyryrelay
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import GENEROUS, Relay, asynchronous, eventually, run_twistd
from tests.end_to_end.peers import unharmed
from tests.end_to_end.raw import statuses, upgrade
from tests.support.redis_server import RedisServer, Sentinel, cluster_server, needs_redis, running

pytestmark = needs_redis
PROXY = ("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")
CLIENT, OTHER, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"
UP = 'pyryrelay_cluster_up{shard="0"}'
HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "cluster-redis.md"


def options(folder: Path, *urls: str) -> list[str]:
    """Return the options of a relay whose quota is six attempts, in a cluster of these servers."""
    secret = folder / "secret"
    secret.write_text("of-the-cluster-of-this-test\n", encoding="utf-8")
    secret.chmod(0o600)
    servers = [word for url in urls for word in ("--cluster", url)]
    quota = ["--upgrade-quota", "1/hour burst 6", "--jail-after", "60/minute"]
    return [*GENEROUS, *PROXY, *quota, *servers, "--cluster-secret-file", str(secret)]


async def attempt(relay: Relay, client: str) -> int:
    """Ask for an upgrade as a phone of no binary; return the status."""
    (status,) = await statuses(relay.address, upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", client)), 1)
    return status


async def idle(*relays: Relay) -> None:
    """Wait until everything that was admitted is charged."""
    for relay in relays:
        await relay.metric_will_be("pyryrelay_cluster_pending_keys", 0)


@pytest.mark.thorough
@asynchronous
async def test_two_relays_are_one(start_relay: StartRelay, redis_server: RedisServer, tmp_path: Path) -> None:
    """Six attempts of an address are admitted by both together, and a ban at one holds at the other."""
    words = options(tmp_path, redis_server.url)
    first, second = start_relay(*words), start_relay(*words)
    for relay in (first, second):
        await relay.metric_will_be(UP, 1)
    answers = []
    for number in range(12):
        answers.append(await attempt((first, second)[number % 2], CLIENT))
        await idle(first, second)
    assert 6 <= answers.count(101) <= 7
    assert answers[8:] == [429] * 4
    assert await attempt(second, OTHER) == 101
    await first.metric_will_be("pyryrelay_cluster_members", 2)
    assert pyryrelay(first, "jail", "add", THIRD).returncode == 0
    await second.metric_will_be("pyryrelay_jailed_addresses", 1)
    assert pyryrelay(second, "jail", "release", THIRD).returncode == 0
    await first.metric_will_be("pyryrelay_jailed_addresses", 0)


@pytest.mark.thorough
@asynchronous
async def test_an_outage_disconnects_nobody(start_relay: StartRelay, tmp_path: Path) -> None:
    """The relay starts without its server, uses it when it comes, and goes on when it hangs, dies, and is empty."""
    server = RedisServer(tmp_path / "redis")
    relay = start_relay(*options(tmp_path, server.url))
    cannot = f"server 127.0.0.1:{server.port} of the cluster cannot be used: "
    async with unharmed(relay) as peers:
        await relay.log_will_have(cannot, "Connection refused", times=1)
        assert await attempt(relay, CLIENT) == 101
        with running(server):
            await relay.metric_will_be(UP, 1)
            await relay.log_will_have("of the cluster can be used, after", times=1)
            await peers.exchange()
            server.pause()
            await relay.metric_will_be(UP, 0)
            assert await attempt(relay, CLIENT) == 101
            await peers.exchange()
            server.go_on()
            await relay.metric_will_be(UP, 1)
            server.kill()
            await relay.metric_will_be(UP, 0)
            assert await attempt(relay, CLIENT) == 101
            await peers.exchange()
            server.start()
            await relay.metric_will_be(UP, 1)
            assert [await attempt(relay, CLIENT) for _ in range(4)] == [101, 101, 101, 429]
            await peers.exchange()
            assert relay.log().count(cannot) == 3
            assert relay.log().count("of the cluster can be used, after") == 3
            assert relay.metrics()["pyryrelay_cluster_dropped_tokens_total"] >= 2


@pytest.mark.thorough
@asynchronous
async def test_a_failover_disconnects_nobody(start_relay: StartRelay, tmp_path: Path) -> None:
    """With 1 primary, 2 replicas and 3 sentinels, both relays find the new primary, and share limits by it."""
    primary = RedisServer(tmp_path / "redis")
    replicas = [RedisServer(tmp_path / "redis", "--replicaof", "127.0.0.1", str(primary.port)) for _ in range(2)]
    with running(primary, *replicas):
        sentinels = [Sentinel(tmp_path / "redis", primary.port, 2) for _ in range(3)]
        with running(*sentinels):
            for sentinel in sentinels:
                await eventually(partial(_knows_all, sentinel), "the sentinels know all")
            hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
            words = options(tmp_path, f"redis+sentinel://{hosts}/mymaster")
            first, second = start_relay(*words), start_relay(*words)
            async with unharmed(first), unharmed(second):
                for relay in (first, second):
                    await relay.metric_will_be(UP, 1)
                primary.kill()
                for relay in (first, second):
                    await relay.metric_will_be('pyryrelay_cluster_outages_total{shard="0"}', 1)
                    await relay.metric_will_be(UP, 1)
                answers = []
                for number in range(12):
                    answers.append(await attempt((first, second)[number % 2], CLIENT))
                    await idle(first, second)
                assert 6 <= answers.count(101) <= 7


def _knows_all(sentinel: Sentinel) -> bool:
    state = sentinel.ask("SENTINEL", "MASTER", "mymaster")
    return b"num-slaves\r\n$1\r\n2" in state and b"num-other-sentinels\r\n$1\r\n2" in state


@pytest.mark.thorough
@asynchronous
async def test_the_user_of_the_howto_may_do_what_is_needed(
    start_relay: StartRelay, redis_server: RedisServer, tmp_path: Path
) -> None:
    """With the line of the page, nothing is refused, and the preflight finds nothing."""
    found = re.search(r"^ACL SETUSER (.*)$", HOWTO.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert redis_server.ask("ACL", "SETUSER", *found[1].replace(">PASSWORD", ">geheim").split()) == b"+OK\r\n"
    (tmp_path / "pw").write_text("geheim", encoding="utf-8")
    (tmp_path / "pw").chmod(0o600)
    url = f"redis://pyryrelay@127.0.0.1:{redis_server.port}?password-file={tmp_path}/pw"
    relay = start_relay(*options(tmp_path, url))
    await relay.metric_will_be(UP, 1)
    assert await attempt(relay, CLIENT) == 101
    assert pyryrelay(relay, "jail", "add", THIRD).returncode == 0
    await relay.metric_will_be("pyryrelay_cluster_charged_keys_total", 1)
    await eventually(lambda: relay.metrics()["pyryrelay_cluster_sentences_told_total"], "the sentence is told")
    assert "refuses a script" not in relay.log()
    checked = run_twistd(tmp_path, "--check", *options(tmp_path, url))
    assert checked.returncode == 0
    assert "cluster" not in checked.stderr
    assert "geheim" not in checked.stdout + relay.log()


@pytest.mark.thorough
def test_bad_input_is_told_in_one_line(redis_server: RedisServer, tmp_path: Path) -> None:
    """A wrong URL or secret prevents the start; a server that cannot be used is a warning of the check."""
    cluster = cluster_server(tmp_path / "cluster")
    secured = RedisServer(tmp_path / "secured", "--requirepass", "right")
    (tmp_path / "wrong").write_text("wrong")
    (tmp_path / "wrong").chmod(0o600)
    for words, line in (
        (
            ["--cluster", "localhost"],
            "--cluster (from command line): 'localhost' is no URL",
        ),
        (
            ["--cluster", redis_server.url],
            f"--cluster (from command line): {redis_server.url!r} needs --cluster-",
        ),
        (["--cluster-secret-file", "x"], "--cluster-secret-file (from command line): 'x' has no effect without"),
    ):
        done = run_twistd(tmp_path, *words)
        assert done.returncode == 2
        assert line in done.stderr
        assert "Traceback" not in done.stderr
    with running(cluster, secured):
        for url, problem in (
            (f"{secured.url}?password-file=wrong", "it refuses the user name or the password"),
            (cluster.url, "it belongs to a Redis Cluster, which is not supported"),
        ):
            checked = run_twistd(tmp_path, "--check", *options(tmp_path, url))
            assert checked.returncode == 0
            assert f"--cluster {url!r}: it cannot be used now: {problem}" in checked.stderr
