"""The client of the admin API, against small servers on loopback."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from urllib.error import URLError
from urllib.request import OpenerDirector

import pytest
from tests.end_to_end.harness import reserve_port
from tests.support.fake_relay import FakeRelay
from tests.support.odd_servers import answering, read_head, serving

from pyryrelay.cli import admin_client
from pyryrelay.cli.admin_client import AdminClient, AdminResponse
from pyryrelay.cli.protocol_commands import CommandError
from pyryrelay.config.toml_file import content_of

EMPTY_LIST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


def failure_of(url: str, method: str = "GET") -> str:
    """Send a request that fails, and return the text of the error, which is one line."""
    with pytest.raises(CommandError) as raised:
        AdminClient(url).request(method, "/reload")
    assert "\n" not in str(raised.value)
    return str(raised.value)


@contextmanager
def raw_server(server: socket.socket, answer: bytes, count: int = 1) -> Iterator[list[bytes]]:
    """Accept ``count`` connections, read a request from each, send ``answer`` and close it; yield the requests."""
    requests: list[bytes] = []

    def serve() -> None:
        for _ in range(count):
            connection, _address = server.accept()
            with connection:
                requests.append(connection.recv(65_536))
                connection.sendall(answer)

    server.settimeout(admin_client.ACTION_TIMEOUT_S)
    thread = Thread(target=serve)
    thread.start()
    yield requests
    thread.join()


# Requests and responses


def test_a_request_with_a_body(relay: FakeRelay) -> None:
    """The body is sent as JSON, with the header field that changes need."""
    relay.body, relay.status = {"network": "192.0.2.7/32"}, 201
    response = AdminClient(relay.url).request("POST", "/jail", {"address": "192.0.2.7", "seconds": 60})
    assert response == AdminResponse(201, {"network": "192.0.2.7/32"}, None)
    assert (relay.requests, relay.bodies) == ([("POST", "/jail")], [{"address": "192.0.2.7", "seconds": 60}])
    (fields,) = relay.received
    assert (fields["X-Pyryrelay-Admin"], fields["Content-Type"]) == ("1", "application/json")


def test_a_request_without_a_body(relay: FakeRelay) -> None:
    """A request without a body has no content type, and accepts JSON."""
    relay.body = []
    AdminClient(f"{relay.url}/").request("DELETE", "/jail/192.0.2.7")
    (fields,) = relay.received
    assert (relay.requests, relay.bodies) == ([("DELETE", "/jail/192.0.2.7")], [None])
    assert fields["Accept"] == "application/json"
    assert "Content-Type" not in fields


@pytest.mark.parametrize(("field", "total"), [("1002", 1002), ("", None), ("-1", None), ("many", None), ("\xb2", None)])
def test_the_length_of_the_whole_list(relay: FakeRelay, field: str, total: int | None) -> None:
    """``X-Total-Count`` is read where it is a number."""
    relay.body, relay.fields = [1, 2], {"X-Total-Count": field}
    assert AdminClient(relay.url).request("GET", "/jail") == AdminResponse(200, [1, 2], total)


def test_a_relay_at_a_unix_socket(tmp_path: Path) -> None:
    """``unix:PATH`` connects to the socket for each request, and names localhost as the host."""
    path = tmp_path / "admin.sock"
    client = AdminClient(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with raw_server(server, EMPTY_LIST, 2) as requests:
            for _ in range(2):
                assert client.request("GET", "/jail").body == []
    assert [request.splitlines()[0] for request in requests] == [b"GET /jail HTTP/1.1"] * 2
    assert all(b"\r\nHost: localhost\r\n" in request for request in requests)


def test_proxies_of_the_environment_are_not_used(relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are sent directly, whatever proxies the environment names."""
    relay.body = []
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert AdminClient(relay.url).request("GET", "/jail").body == []


def test_redirects_are_not_followed(relay: FakeRelay) -> None:
    """A server that redirects is not the admin listener of a relay."""
    relay.status, relay.fields, relay.body = 302, {"Location": f"{relay.url}/other"}, b""
    assert "is not the admin listener of a relay" in failure_of(relay.url)
    assert len(relay.requests) == 1


