"""The servers of a cluster, asked by ``--check``."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from tests.support.certificates import write_certificate
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer, Sentinel, cluster_server, has_tls, needs_redis, running, tls_options
from tests.support.source_tree import ROOT

from pyryrelay.mounts import Settings
from pyryrelay.preflight.cluster import servers
from pyryrelay.preflight.cluster.servers import cluster_files, cluster_library, cluster_servers


def lines(*urls: str, base: Path, ahead_s: float = 0.0) -> list[str]:
    """Return what is found, a line each."""
    settings = Settings(cluster=urls, cluster_secret_file="s")
    return [str(finding) for finding in cluster_servers(settings, base, lambda: time.time() - ahead_s)]


def test_relays_without_a_cluster_ask_nobody(tmp_path: Path) -> None:
    """They need no package for it either."""
    settings = Settings()
    assert list(cluster_library(settings)) == []
    assert [*cluster_servers(settings, tmp_path), *cluster_files(settings, tmp_path)] == []


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line says how to install it, and the servers are not asked."""
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    settings = Settings(cluster=("redis://127.0.0.1:1",))
    (finding,) = cluster_library(settings)
    expected = "--cluster 'redis://127.0.0.1:1': it needs the package hiredis, which is not installed"
    assert str(finding) == f"{expected}; pip install 'pyryrelay[cluster]'"
    assert list(cluster_servers(settings, tmp_path)) == []


def test_password_files_that_others_can_read(tmp_path: Path) -> None:
    """A file that is not there is no finding of this kind."""
    (tmp_path / "pw").write_text("x")
    (tmp_path / "pw").chmod(0o640)
    settings = Settings(cluster=("redis://h?password-file=pw", "rediss://g?cert=crt&key=pw&password-file=missing"))
    found = [str(finding) for finding in cluster_files(settings, tmp_path)]
    assert ["other users have access to 'pw'" in line for line in found] == [True, True]
    (tmp_path / "pw").chmod(0o600)
    assert list(cluster_files(settings, tmp_path)) == []


def test_a_server_that_is_absent(tmp_path: Path) -> None:
    """It is told of, by TCP, by its socket, and by its sentinels."""
    port = free_port()
    fix = "a relay starts without it; put it right meanwhile"
    urls = (f"redis://127.0.0.1:{port}", f"redis+unix://{tmp_path}/no.sock", f"redis+sentinel://127.0.0.1:{port}/m")
    found = lines(*urls, base=tmp_path)
    assert found[0] == f"--cluster {urls[0]!r}: it cannot be used now: Connection refused; {fix}"
    assert found[1] == f"--cluster {urls[1]!r}: it cannot be used now: No such file or directory; {fix}"
    assert "it cannot be used now: no sentinel knows 'm' ([Errno 111] Connection refused)" in found[2]


