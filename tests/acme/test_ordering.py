"""Orders at a real authority, Pebble; and what is said when one fails."""

from __future__ import annotations

import datetime
import http.server
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from acme import errors, messages
from cryptography import x509
from tests.support.certificates import certificate_and_key, write_certificate
from tests.support.odd_servers import answering as answer_once
from tests.support.odd_servers import read_head, serving
from tests.support.pebble import MISSING, Pebble, pebble
from tests.support.ports import free_port

from pyryrelay.acme import ordering
from pyryrelay.acme.challenges import PATH
from pyryrelay.acme.ordering import MAX_CHAIN_BYTES, OrderError, _network, _problem, ask_window, order
from pyryrelay.acme.wire import AskWindow, Challenge, Issued, Order
from pyryrelay.config.options.acme_options import ChallengeKind

NAME = "relay.example.org"
needs_pebble = pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is not installed")


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """The ports at which the authority checks challenges: HTTP, TLS."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Pebble]:
    """A running authority, which child processes trust."""
    folder = tmp_path_factory.mktemp("pebble")
    with pebble(folder, write_certificate(folder, "localhost"), *ports) as running:
        yield running


@pytest.fixture(autouse=True)
def trusted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the certificate of the authority, as an operator with one of their own does."""
    if "authority" in request.fixturenames:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(request.getfixturevalue("authority").trusted))


class Answers:
    """Answers challenges as the relay does, with a small server for each kind."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self._ports = ports
        self._servers: list[socket.socket | http.server.HTTPServer] = []
        self.kinds: list[ChallengeKind] = []

    def __call__(self, challenge: Challenge) -> None:
        """Answer a challenge from now on."""
        self.kinds.append(challenge.kind)
        serve = self._http if challenge.kind == "http-01" else self._tls
        serve(challenge)

    def _http(self, challenge: Challenge) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == PATH + challenge.token else 404)
                self.end_headers()
                self.wfile.write(challenge.text.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = http.server.HTTPServer(("127.0.0.1", self._ports[0]), Handler)
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def _tls(self, challenge: Challenge) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["acme-tls/1"])
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(challenge.text)
            file.flush()
            context.load_cert_chain(file.name)
        server = socket.create_server(("127.0.0.1", self._ports[1]))
        self._servers.append(server)
        threading.Thread(target=self._handshakes, args=(server, context), daemon=True).start()

    def _handshakes(self, server: socket.socket, context: ssl.SSLContext) -> None:
        while True:
            try:
                peer, _ = server.accept()
                with context.wrap_socket(peer, server_side=True):
                    pass
            except ssl.SSLError:
                continue
            except OSError:
                return

    def stop(self) -> None:
        """Answer nothing any more."""
        for server in self._servers:
            if isinstance(server, http.server.HTTPServer):
                server.shutdown()
                server.server_close()
            else:
                server.shutdown(socket.SHUT_RDWR)
                server.close()


@pytest.fixture
def answers(ports: tuple[int, int]) -> Iterator[Answers]:
    """Servers that stop after the test."""
    found = Answers(ports)
    yield found
    found.stop()


def ordered(authority: Pebble, answers: Answers, *kinds: ChallengeKind, account: str = "", email: str = "") -> Issued:
    """Order a certificate."""
    return order(Order(authority.directory, NAME, email, kinds, account), answers)


@pytest.mark.thorough
@needs_pebble
@pytest.mark.parametrize("kind", ["http-01", "tls-alpn-01"])
def test_a_certificate_is_issued(authority: Pebble, answers: Answers, kind: ChallengeKind) -> None:
    """The authority checks the challenge for real; nonces that it rejects are no problem."""
    issued = ordered(authority, answers, kind, email="operator@example.org")
    assert answers.kinds == [kind]
    first, *others = x509.load_pem_x509_certificates(issued.pem.encode())
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert others, "clients need the intermediate certificate"
    assert issued.pem.count("PRIVATE KEY-----") == 2
    assert json.loads(issued.account)["kty"] == "EC"


@pytest.mark.thorough
@needs_pebble
def test_an_account_is_used_again(authority: Pebble, answers: Answers) -> None:
    """A second order with the key of the first does not make another account."""
    first = ordered(authority, answers, "http-01")
    answers.stop()
    again = ordered(authority, answers, "http-01", account=first.account)
    assert json.loads(again.account) == json.loads(first.account)


@pytest.mark.thorough
@needs_pebble
def test_a_broken_account_is_replaced(authority: Pebble, answers: Answers) -> None:
    """A file that somebody damaged does not keep the relay from its certificate."""
    assert json.loads(ordered(authority, answers, "http-01", account='{"kty":"EC"').account)["kty"] == "EC"


@pytest.mark.thorough
@needs_pebble
def test_a_challenge_that_nobody_answers(authority: Pebble) -> None:
    """The error says what the authority saw, and has the account, which is kept."""
    with pytest.raises(OrderError, match="the authority must reach the relay") as caught:
        order(Order(authority.directory, "other.example.org", "", ("http-01",), ""), lambda challenge: None)
    assert json.loads(caught.value.account)["kty"] == "EC"
    assert '"d"' not in str(caught.value)


@pytest.mark.thorough
@needs_pebble
def test_a_name_that_the_authority_refuses(authority: Pebble, answers: Answers) -> None:
    """Its words are passed on."""
    with pytest.raises(OrderError, match=r"\w+: .+"):
        order(Order(authority.directory, "not_a_name", "", ("http-01",), ""), answers)


@pytest.mark.thorough
@needs_pebble
def test_an_authority_that_is_not_trusted(authority: Pebble, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how to trust an authority of one's own."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(OrderError, match=r"not trusted .*REQUESTS_CA_BUNDLE") as caught:
        order(Order(authority.directory, NAME, "", ("http-01",), ""), lambda challenge: None)
    assert caught.value.account == ""


def test_an_authority_that_is_not_there() -> None:
    """Nothing listens: one line, with the cause."""
    with pytest.raises(OrderError, match=r"^the authority cannot be reached \(Connection refused\)$"):
        order(Order(f"http://127.0.0.1:{free_port()}/dir", NAME, "", ("http-01",), ""), lambda challenge: None)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that gives one answer to everything, in place of an authority; and its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.replace(b"HOST", f"127.0.0.1:{port}".encode()))

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{port}/dir"
        server.shutdown()


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"null", b"{}", b'{"newNonce": 5}'])
def test_an_authority_that_answers_nonsense(answer: bytes) -> None:
    """It is one line, and never a traceback."""
    with answering(answer) as url, pytest.raises(OrderError) as caught:
        order(Order(url, NAME, "", ("http-01",), ""), lambda challenge: None)
    assert "\n" not in str(caught.value)


def test_an_authority_cannot_send_requests_elsewhere() -> None:
    """Redirects are not followed, and an authority with HTTPS cannot name URLs without it."""
    reached: list[bytes] = []

    def elsewhere(connection: socket.socket) -> None:
        reached.append(read_head(connection))

    with serving(elsewhere) as port:
        location = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n"
        redirecting = serving(answer_once(location.encode()))
        with redirecting as authority, pytest.raises(OrderError, match="TooManyRedirects"):
            order(Order(f"http://127.0.0.1:{authority}/dir", NAME, "", ("http-01",), ""), lambda challenge: None)
        with pytest.raises(requests.exceptions.InvalidSchema):
            _network("https://ca.example/dir", None).get(f"http://127.0.0.1:{port}/nonce")
    assert reached == []


def test_a_chain_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every handshake would send it."""

    class Authority:
        def new_order(self, _: bytes) -> messages.OrderResource:
            return messages.OrderResource(authorizations=[])

        def poll_and_finalize(self, *_: object) -> messages.OrderResource:
            return messages.OrderResource(fullchain_pem="x" * (MAX_CHAIN_BYTES + 1))

    monkeypatch.setattr(ordering, "_client", lambda *_: Authority())
    monkeypatch.setattr(ordering, "_register", lambda *_: None)
    with pytest.raises(OrderError, match="a chain of more than 65536 bytes"):
        order(Order("https://ca.example/dir", NAME, "", ("http-01",), ""), lambda challenge: None)


