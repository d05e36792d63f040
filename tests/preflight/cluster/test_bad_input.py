"""What operators of clusters get wrong, and the one line that each of it is answered with.

Options that cannot be right prevent the start, with exit code 2. A server that is wrong does not: the check warns, and
the relay goes on without it, see `pyryrelay.cluster.outages`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import pytest
from twisted.internet.testing import MemoryReactor

from pyryrelay.mounts import Settings
from pyryrelay.preflight.cluster.servers import cluster_servers
from pyryrelay.start.twistd import Options

SERVER = ("--cluster", "redis://10.0.0.9")
MEMBER = (*SERVER, "--cluster-secret-file", "good")
LISTEN = ("--cluster-listen", "tcp:7000:interface=127.0.0.1")
ADVERTISE = ("--cluster-advertise", "10.0.0.1:7000")
PEERS = ("--cluster-peers", "10.0.0.0/24")
INSTANCE = (*MEMBER, *LISTEN, *ADVERTISE, *PEERS)
WRITE = "write one with: (umask 077; openssl rand -hex 32 >FILE), and give all relays the same"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with secrets of several kinds."""
    for name, content, mode in (
        ("good", "0123456789abcdef0123456789abcdef\n", 0o600),
        ("open", "0123456789abcdef0123456789abcdef\n", 0o644),
        ("short", "geheim\n", 0o600),
        ("lines", "0123456789abcdef\n0123456789abcdef\n", 0o600),
    ):
        (tmp_path / name).write_text(content, encoding="ascii")
        (tmp_path / name).chmod(mode)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "option", "line"),
    [
        (("--cluster", "10.0.0.9"), "cluster", "'10.0.0.9' is no URL of a Redis or Valkey server; write redis://"),
        (("--cluster", "http://h"), "cluster", "'http://h' is no URL of a Redis or Valkey server; write redis://"),
        (("--cluster", "valkey://h"), "cluster", "'valkey://h' is no URL of a Redis or Valkey server; write redis://"),
        (("--cluster", "redis://u:geheim@h"), "cluster", "'redis://u:...@h' has a password, which other users of this"),
        (("--cluster", "redis://h:99999"), "cluster", "'redis://h:99999' has a host or a port that cannot be; write"),
        (("--cluster", "redis://h/x"), "cluster", "'redis://h/x' has a database that is no number; write /0"),
        (("--cluster", "redis://a,b"), "cluster", "'redis://a,b' has several hosts; give --cluster several times"),
        (("--cluster", "redis://h?ca=x"), "cluster", "'redis://h?ca=x' has ca= without TLS; write rediss://"),
        (("--cluster", "redis+sentinel://h"), "cluster", "'redis+sentinel://h' lacks the name by which the sentinels"),
        ((*SERVER, *SERVER), "cluster", "'redis://10.0.0.9' is there twice; name each server once"),
        (SERVER, "cluster", "'redis://10.0.0.9' needs --cluster-secret-file; write a secret with"),
        ((*SERVER, "--cluster-secret-file", "none"), "cluster-secret-file", "'none' cannot be read: No such file or"),
        ((*SERVER, "--cluster-secret-file", "open"), "cluster-secret-file", "'open' is accessible to other users; run"),
        ((*SERVER, "--cluster-secret-file", "short"), "cluster-secret-file", "'short' does not hold one line of 20 to"),
        ((*SERVER, "--cluster-secret-file", "lines"), "cluster-secret-file", "'lines' does not hold one line of 20 to"),
        (("--cluster-secret-file", "good"), "cluster-secret-file", "'good' has no effect without --cluster; add"),
        ((*MEMBER, "--cluster-name", "A B"), "cluster-name", "'A B' is no name of a cluster; write up to 32"),
        (
            (*LISTEN, *ADVERTISE, *PEERS),
            "cluster-listen",
            "'tcp:7000:interface=127.0.0.1' has no effect without --clus",
        ),
        ((*MEMBER, *ADVERTISE), "cluster-advertise", "'10.0.0.1:7000' has no effect without --cluster-listen; add"),
        ((*MEMBER, *LISTEN, *PEERS), "cluster-listen", "'tcp:7000:interface=127.0.0.1' without --cluster-advertise ca"),
        ((*MEMBER, *LISTEN, *ADVERTISE), "cluster-listen", "'tcp:7000:interface=127.0.0.1' without --cluster-peers wo"),
        ((*MEMBER, "--cluster-advertise", "h:7000"), "cluster-advertise", "'h:7000' does not begin with an IP address"),
        ((*MEMBER, "--cluster-advertise", "0.0.0.0:1"), "cluster-advertise", "'0.0.0.0:1' is no address that other in"),
        (
            (*MEMBER, "--cluster-advertise", "10.0.0.1"),
            "cluster-advertise",
            "'10.0.0.1' does not begin with an IP addr",
        ),
        ((*INSTANCE, "--cluster-peers", "x"), "cluster-peers", "'x' is not a network; write a network such as"),
        ((*INSTANCE, "--cluster-on-outage", "x"), "cluster-on-outage", "'x' is not one of the choices; write one of"),
        (
            (*INSTANCE, "--cluster-redirect", "x"),
            "cluster-redirect",
            "'x' is no location; write a path that begins and",
        ),
        ((*INSTANCE, "--workers", "2"), "cluster-listen", "'tcp:7000:interface=127.0.0.1' cannot be that of several"),
    ],
)
def test_options_that_cannot_be_right(
    capsys: pytest.CaptureFixture[str], words: Sequence[str], option: str, line: str
) -> None:
    """One line names the option, the value and the fix; no secret is in it."""
    with pytest.raises(SystemExit) as caught:
        Options(environ={}, reactor=MemoryReactor()).parseOptions([*words])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith(f"pyryrelay: --{option} (from command line): {line}")
    assert err.count("\n") == 1
    assert "; " in err
    assert "geheim" not in err


