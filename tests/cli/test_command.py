"""The command line of the admin API, against a small HTTP server on loopback with prepared answers."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.end_to_end.harness import reserve_port

from pyryrelay import __version__
from pyryrelay.cli import admin_client, command

SOURCE = Path(__file__).parents[2] / "src"
ENTRIES = [
    {"network": "192.0.2.7/32", "seconds_left": 59.7, "times": 0},
    {"network": "2001:db8::/64", "seconds_left": 9_030.0, "times": 3},
]


@dataclass
class FakeRelay:
    """What the server was asked, and its answer: raw bytes, or JSON."""

    url: str = ""
    status: int = 200
    body: Any = None
    fields: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    guard: list[str | None] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)


@pytest.fixture
def relay() -> Iterator[FakeRelay]:
    """Run a server for one test."""
    fake = FakeRelay()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            fake.asked.append((self.command, self.path))
            fake.guard.append(self.headers["X-Pyryrelay-Admin"])
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fake.bodies.append(json.loads(sent) if sent else None)
            content = fake.body if isinstance(fake.body, bytes) else json.dumps(fake.body).encode()
            self.send_response(fake.status)
            for name, value in fake.fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Ran:
    """The exit code and output of a command."""

    code: int | str | None
    out: str
    err: str


class Runner:
    """Run commands with standard output as a pipe or a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, relay: FakeRelay) -> None:
        self._monkeypatch = monkeypatch
        self._relay = relay

    def __call__(self, *argv: str, terminal: bool = False, env: dict[str, str] | None = None) -> Ran:
        out = Terminal() if terminal else io.StringIO()
        err = io.StringIO()
        env = {command.URL_VARIABLE: self._relay.url} if env is None else env
        with self._monkeypatch.context() as patched:
            patched.setattr("sys.stdout", out)
            patched.setattr("sys.stderr", err)
            try:
                code: int | str | None = command.main(argv, env)
            except SystemExit as ended:
                code = ended.code
        assert err.getvalue().count("\n") <= 1, "errors are one line"
        return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, relay: FakeRelay) -> Runner:
    """Run commands against the relay."""
    return Runner(monkeypatch, relay)


# The jail


def test_terminals_get_an_aligned_table(run: Runner, relay: FakeRelay) -> None:
    """On a terminal the jail is a table with headings, the longest sentence first."""
    relay.body = ENTRIES
    ran = run("jail", "list", terminal=True)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == ("NETWORK        LEFT    SENTENCES\n2001:db8::/64  2h 30m  3\n192.0.2.7/32   1m      by hand\n")
    assert relay.asked == [("GET", "/jail?limit=10000")]


def test_pipes_get_bare_rows(run: Runner, relay: FakeRelay) -> None:
    """In a pipe there are only rows, separated by tabs, and an empty jail prints nothing."""
    relay.body = ENTRIES
    assert run("jail", "list").out == "2001:db8::/64\t2h 30m\t3\n192.0.2.7/32\t1m\tby hand\n"
    relay.body = []
    assert run("jail", "list").out == ""
    assert run("jail", "list", terminal=True).out == "nobody is jailed\n"


def test_what_is_not_shown_is_counted(run: Runner, relay: FakeRelay) -> None:
    """On a terminal the number of entries that were left out is shown."""
    relay.body, relay.fields = ENTRIES, {"X-Total-Count": "1002"}
    assert run("jail", "list", terminal=True).out.endswith("\n1000 more are not shown\n")
    assert "more" not in run("jail", "list").out


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ((), 600),
        (("--for", "90s"), 90),
        (("--for", "10m"), 600),
        (("--for", "2h30m"), 9_000),
        (("--for", "7d"), 604_800),
        (("--for=45",), 45),
    ],
)
def test_jails_for_a_time(run: Runner, relay: FakeRelay, options: tuple[str, ...], seconds: int) -> None:
    """`jail add` sends the address and its time in seconds, with the header that changes need."""
    relay.body, relay.status = ENTRIES[0], 201
    assert run("jail", "add", "192.0.2.7", *options) == Ran(0, "", "")
    assert relay.asked == [("POST", "/jail")]
    assert relay.bodies == [{"address": "192.0.2.7", "seconds": seconds}]
    assert relay.guard == ["1"]