def test_responses_are_bounded(relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body is read up to `MAX_RESPONSE_BYTES`; what is cut off there is no JSON."""
    monkeypatch.setattr(admin_client, "MAX_RESPONSE_BYTES", 10)
    relay.body = b'["7 bytes"]'
    assert "is not the admin listener of a relay" in failure_of(relay.url)
    relay.body = b'["6 byte"]'
    assert AdminClient(relay.url).request("GET", "/jail").body == ["6 byte"]


# Tokens


def test_a_token_is_sent(relay: FakeRelay, tmp_path: Path) -> None:
    """The token in the file, without blanks around it, is sent with every request."""
    path, relay.body = tmp_path / "token", []
    path.write_text("  a-token\n")
    client = AdminClient(relay.url, str(path))
    path_read = [client.request("GET", "/jail").status for _ in range(2)]
    assert path_read == [200, 200]
    assert [fields["Authorization"] for fields in relay.received] == ["Bearer a-token"] * 2
    AdminClient(relay.url).request("GET", "/jail")
    assert "Authorization" not in relay.received[-1]


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two words", b"caf\xc3\xa9", b"x" * 4097, b"two\nlines"])
def test_a_file_without_a_token(relay: FakeRelay, tmp_path: Path, content: bytes | None) -> None:
    """A file that cannot be a token is one line that does not quote it, before anything is sent."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=r"^--admin-token-file '.*token' (cannot be read|holds no token)") as raised:
        AdminClient(relay.url, str(path)).request("GET", "/jail")
    assert "words" not in str(raised.value)
    assert relay.requests == []


def test_a_path_that_is_none(relay: FakeRelay) -> None:
    """A name that cannot be a path is an error like any other."""
    with pytest.raises(CommandError, match="it is no path"):
        AdminClient(relay.url, "a\0b").request("GET", "/jail")


def test_a_token_that_is_missing_or_wrong(relay: FakeRelay, tmp_path: Path) -> None:
    """A listener that asks for a token is answered with the option, whatever it says."""
    relay.status, relay.body = 401, {"error": "no token"}
    assert failure_of(relay.url) == (
        f"{relay.url} asks for a token: name the relay's --admin-token-file with --admin-token-file, "
        "or in PYRYRELAY_ADMIN_TOKEN_FILE"
    )
    path = tmp_path / "token"
    path.write_text("wrong")
    with pytest.raises(CommandError, match="does not accept this token: name the relay's --admin-token-file"):
        AdminClient(relay.url, str(path)).request("GET", "/jail")


# Errors


@pytest.mark.parametrize("status", [400, 404, 422, 500, 200])
def test_an_error_of_the_relay(relay: FakeRelay, status: int) -> None:
    """The text of an error is raised as it is, whatever the status."""
    relay.status, relay.body = status, {"error": "'192.0.2.7' is not jailed"}
    assert failure_of(relay.url) == "'192.0.2.7' is not jailed"


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b'"text"', b"[" * 100_000, {"detail": "x"}, {"error": 7}, []])
def test_a_server_that_is_no_relay(relay: FakeRelay, body: object) -> None:
    """An error that is not a relay's, whatever it is, names the option that is probably wrong."""
    relay.body, relay.status = body, 404
    assert failure_of(relay.url) == (
        f"{relay.url} is not the admin listener of a relay: give the relay's --admin-listen address with --admin"
    )


def test_a_relay_that_is_not_running() -> None:
    """Where a connection is refused, the error says to start the relay or to give its address."""
    with reserve_port() as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        assert failure_of(url) == (
            f"{url}: connection refused: start the relay, or give its --admin-listen address with --admin"
        )


def test_unix_sockets_without_a_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket may be missing, stale, or closed to this user; each has its own fix."""
    path = tmp_path / "admin.sock"
    assert failure_of(f"unix:{path}").startswith(f"unix:{path}: the socket does not exist: start the relay, or give")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    assert failure_of(f"unix:{path}").startswith(f"unix:{path}: connection refused: start the relay")
    client = AdminClient(f"unix:{path}")

    def denied(*_: object, **__: object) -> None:
        raise URLError(PermissionError(13, "Permission denied"))

    monkeypatch.setattr(OpenerDirector, "open", denied)
    with pytest.raises(CommandError, match="permission denied: run the command as the relay's user, or as root"):
        client.request("GET", "/jail")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n"])
def test_a_server_that_does_not_speak_http(answer: bytes) -> None:
    """A server that closes the connection, or sends something other than HTTP, is named as such."""
    with socket.create_server(("127.0.0.1", 0)) as server, raw_server(server, answer):
        problem = failure_of(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert "the server closed the connection or does not speak HTTP: give" in problem


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request fails after `ACTION_TIMEOUT_S`."""
    monkeypatch.setattr(admin_client, "ACTION_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        problem = failure_of(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert "no answer within 0 s: check whether the relay is overloaded" in problem


@pytest.mark.parametrize("host", ["relay.invalid", "a" * 64])
def test_a_host_name_that_does_not_exist(host: str) -> None:
    """A name that cannot be looked up, or is none, is an error of the connection."""
    problem = failure_of(f"http://{host}")
    assert problem.startswith(f"http://{host}: cannot connect (")
    assert problem.endswith("): check --admin")


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n\r\n[", b"HTTP/1.1 400 Bad\r\n\r\n["])
def test_a_server_that_answers_for_ever(monkeypatch: pytest.MonkeyPatch, beginning: bytes) -> None:
    """The time is for the whole answer, however slowly its bytes arrive."""
    monkeypatch.setattr(admin_client, "ACTION_TIMEOUT_S", 0.3)
    gone = Event()

    def drip(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(beginning)
        try:
            while not gone.wait(0.01):
                connection.sendall(b" " if beginning else b"H")
        except OSError:
            gone.set()

    with serving(drip) as port:
        began = time.monotonic()
        assert "no answer within" in failure_of(f"http://127.0.0.1:{port}")
        assert time.monotonic() - began < 20
        assert gone.wait(20), "the connection goes on"


def test_a_token_in_a_pipe_without_a_writer(relay: FakeRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and does not block."""
    os.mkfifo(tmp_path / "token")
    monkeypatch.setattr(content_of, "__defaults__", (0.01,))
    with pytest.raises(CommandError, match="cannot be read"):
        AdminClient(relay.url, str(tmp_path / "token")).request("GET", "/jail")


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1" * 101, b"1" * 5000])
def test_numbers_that_no_relay_sends(number: bytes) -> None:
    """What uses them need not expect them."""
    body = b'{"n": %b}' % number
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with serving(answering(answer)) as port:
        assert "is not the admin listener of a relay" in failure_of(f"http://127.0.0.1:{port}")