def test_what_can_be_right(capsys: pytest.CaptureFixture[str]) -> None:
    """The same options without a mistake are accepted."""
    options = Options(environ={}, reactor=MemoryReactor())
    options.parseOptions([*INSTANCE, "--listen", "tcp:0:interface=127.0.0.1"])
    assert options.settings.cluster_advertise == "10.0.0.1:7000"


def said(**more: str) -> bytes:
    """Return the answer to HELLO of a server of this kind."""
    words = {"server": "redis", "version": "7.2.4", "mode": "standalone", "role": "master"} | more
    parts = [part.encode() for pair in words.items() for part in pair]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Run a server that gives these answers, one for each command, and closes the connection; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                for answer in answers:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said(version="6.0.16"), "it is redis 6.0.16: 6.2 or newer is needed"),
        (said(version="6.2.0", mode="cluster"), "it belongs to a Redis Cluster, which is not supported: use single"),
        (said(mode="sentinel"), "it is a sentinel: write redis+sentinel://HOST:PORT/NAME"),
        (said(role="replica"), "it is a replica, which cannot be written to"),
        (b"-ERR unknown command `HELLO`, with args beginning with: `2`\r\n", "it is too old: 6.2 or newer is needed"),
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "it wants a password: write ?pass"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "it refuses the user name or the pass"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it loads its data"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol error"),
        (b"", "it closed the connection"),
    ],
)
def test_servers_that_are_wrong(answer: bytes, why: str) -> None:
    """One warning names the server, and says why the relay goes on without it."""
    with answering(answer) as url:
        (line,) = map(str, cluster_servers(Settings(cluster=(url,), cluster_secret_file="good"), Path()))
    assert line.startswith(f"--cluster {url!r}: it cannot be used now: {why}")
    assert line.endswith("; a relay starts without it; put it right meanwhile")
    assert "\n" not in line