def test_terminals_get_a_confirmation(run: Runner, relay: FakeRelay) -> None:
    """On a terminal a change is confirmed."""
    relay.body = ENTRIES[0]
    assert run("jail", "add", "192.0.2.7", terminal=True).out == "192.0.2.7/32 is jailed for 1m\n"
    assert run("jail", "release", "2001:db8::/64", terminal=True).out == "2001:db8::/64 is released\n"
    assert relay.asked[1] == ("DELETE", "/jail/2001%3Adb8%3A%3A%2F64")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1s"), (59, "59s"), (60, "1m"), (599.6, "10m"), (3_661, "1h 1m"), (90_000, "1d 1h")]
)
def test_durations_are_short(run: Runner, relay: FakeRelay, seconds: float, text: str) -> None:
    """A remaining time is shown in at most two units."""
    relay.body = [{"network": "192.0.2.7/32", "seconds_left": seconds, "times": 1}]
    assert run("jail", "list").out == f"192.0.2.7/32\t{text}\t1\n"


# Reload and whoami


def test_reload_tells_what_changed(run: Runner, relay: FakeRelay) -> None:
    """`reload` lists the options that changed and those that wait for a restart."""
    relay.body = {"changed": ["deny", "grace"], "needs_restart": ["listen"], "error": None}
    assert run("reload").out == "deny\tchanged\ngrace\tchanged\nlisten\tneeds a restart\n"
    assert relay.asked == [("POST", "/reload")]
    relay.body = {"changed": [], "needs_restart": [], "error": None}
    assert run("reload").out == ""
    assert run("reload", terminal=True).out == "nothing has changed\n"


def test_a_refused_reload_is_an_error(run: Runner, relay: FakeRelay) -> None:
    """A configuration that the relay refuses ends with exit code 1 and the relay's line."""
    relay.status = 422
    relay.body = {"changed": [], "needs_restart": [], "error": "deny.txt:3: 'x' is not a network"}
    assert run("reload") == Ran(1, "", "pyryrelay: deny.txt:3: 'x' is not a network\n")


def test_whoami_prints_the_steps(run: Runner, relay: FakeRelay) -> None:
    """`whoami` asks for a peer and header lines, and prints the steps with control characters escaped."""
    relay.body = {"steps": ["peer 10.0.0.7 is a trusted proxy", "entry 1 \x1b[2J is the client"]}
    ran = run("whoami", "--peer", "10.0.0.7", "--header", "X-Forwarded-For: 203.0.113.9", "--header", "Forwarded:for=a")
    assert ran.out == "peer 10.0.0.7 is a trusted proxy\nentry 1 \\x1b[2J is the client\n"
    assert run("whoami").code == 0
    assert relay.asked == [
        ("GET", "/whoami?peer=10.0.0.7&header=X-Forwarded-For%3A+203.0.113.9&header=Forwarded%3Afor%3Da"),
        ("GET", "/whoami"),
    ]


# JSON


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (("jail", "list"), ENTRIES),
        (("jail", "add", "192.0.2.7"), ENTRIES[0]),
        (("jail", "release", "192.0.2.7"), {"network": "192.0.2.7/32"}),
        (("reload",), {"changed": ["deny"], "needs_restart": [], "error": None}),
        (("whoami",), {"steps": ["a"]}),
    ],
)
def test_json_is_the_relays_answer(run: Runner, relay: FakeRelay, command: tuple[str, ...], body: object) -> None:
    """`--json`, before or after the command, prints the answer of the relay:

    one line in a pipe, indented on a terminal.
    """
    relay.body = body
    assert run("--json", *command).out == json.dumps(body) + "\n"
    assert run(*command, "--json", terminal=True).out == json.dumps(body, indent=2) + "\n"


def test_errors_are_json_as_well(run: Runner, relay: FakeRelay) -> None:
    """With `--json` errors are on standard output as well, with the same exit code."""
    relay.status, relay.body = 404, {"error": "'192.0.2.7' is not jailed"}
    ran = run("--json", "jail", "release", "192.0.2.7")
    assert (ran.code, json.loads(ran.out), ran.err) == (1, relay.body, "")


# Finding the relay


