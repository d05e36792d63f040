"""Names, TCP and TLS, against servers on loopback."""

from __future__ import annotations

import datetime
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.end_to_end.harness import reserve_port
from tests.support.odd_servers import server_context, serving

from pyryrelay.cli.probe import sockets
from pyryrelay.cli.probe.sockets import Deadline, TlsState, addresses_of, connect_any, secure, tls_context
from pyryrelay.cli.probe.target import Target
from pyryrelay.protocol_options import ProbeError

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def write_certificate(folder: Path, days: float = 30, name: str = "localhost") -> Path:
    """Write a self-signed certificate of a name and of 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - 90 * DAY).not_valid_after(NOW + days * DAY)
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    return folder / "cert.pem"


def connected(port: int) -> socket.socket:
    """Connect to a port of loopback."""
    return socket.create_connection(("127.0.0.1", port), 60)


def wait_for_end(connection: socket.socket) -> None:
    """Serve by waiting for the client to leave."""
    connection.recv(1)


# Names


def test_names_are_looked_up() -> None:
    """A name has its addresses; one that is none is a problem in words."""
    assert ("127.0.0.1", 80) in [address[4] for address in addresses_of("127.0.0.1", 80, 60.0)]
    for name in ("relay.invalid", "a" * 64):
        with pytest.raises(ProbeError, match="cannot be looked up"):
            addresses_of(name, 80, 60.0)


def test_a_resolver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that hangs does not hold the probe for longer than its time."""
    hangs = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hangs.wait(60) and [])
    with pytest.raises(ProbeError, match=r"no answer within 0\.05 s"):
        addresses_of("relay.example", 80, 0.05)
    hangs.set()


# TCP


def test_the_first_address_that_answers_is_used() -> None:
    """Addresses that do not answer are told, if a later one does; otherwise the first is the problem."""
    with reserve_port() as held, serving(wait_for_end) as port:
        refused = addresses_of("127.0.0.1", held.getsockname()[1], 60.0)
        told: list[str] = []
        sock, where = connect_any([*refused, *addresses_of("127.0.0.1", port, 60.0)], Deadline(60.0), told.append)
        sock.close()
        assert where == f"127.0.0.1:{port}"
        assert [text.partition(": ")[2] for text in told] == [
            "connection refused: nothing listens there, or a firewall rejects it"
        ]
        with pytest.raises(ProbeError, match="connection refused"):
            connect_any(refused, Deadline(60.0), told.append)


def test_deadlines() -> None:
    """A deadline that has passed is an error, and none is left."""
    times = iter([0.0, 4.0, 4.0, 11.0, 11.0])
    deadline = Deadline(10.0, lambda: next(times))
    with socket.socket() as sock:
        deadline.apply(sock)
        assert sock.gettimeout() == 6.0
        assert deadline.left_s == 6.0
        with pytest.raises(TimeoutError):
            deadline.apply(sock)
        assert deadline.left_s == 0.0


# TLS


def test_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    """Version, names and end of the certificate are told."""
    file = write_certificate(tmp_path)
    with serving(wait_for_end, server_context(tmp_path)) as port:
        target = Target("wss", "localhost", port, "")
        secured, state = secure(connected(port), target, str(file), Deadline(60.0), verify=True)
        secured.close()
    assert state.describe(NOW).startswith("TLSv1.3, certificate of localhost, ends ")
    assert state.describe(NOW).endswith("(30 days left)")
    assert TlsState("TLSv1.2", "a", NOW - DAY).describe(NOW).endswith("(EXPIRED)")


@pytest.mark.parametrize(
    ("days", "host", "trusts", "problem"),
    [
        (30, "localhost", False, "it is self-signed"),
        (-1, "localhost", True, "it has expired"),
        (30, "relay.example", True, "it is for another name"),
        (30, "127.0.0.1", True, "it is for another address"),
    ],
)
def test_certificates_that_are_refused(tmp_path: Path, days: float, host: str, trusts: bool, problem: str) -> None:
    """The problem says why, and what the certificate is."""
    file = write_certificate(tmp_path, days)
    with serving(wait_for_end, server_context(tmp_path)) as port:
        target, ca_file = Target("wss", host, port, ""), str(file) if trusts else None
        with pytest.raises(ProbeError) as raised:
            secure(connected(port), target, ca_file, Deadline(60.0), verify=True)
    assert raised.value.problem.startswith(f"the certificate is refused: {problem} (it is of localhost, and ends 20")


def test_a_certificate_that_need_not_be_trusted(tmp_path: Path) -> None:
    """Without verification every certificate is accepted, and described."""
    write_certificate(tmp_path, -1)
    with serving(wait_for_end, server_context(tmp_path)) as port:
        secured, state = secure(connected(port), Target("wss", "x", port, ""), None, Deadline(60.0), verify=False)
        secured.close()
    assert state.days_left(NOW) < 0


def answer_in_plain_http(connection: socket.socket) -> None:
    """Answer like an HTTP server that gets a ClientHello."""
    connection.recv(4_096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.recv(4_096)


def say_nothing(connection: socket.socket) -> None:
    """Read everything, and answer nothing."""
    while connection.recv(4_096):
        pass


@pytest.mark.parametrize(
    ("handle", "timeout_s", "problem"),
    [
        (answer_in_plain_http, 60.0, "the server does not speak TLS on port "),
        (say_nothing, 0.1, "the server does not go on with the TLS handshake"),
    ],
)
def test_a_server_without_tls(handle: Callable[[socket.socket], None], timeout_s: float, problem: str) -> None:
    """A server that answers in plain HTTP is told from one that does not answer."""
    with serving(handle) as port:
        target, sock = Target("wss", "x", port, ""), connected(port)
        with pytest.raises(ProbeError, match=problem):
            secure(sock, target, None, Deadline(timeout_s), verify=True)


def test_a_certificate_that_goes_away_is_not_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the second look at a refused certificate fails, the problem is told without it."""
    write_certificate(tmp_path)
    monkeypatch.setattr(sockets, "_look_again", lambda *_: "")
    with serving(wait_for_end, server_context(tmp_path)) as port:
        target, sock = Target("wss", "localhost", port, ""), connected(port)
        with pytest.raises(ProbeError, match=r"it is self-signed; get one"):
            secure(sock, target, None, Deadline(60.0), verify=True)


def test_old_versions_are_not_spoken() -> None:
    """TLS begins at 1.2."""
    context = tls_context(None, verify=True)
    assert context.minimum_version.name == "TLSv1_2"
    with pytest.raises(OSError, match="No such file"):
        tls_context("/no/such/file", verify=True)