def a_certificate() -> str:
    """Return a certificate that is valid."""
    return certificate_and_key(NAME, datetime.datetime.now(datetime.UTC), 90)[0].decode()


def test_when_the_authority_wants_the_renewal() -> None:
    """ARI (RFC 9773): a time within the window."""
    answer = json.dumps(
        {
            "renewalInfo": "http://HOST/ari",
            "suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00Z"},
        }
    )
    with answering(answer.encode()) as url:
        window = ask_window(AskWindow(url, a_certificate()))
    start = datetime.datetime(2026, 1, 2, 4, tzinfo=datetime.UTC).timestamp()
    assert window.renew_at is not None
    assert start <= window.renew_at <= start + 86_400
    assert window.ask_again_at > start


def test_an_authority_without_renewal_information() -> None:
    """It does not say when to renew, and is asked again later."""
    with answering(b'{"newNonce": "http://HOST/"}') as url:
        assert ask_window(AskWindow(url, a_certificate())).renew_at is None


def test_a_window_that_cannot_be_had() -> None:
    """It is an error of one line."""
    with pytest.raises(OrderError, match="cannot be reached"):
        ask_window(AskWindow(f"http://127.0.0.1:{free_port()}/dir", a_certificate()))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (messages.Error.with_code("rateLimited", detail="too many\nhere"), r"rateLimited: too many\nhere"),
        (messages.Error.from_json({"type": "urn:other", "title": "title"}), "error: title"),
        (errors.IssuanceError(messages.Error.with_code("caa", detail="forbidden")), "caa: forbidden"),
        (errors.TimeoutError(), "the authority did not finish within 180 s"),
        (requests.exceptions.ReadTimeout(), "the authority did not answer within 30 s"),
        (KeyError("newOrder"), "the authority answered in an unexpected way (KeyError)"),
    ],
)
def test_problems_are_one_line(error: Exception, text: str) -> None:
    """Texts of an authority cannot break lines of the log."""
    assert _problem(error) == text