def test_a_relay_at_a_unix_socket(run: Runner, tmp_path: Path) -> None:
    """With `--admin unix:PATH` requests name localhost, and each one opens the socket anew."""
    path = tmp_path / "admin.sock"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    asked: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            with server.accept()[0] as client:
                asked.append(client.recv(4096))
                client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(admin_client.TIMEOUT_S)
        thread = Thread(target=serve)
        thread.start()
        assert run("--admin", f"unix:{path}", "jail", "list").code == 0
        assert run("jail", "list", env={command.URL_VARIABLE: f"unix:{path}"}).code == 0
        thread.join()
    assert [line.splitlines()[0] for line in asked] == [b"GET /jail?limit=10000 HTTP/1.1"] * 2
    assert all(b"\r\nHost: localhost\r\n" in line for line in asked)
    ran = run("--admin", f"unix:{path}", "jail", "list")
    assert (ran.code, ran.err.startswith(f"pyryrelay: unix:{path}: nobody listens there")) == (1, True)
    ran = run("--admin", f"unix:{tmp_path}/none", "jail", "list")
    assert "there is no such socket: start the relay, or name its --admin-listen with --admin unix:PATH" in ran.err


def test_the_option_goes_before_the_environment(run: Runner, relay: FakeRelay) -> None:
    """`--admin`, before or after the command, wins over the variable."""
    relay.body = []
    bad = {command.URL_VARIABLE: "http://127.0.0.1:1"}
    assert run("--admin", relay.url, "jail", "list", env=bad).code == 0
    assert run("jail", "list", "--admin", f"{relay.url}/", env=bad).code == 0
    assert relay.asked == [("GET", "/jail?limit=10000")] * 2


