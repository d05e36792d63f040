"""Clients that speak TLS in memory to a `TlsTransport`, and certificates for the server."""

from __future__ import annotations

import contextlib
import datetime
import functools
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from tests.support.harness import ALICE, World, request_head
from tests.support.transports import Transport, tcp_address

from pyryrelay.listen.tls.certificates import Certificate, CertificateStore
from pyryrelay.listen.tls.transport import TlsFactory
from pyryrelay.runtime.fair_queue import FairQueue

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@functools.cache
def key_pair() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a key, and a self-signed certificate for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def named_certificate(
    *names: str, source: str = "files", days: float = 1, key: PrivateKeyTypes | None = None
) -> Certificate:
    """Return a certificate for these names that expires in so many days."""
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=100))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    return Certificate((certificate,), key, source)


def pem_of(certificate: Certificate) -> tuple[bytes, bytes]:
    """Return the chain and the key in PEM."""
    key = certificate.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificate.chain), key


def write_pair(certificate: Certificate, chain: Path, key: Path) -> None:
    """Write both files, the key so that only this user can read it."""
    for path, content in zip((chain, key), pem_of(certificate), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        path.chmod(0o600)
        path.write_bytes(content)


def store_of(*certificates: Certificate, parent: CertificateStore | None = None) -> CertificateStore:
    """Return a store with certificates, by default with that of `key_pair`."""
    store = CertificateStore(parent)
    key, certificate = key_pair()
    for each in certificates or (Certificate((certificate,), key, "default"),):
        store.install(each)
    return store


def endpoint_arguments(where: Path) -> str:
    """Write both to files, and return the arguments with which an ``ssl:`` endpoint reads them."""
    key, certificate = key_pair()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (where / "key.pem").touch(0o600)
    (where / "key.pem").write_bytes(secret)
    (where / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return f"privateKey={where}/key.pem:certKey={where}/cert.pem"


def client_context(
    version: ssl.TLSVersion = TLS_1_3, alpn: list[str] | None = None, keys: str | None = None
) -> ssl.SSLContext:
    """Return a client context of one version that accepts any certificate; ``keys`` is a file for its secrets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    if keys is not None:
        context.keylog_filename = keys
    return context


def client_hello() -> bytes:
    """Return the first bytes of a client."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


class Turns:
    """A `FairQueue` on a clock of which each reading takes ``step_s``; ``run`` is the next turn of the reactor."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.queue = FairQueue(self._now, self.jobs.append)
        self.step_s = 0.0
        self._now_s = 100.0

    def _now(self) -> float:
        self._now_s += self.step_s
        return self._now_s

    def run(self) -> None:
        """Run one turn."""
        jobs, self.jobs[:] = list(self.jobs), []
        for job in jobs:
            job()

    def run_all(self, world: World) -> None:
        """Run as many turns as it takes, of the world's own queue too."""
        while self.jobs or any(call.getTime() <= world.clock.seconds() for call in world.clock.getDelayedCalls()):
            self.run()
            world.clock.advance(0)


class TlsPeer:
    """One connection of a client to a world behind TLS."""

    def __init__(
        self,
        world: World,
        context: ssl.SSLContext | None = None,
        *,
        host: str = ALICE,
        turns: Turns | None = None,
        session: ssl.SSLSession | None = None,
        factory: TlsFactory | None = None,
        server_name: str | None = None,
    ) -> None:
        self.world = world
        self.turns = Turns() if turns is None else turns
        self.factory = factory or TlsFactory(store_of(), world.http_factory, self.turns.queue)
        self.transport = Transport(tcp_address(host))
        self.protocol: Any = self.factory.wrap(world.http_factory.buildProtocol(None), host)
        self.transport.connect(self.protocol)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context() if context is None else context
        self.tls = context.wrap_bio(self._incoming, self._outgoing, session=session, server_hostname=server_name)
        self.has_ended = False

    def read(self) -> bytes:
        """Return what has come since the last call, decrypted; ``has_ended`` is set by a close_notify."""
        self._incoming.write(bytes(self.transport.taken))
        self.transport.taken.clear()
        data = b""
        try:
            while piece := self.tls.read(65536):
                data += piece
            self.has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True
        return data

    def encrypted(self, *pieces: bytes) -> bytes:
        """Return a record for each piece."""
        for piece in pieces:
            self.tls.write(piece)
        return self._outgoing.read()

    def close_notify(self) -> bytes:
        """Return a close_notify alert."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def feed(self, data: bytes, *, turns: bool = True) -> None:
        """Let the server read these bytes, if it reads at all, and process them."""
        assert self.transport.reading
        self.protocol.dataReceived(data)
        if turns:
            self.turns.run_all(self.world)

    def hello(self) -> bytes:
        """Return the first flight."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def flights(self) -> Iterator[bytes]:
        """Yield what the client sends until its handshake is complete, and read the answers in between."""
        yield self.hello()
        while True:
            self._incoming.write(bytes(self.transport.taken))
            self.transport.taken.clear()
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                yield self._outgoing.read()
            else:
                if data := self._outgoing.read():
                    yield data
                return

    def shake_hands(self) -> None:
        """Complete the handshake."""
        for flight in self.flights():
            self.feed(flight)

    def refusal(self) -> str:
        """Return the client's error for an alert that ended its handshake."""
        self._incoming.write(bytes(self.transport.taken))
        self.transport.taken.clear()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return ""
        except ssl.SSLError as error:
            return str(error).lower().replace("_", " ")
        return "none"

    def upgrade(self) -> Any:
        """Complete the handshake and an upgrade, and return the session that the application has opened."""
        self.shake_hands()
        self.feed(self.encrypted(request_head()))
        assert self.read().startswith(b"HTTP/1.1 101 ")
        return self.world.application.sessions[-1]


class KeyUpdates:
    """Key updates (RFC 8446 section 4.6.3) of a client whose secrets are in a file; no library sends them."""

    def __init__(self, keys: Path, sent_records: int) -> None:
        """Begin after ``sent_records`` records that used the first key."""
        (line,) = (line for line in keys.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0 "))
        self._secret = bytes.fromhex(line.split()[2])
        self._number = sent_records

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand({48: hashes.SHA384(), 32: hashes.SHA256()}[len(self._secret)], size, info).derive(
            self._secret
        )

    def record(self, *, requested: bool = True) -> bytes:
        """Return one key update; records after it need the next key."""
        inner = b"\x18\0\0\1" + bytes([requested]) + b"\x16"
        header = b"\x17\3\3" + (len(inner) + 16).to_bytes(2, "big")
        nonce = int.from_bytes(self._expand(b"iv", 12), "big") ^ self._number
        sealed = AESGCM(self._expand(b"key", 32)).encrypt(nonce.to_bytes(12, "big"), inner, header)
        self._secret, self._number = self._expand(b"traffic upd", len(self._secret)), 0
        return header + sealed