@needs_redis
def test_a_good_server(tmp_path: Path) -> None:
    """Nothing is found, and nothing is left behind."""
    server = RedisServer(tmp_path / "redis", "--unixsocket", str(tmp_path / "redis.sock"))
    sentinel = Sentinel(tmp_path / "redis", server.port, 1)
    with running(server, sentinel):
        urls = [server.url, f"{server.url}/2", f"redis+unix://{tmp_path}/redis.sock"]
        urls.append(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/mymaster")
        assert lines(*urls, base=tmp_path) == []
        assert server.ask("DBSIZE") == b":0\r\n"
        (line,) = lines(f"redis+sentinel://127.0.0.1:{sentinel.port}/other", base=tmp_path)
        assert "no sentinel knows 'other'" in line


@needs_redis
def test_what_is_wrong_with_a_server(tmp_path: Path) -> None:
    """Its clock, what its user may not do, and that it forgets."""
    with running(server := RedisServer(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru")):
        server.ask("ACL", "SETUSER", "default", "-xadd", "-zadd")
        found = lines(server.url, base=tmp_path, ahead_s=-5.0)
        what = f"--cluster {server.url!r}: "
        assert found == [
            f"{what}its clock is 5.0 s behind this machine's; keep both right with NTP",
            f"{what}its user may not use zadd, xadd; allow them, and the keys: ACL SETUSER default ~pyry:* +zadd +xadd",
            f"{what}with maxmemory-policy allkeys-lru it may forget what it was told; set maxmemory-policy noeviction",
        ]
        for policy in ("noeviction", "volatile-ttl"):
            server.ask("CONFIG", "SET", "maxmemory-policy", policy)
            assert len(lines(server.url, base=tmp_path)) == 1
        server.ask("ACL", "SETUSER", "default", "+@all", "-info", "resetkeys", "~other:*")
        (line,) = lines(server.url, base=tmp_path)
        assert "its user may not use set, pexpire, get" in line


@needs_redis
def test_servers_that_are_of_no_use(tmp_path: Path) -> None:
    """A wrong password, a Redis Cluster, and something else that listens there."""
    (tmp_path / "pw").write_text("wrong\n")
    secured = RedisServer(tmp_path / "a", "--requirepass", "right")
    cluster = cluster_server(tmp_path / "b")
    with running(secured, cluster):
        found = lines(secured.url, f"{secured.url}?password-file=pw", cluster.url, base=tmp_path)
        assert "it wants a password: write ?password-file=FILE" in found[0]
        assert "it refuses the user name or the password" in found[1]
        assert "it belongs to a Redis Cluster, which is not supported" in found[2]
        (tmp_path / "pw").write_text("right\n")
        assert lines(f"{secured.url}?password-file=pw", base=tmp_path) == []


@has_tls
def test_a_server_with_tls(tmp_path: Path) -> None:
    """Its certificate must be trusted, it may want one of the relay, and what is wrong is told in one line."""
    certificate, key = write_certificate(tmp_path, "localhost")
    port, strict_port = free_port(), free_port()
    server = RedisServer(tmp_path / "redis", *tls_options(port, certificate, key, "no"))
    strict = RedisServer(tmp_path / "redis", *tls_options(strict_port, certificate, key, "yes"))
    with running(server, strict):
        url, strict_url = (f"rediss://localhost:{each}?ca={certificate}" for each in (port, strict_port))
        assert lines(url, f"{strict_url}&cert={certificate}&key={key}", base=tmp_path) == []
        found = lines(f"rediss://localhost:{port}", f"rediss://127.0.0.1:{port}?ca={certificate}", base=tmp_path)
        found += lines(f"redis://localhost:{port}", strict_url, f"{url}&cert={certificate}", base=tmp_path)
        found += lines(f"rediss://localhost:{port}?ca={tmp_path}/none", base=tmp_path)
        expected = [
            "its certificate is self-signed, and not trusted",
            "its certificate is for another name",
            "it closed the connection at once: if it wants TLS, write rediss://",
            "it wants a certificate of the relay: write cert=FILE&key=FILE at the end of the URL",
            f"{certificate}: it has no private key in PEM",
            f"'{tmp_path}/none': No such file or directory",
        ]
        fix = "; a relay starts without it; put it right meanwhile"
        assert [line.partition("it cannot be used now: ")[2].removesuffix(fix) for line in found] == expected


def test_every_command_of_a_script_is_checked_and_allowed() -> None:
    """What scripts call is asked for by the check, and in the line of the howto for a user of its own."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src/pyryrelay/cluster").rglob("*.py")]
    called = {name.lower() for text in sources for name in re.findall(r"redis\.call\('(\w+)'", text)}
    assert len(called) > 15
    assert called <= set(servers._NEEDED)
    howto = (ROOT / "docs" / "howto" / "cluster-redis.md").read_text(encoding="utf-8")
    line = next(each for each in howto.splitlines() if each.startswith("ACL SETUSER "))
    assert set(re.findall(r"\+(\w+)", line)) == set(servers._NEEDED)