def test_proxies_of_the_environment_are_not_used(
    run: Runner, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxy variables of the environment are ignored."""
    relay.body = []
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert run("jail", "list").code == 0


def test_a_relay_that_does_not_run(run: Runner) -> None:
    """Where nothing listens, one line says so with the fix, and the exit code is 1."""
    with reserve_port() as held:
        port = held.getsockname()[1]
        ran = run("--admin", f"http://127.0.0.1:{port}", "jail", "list")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"pyryrelay: http://127.0.0.1:{port}: nobody listens there: start the relay, or name")


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b'"text"', b"[" * 100_000, {"detail": "x"}])
def test_another_server_at_the_port(run: Runner, relay: FakeRelay, body: object) -> None:
    """An answer that is not from a relay is recognized as such."""
    relay.body, relay.status = body, 404
    ran = run("reload")
    assert ran.code == 1
    assert ran.err.startswith(f"pyryrelay: {relay.url} answers, but not as a relay's admin listener: name its")


@pytest.mark.parametrize("command", [("jail", "list"), ("jail", "add", "192.0.2.7"), ("reload",), ("whoami",)])
@pytest.mark.parametrize("body", [{}, [1], {"steps": 1, "changed": None}])
def test_an_answer_of_another_version(run: Runner, relay: FakeRelay, command: tuple[str, ...], body: object) -> None:
    """JSON of another shape is one line of error."""
    relay.body = body
    ran = run(*command)
    if ran.code == 0:
        assert (command, body, ran.out) == (("jail", "list"), {}, "")
    else:
        assert ran.err.endswith("use the same version of pyryrelay as the relay\n")


def test_redirects_are_not_followed(run: Runner, relay: FakeRelay) -> None:
    """A redirect is an error, since an admin listener never sends one."""
    relay.status, relay.fields, relay.body = 302, {"Location": f"{relay.url}/other"}, b""
    assert run("reload").code == 1
    assert len(relay.asked) == 1


def _listener(answer: bytes) -> tuple[socket.socket, Thread]:
    """Run a server that reads a request, answers once with these bytes and hangs up."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(admin_client.TIMEOUT_S)

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    thread = Thread(target=serve)
    thread.start()
    return server, thread


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n"])
def test_a_server_that_speaks_no_http(run: Runner, answer: bytes) -> None:
    """A server that hangs up or speaks another protocol is one line, with exit code 1."""
    server, thread = _listener(answer)
    with server:
        ran = run("--admin", f"http://127.0.0.1:{server.getsockname()[1]}", "jail", "list")
        thread.join()
    assert ran.code == 1
    assert "hung up, or speaks no HTTP" in ran.err


def test_a_server_that_does_not_answer(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer in time is an error."""
    monkeypatch.setattr(admin_client, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ran = run("--admin", f"http://127.0.0.1:{server.getsockname()[1]}", "jail", "list")
    assert ran.code == 1
    assert "no answer within" in ran.err


def test_a_name_that_cannot_be_looked_up(run: Runner) -> None:
    """A host name that does not exist is one line of error."""
    for host in ("relay.invalid", "a" * 64):
        ran = run("--admin", f"http://{host}", "jail", "list")
        assert (ran.code, "cannot be reached" in ran.err) == (1, True)


# The command line


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ((), "required: COMMAND"),
        (("jail",), "required: COMMAND"),
        (("jail", "add"), "required: ADDRESS"),
        (("jail", "add", "192.0.2.7", "--for", "soon"), "'soon' is no duration: write 90s, 10m"),
        (("jail", "add", "192.0.2.7", "--for", ""), "'' is no duration"),
        (("jail", "add", "192.0.2.7", "--for", "400d"), "'400d' is too long: write up to 366d, or put the address on"),
        (("jail", "add", "192.0.2.7", "--for", "0m"), "'0m' is no time at all: write 1s or more"),
        (("--admin", "unix:", "reload"), "'unix:' has no path: write unix:/run"),
        (("jail", "add", "192.0.2.7", "--for", "-5"), "--for"),
        (("jail", "add", "192.0.2.7", "--for", "\u0663m"), "is no duration"),
        (("whoami", "--header", "203.0.113.9"), "'203.0.113.9' is no header: write"),
        (("whoami", "--header", "A: b\r\nC: d"), "is no header"),
        (("--admin", "ftp://127.0.0.1", "reload"), "'ftp://127.0.0.1' is no URL of an admin listener: write http://"),
        (("--admin", "127.0.0.1:9090", "reload"), "is no URL"),
        (("--admin", "http://", "reload"), "is no URL"),
        (("--admin", "http://me:secret@127.0.0.1", "reload"), "is no URL"),
        (("--admin", "http://127.0.0.1:99999", "reload"), "is no URL"),
        (("--admin", "http://127.0.0.1/x", "reload"), "is no URL"),
        (("--admin", "http://127.0.0.1 /", "reload"), "is no URL"),
        (("restart",), "invalid choice: 'restart'"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    run: Runner, relay: FakeRelay, argv: tuple[str, ...], problem: str
) -> None:
    """A wrong command line sends nothing, and ends with one line, its fix and exit code 2."""
    ran = run(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err
    assert "--help" in ran.err
    assert relay.asked == []


def test_a_wrong_variable_is_named(run: Runner) -> None:
    """A bad URL in the environment is refused with the name of the variable."""
    ran = run("reload", env={command.URL_VARIABLE: "relay"})
    assert (ran.code, ran.err.startswith(f"pyryrelay: {command.URL_VARIABLE}: 'relay' is no URL")) == (2, True)


@pytest.mark.parametrize("command", [(), ("jail",), ("jail", "add"), ("whoami",)])
def test_help_has_examples(run: Runner, command: tuple[str, ...]) -> None:
    """`--help` ends with exit code 0 and shows examples."""
    ran = run(*command, "--help")
    assert ran.code == 0
    assert ("examples:\n  pyryrelay " in ran.out) or command == ("jail", "add")
    assert max(map(len, ran.out.splitlines())) <= 120


def test_version(run: Runner) -> None:
    """`--version` prints the version of the package."""
    assert run("--version") == Ran(0, f"pyryrelay {__version__}\n", "")


def test_ctrl_c_is_no_traceback(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command without a traceback."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(admin_client.AdminClient, "ask", interrupt)
    assert run("reload") == Ran(1, "", "")


def test_a_closed_pipe_is_no_error(relay: FakeRelay) -> None:
    """A closed pipe, as in `pyryrelay jail list | head -0`, is no error."""
    relay.body = ENTRIES
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "pyryrelay.cli.command", "--admin", relay.url, "jail", "list"]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, env=env, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
