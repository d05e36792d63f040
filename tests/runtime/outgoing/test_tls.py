"""TLS of connections that the relay makes, against OpenSSL in memory."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from pyryrelay.runtime.outgoing import tls
from pyryrelay.runtime.outgoing.tls import ClientTls, TlsFileError, client_context

NOW = datetime.datetime.now(datetime.UTC)
PEM = serialization.Encoding.PEM
HOUR = datetime.timedelta(hours=1)


class Authority:
    """Issues certificates, into files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self.path = self._write("authority", self._sign(self._name, self._key, True, (), 1), self._key)

    def issue(self, name: str, *hosts: str, hours: float = 1, password: bytes = b"") -> Path:
        """Return a file with a certificate for these hosts, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return self._write(name, self._sign(subject, key, False, hosts, hours), key, password)

    def _sign(self, subject: x509.Name, key: Any, is_ca: bool, hosts: tuple[str, ...], hours: float) -> Any:
        builder = x509.CertificateBuilder(
            self._name, subject, key.public_key(), x509.random_serial_number(), NOW - 9 * HOUR, NOW + hours * HOUR
        ).add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        if hosts:
            names: list[x509.GeneralName] = [
                x509.IPAddress(ip_address(host)) if ":" in host or host[0].isdigit() else x509.DNSName(host)
                for host in hosts
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate, key: Any, password: bytes = b"") -> Path:
        how: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        path = self._folder / f"{name}.pem"
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how)
        path.write_bytes(certificate.public_bytes(PEM) + secret)
        return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A private authority."""
    return Authority(tmp_path)


def shake_hands(context: SSL.Context, host: str, shown: Path, trusted: Path | None = None) -> tuple[list[str], Any]:
    """Connect to a server that shows a certificate; return what was told, and what the server got of the client."""
    told: list[str] = []
    connection = ClientTls(context, host, told.append).clientConnectionForTLS(None)
    connection.set_connect_state()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(shown)
    if trusted is not None:
        serving.load_verify_locations(trusted)
        serving.verify_mode = ssl.CERT_REQUIRED
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(incoming, outgoing, server_side=True)
    names: list[str | None] = []
    serving.sni_callback = lambda _, name, __: names.append(name)
    for _ in range(4):
        for step in (connection.do_handshake, server.do_handshake):
            _step(step)
            if data := _step(lambda: connection.bio_read(65536)):
                incoming.write(data)
            if data := outgoing.read():
                connection.bio_write(data)
    assert names == [None if ip_like(host) else host]
    return told, None if told != [""] else server.getpeercert()


def ip_like(host: str) -> bool:
    """Tell whether a host is an address."""
    return ":" in host or host[0].isdigit()


def _step(step: Callable[[], Any]) -> Any:
    try:
        return step()
    except (SSL.Error, ssl.SSLError):
        return None


@pytest.mark.parametrize(
    ("host", "names", "told"),
    [
        ("relay.example", ("relay.example",), ""),
        ("127.0.0.1", ("127.0.0.1",), ""),
        ("::1", ("::1",), ""),
        ("relay.example", ("other.example",), "its certificate is for another name"),
        ("127.0.0.1", ("relay.example",), "its certificate is for another name"),
        ("relay.example", (), "its certificate has no name (subjectAltName)"),
    ],
)
def test_names_of_certificates(authority: Authority, host: str, names: tuple[str, ...], told: str) -> None:
    """The certificate must be for the host. Its common name does not count."""
    shown = authority.issue(host.replace(":", ""), *names)
    assert shake_hands(client_context(authority.path), host, shown)[0] == [told]


def test_what_cannot_be_checked_is_refused(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a callback of OpenSSL would accept the certificate."""
    monkeypatch.setattr(tls, "extract_patterns", lambda certificate: 1 / 0)
    shown = authority.issue("relay", "relay.example")
    told, _ = shake_hands(client_context(authority.path), "relay.example", shown)
    assert told == ["its certificate cannot be checked (ZeroDivisionError)"]


def test_certificates_that_are_not_trusted(authority: Authority, tmp_path: Path) -> None:
    """The authority, and the dates, must be right."""
    shown, old = authority.issue("relay", "relay.example"), authority.issue("old", "relay.example", hours=-1)
    assert shake_hands(client_context(), "relay.example", shown)[0] == [
        "the authority of its certificate is not trusted"
    ]
    told, _ = shake_hands(client_context(authority.path), "relay.example", old)
    assert told == ["its certificate has expired"]


def test_certificates_of_clients(authority: Authority) -> None:
    """Servers that ask for it are shown the relay's own."""
    shown, own = authority.issue("relay", "relay.example"), authority.issue("own")
    context = client_context(authority.path, own)
    told, got = shake_hands(context, "relay.example", shown, authority.path)
    assert told == [""]
    assert got["subject"] == ((("commonName", "own"),),)


def test_files_that_are_wrong(authority: Authority, tmp_path: Path) -> None:
    """Each error names the file. An encrypted key asks nobody for its password."""
    (tmp_path / "empty").write_bytes(b"")
    own, other = authority.issue("own"), authority.issue("other")
    locked = authority.issue("locked", password=b"secret")
    for arguments, told in (
        ((tmp_path / "empty",), "empty: it has no certificates in PEM"),
        ((None, tmp_path / "empty"), "empty: it has no certificates in PEM"),
        ((None, own, tmp_path / "empty"), "empty: it has no private key in PEM"),
        ((None, own, other), f"other.pem: its key is not that of the certificate in {own}"),
        ((None, locked), "locked.pem: its key is encrypted"),
    ):
        with pytest.raises(TlsFileError) as refused:
            client_context(*arguments)
        assert str(refused.value) == f"{tmp_path}/{told}"
    with pytest.raises(FileNotFoundError):
        client_context(tmp_path / "none")
