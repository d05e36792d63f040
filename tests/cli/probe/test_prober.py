"""A visit as a whole: its steps and its warnings, against servers on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.probe.test_sockets import write_certificate
from tests.end_to_end.harness import reserve_port
from tests.support.odd_servers import answering, read_head, server_context, serving

from pyryrelay.cli.probe import prober as prober_module
from pyryrelay.cli.probe.prober import MAX_PAGE_BYTES, RelayProber
from pyryrelay.cli.probe.sockets import addresses_of
from pyryrelay.cli.probe.steps import Steps
from pyryrelay.cli.probe.target import Target
from pyryrelay.protocol_options import ProbeError

LONG_S = 60.0


@contextmanager
def probing(target: Target, ca_file: Path | None = None, *, verify: bool = True) -> Iterator[tuple[RelayProber, Steps]]:
    """Probe a relay, and keep the steps."""
    steps = Steps(lambda: 0.0, lambda step: None)
    prober = RelayProber(target, steps, LONG_S, None if ca_file is None else str(ca_file), verify=verify)
    yield prober, steps
    prober.close()


def told(steps: Steps) -> list[tuple[str, str]]:
    """Return names and states."""
    return [(step.name, step.state.value) for step in steps.taken]


def described(status: int, body: bytes) -> str:
    """Describe a page."""
    return f"{status} {body!r}"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", "200 b'ab'"),
        (b"HTTP/1.1 404 X\r\n\r\nabc", "404 b'abc'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "200 b'abc'"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            "200 b'abc'",
        ),
        (b"", "0 b'the server closed the connection without an answer'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "200 b''"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nab", "200 b''"),
    ],
)
def test_pages(answer: bytes, text: str) -> None:
    """A page is read up to its length or the end; the step has what is said about it. The name is looked up once."""
    requests: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        requests.append(read_head(connection))
        connection.sendall(answer)

    with serving(handle) as port, probing(Target("ws", "127.0.0.1", port, "/x")) as (prober, steps):
        assert (prober.url, prober.path) == (f"ws://127.0.0.1:{port}/x", "/x")
        assert prober.get("page", "/a", {"Accept": "text/x"}, described) == text
        assert prober.get("page", "", {}, described) == text
    assert told(steps) == [("name", "ok"), ("TCP", "ok"), ("page", "ok"), ("TCP", "ok"), ("page", "ok")]
    assert steps.taken[2].detail == text
    assert requests[0].startswith(b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)
    assert b"\r\nAccept: text/x\r\n" in requests[0]
    assert requests[1].startswith(b"GET / HTTP/1.1\r\n")


def test_long_pages_are_cut_off() -> None:
    """No more than `MAX_PAGE_BYTES` are read."""
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * (MAX_PAGE_BYTES * 3)
    with serving(answering(answer)) as port, probing(Target("ws", "127.0.0.1", port, "")) as (prober, _):
        assert prober.get("page", "/", {}, lambda status, body: str(len(body))) == str(MAX_PAGE_BYTES)


def test_an_upgrade_that_is_refused() -> None:
    """The steps have the name of who connects, and the last one the problem."""
    with (
        serving(answering(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as port,
        probing(Target("ws", "127.0.0.1", port, "")) as (prober, steps),
        pytest.raises(ProbeError),
    ):
        prober.connect("visitor", "/", {}, {})
    assert told(steps) == [("name", "ok"), ("visitor: TCP", "ok"), ("visitor: upgrade", "problem")]
    assert steps.taken[-1].detail.startswith("it was answered 403 Forbidden")


def test_addresses_that_do_not_answer_are_warned_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a later address answers, the earlier ones are a warning, and are not tried again."""
    with reserve_port() as held, serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        both = [address for one in (held.getsockname()[1], port) for address in addresses_of("127.0.0.1", one, LONG_S)]
        monkeypatch.setattr(prober_module, "addresses_of", lambda *_: both)
        with probing(Target("ws", "relay.example", port, "")) as (prober, steps):
            for _ in range(2):
                prober.get("page", "/", {}, described)
    assert [state for _, state in told(steps)].count("warning") == 1


@pytest.mark.parametrize(
    ("days", "verify", "warnings"),
    [
        (30, True, []),
        (13, True, ["it ends in 13 days"]),
        (-2, False, ["it has expired", "it is not verified"]),
    ],
)
def test_certificates_are_warned_about_once(tmp_path: Path, days: float, verify: bool, warnings: list[str]) -> None:
    """The end of a certificate within 14 days is a warning, and so is one that is not verified."""
    file = write_certificate(tmp_path, days + 0.1)
    handle = answering(b"HTTP/1.1 200 OK\r\n\r\n")
    with (
        serving(handle, server_context(tmp_path)) as port,
        probing(Target("wss", "localhost", port, ""), file, verify=verify) as (prober, steps),
    ):
        for _ in range(2):
            prober.get("page", "/", {}, described)
    assert [step.detail for step in steps.taken if step.state == "warning"] == warnings
    assert told(steps)[:3] == [("name", "ok"), ("TCP", "ok"), ("TLS", "ok")]
