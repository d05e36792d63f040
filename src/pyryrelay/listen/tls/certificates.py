"""Certificates with their keys, and the store from which each handshake of ``ssl:`` endpoints takes one.

A certificate is chosen by the name that the client asks for (SNI, RFC 6066 section 3): one that has exactly this name,
or else one with a wildcard for its first label (RFC 6125 section 6.4.3), or else the first one that was installed.
Nothing is remembered about names that clients ask for.

Each connection begins with the context of the first certificate, and changes to another one in the callback for the
name, which costs 10 µs. OpenSSL encrypts session tickets with the keys of the context with which a connection has
begun. So a session is resumed whichever certificate its client has seen before. This is safe because all certificates
of a store authenticate the same relay, and clients have none. The keys are replaced together with the first
certificate, and by `CertificateStore.renew_ticket_keys`.

Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from pyryrelay.listen.tls.context import ACME_TLS_1, HTTP_1_1, certificate_context, empty_context
from pyryrelay.text import printable

__all__ = ["Certificate", "CertificateError", "CertificateInfo", "CertificateStore"]

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"


class CertificateError(ValueError):
    """A certificate or key that cannot be used. ``problem`` says what is wrong, ``fix`` what to do about it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


class CertificateInfo(NamedTuple):
    """What the operator is told of a certificate: its names, when it expires, and where it comes from."""

    names: tuple[str, ...]
    expires_at: float
    source: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with the ones that clients need to verify it, and its key.

    ``chain`` begins with the certificate itself. ``source`` is where it comes from: the name of a file or, for example,
    ``acme:relay.example.org``. A store has one certificate of each source.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False)
    source: str

    @classmethod
    def from_pem(cls, chain: bytes, key: bytes, source: str) -> Certificate:
        """Read both from PEM; other blocks, such as a key beside the certificates, are skipped.

        Raises `CertificateError`, which never quotes what was read.
        """
        found = cls(read_chain(chain), read_key(key), source)
        if not found.has_its_key:
            raise CertificateError(
                "the key does not belong to the certificate", "name the key that the certificate was issued for"
            )
        return found

    @property
    def has_its_key(self) -> bool:
        """Whether the key belongs to the certificate."""
        ours, theirs = (
            key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            for key in (self.key.public_key(), self.chain[0].public_key())
        )
        return ours == theirs

    @property
    def names(self) -> tuple[str, ...]:
        """Its DNS names and addresses, from ``subjectAltName``, or else its common name; in lower case."""
        return names_of(self.chain[0])

    @property
    def begins_at(self) -> float:
        """When it becomes valid."""
        return self.chain[0].not_valid_before_utc.timestamp()

    @property
    def expires_at(self) -> float:
        """When it expires."""
        return self.chain[0].not_valid_after_utc.timestamp()

    @property
    def info(self) -> CertificateInfo:
        """What the operator is told."""
        return CertificateInfo(self.names, self.expires_at, self.source)

    def context(self, protocol: bytes, choose: Callable[[SSL.Connection], None] | None = None) -> SSL.Context:
        """Return a context that speaks this ``protocol`` (ALPN). Raises `CertificateError` if OpenSSL refuses it.

        ``choose`` may change a connection that begins with it to another one.
        """
        try:
            return certificate_context(self.chain, self.key, protocol, choose)
        except (SSL.Error, TypeError, ValueError):
            raise CertificateError(
                "has a key or a certificate that OpenSSL refuses",
                "use an ECDSA key on P-256, or an RSA key of 2048 bits or more",
            ) from None


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and addresses of a certificate, in lower case, and safe for a line of the log."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(printable(str(name.value).lower()) for name in common)
    addresses: Iterable[object] = found.get_values_for_type(x509.IPAddress)
    return (*(printable(name.lower()) for name in found.get_values_for_type(x509.DNSName)), *map(str, addresses))


def read_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Read certificates from PEM. Raises `CertificateError`, whose problem follows the name of what was read."""
    if _BEGIN not in pem:
        raise CertificateError("holds no certificate", "name a PEM file that begins with the relay's own certificate")
    if pem.count(_BEGIN) != pem.count(_END):
        raise CertificateError("is cut off in the middle of a certificate", "copy the whole file")
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError:
        raise CertificateError("holds a broken certificate", "get the file again from where it was issued") from None


def read_key(pem: bytes) -> PrivateKeyTypes:
    """Read a private key from PEM. Raises `CertificateError`, whose problem follows the name of what was read."""
    if b"PRIVATE KEY-----" not in pem:
        raise CertificateError("holds no private key", "name the PEM file of the certificate's key")
    if b"ENCRYPTED" in pem:
        raise CertificateError(
            "is encrypted, and a pass phrase cannot be entered at the start",
            "decrypt it into a file of mode 600: openssl pkey -in KEY -out FILE",
        )
    try:
        return serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateError("holds a broken private key", "copy the whole file of the key again") from None


class CertificateStore:
    """The certificates of the relay's ``ssl:`` endpoints, or those of one endpoint in front of all others.

    The endpoint's own come first, and those of its ``parent`` are asked for names that it does not have.
    """

    def __init__(self, parent: CertificateStore | None = None) -> None:
        self._parent = parent
        self._children: list[CertificateStore] = []
        if parent is not None:
            parent._children.append(self)
        self._certificates: dict[str, tuple[Certificate, SSL.Context]] = {}
        self._by_name: dict[bytes, SSL.Context] = {}
        self._challenges: dict[bytes, SSL.Context] = {}
        self._first_for_challenges = empty_context(self._choose_challenge)
        self._first = empty_context(self._choose)
        self._begins_with: tuple[Certificate | None, bool] | None = None
        self._index()

    def __contains__(self, source: str) -> bool:
        """Tell whether there is a certificate from ``source``."""
        return source in self._certificates

    # What handshakes need

    def first_context(self, hello: bytes | bytearray) -> SSL.Context:
        """Return the context with which a connection begins whose client has sent ``hello``, its first bytes.

        A client that offers ``acme-tls/1`` (RFC 8737 section 3) while there is a challenge gets a context that answers
        challenges, and nothing else; see `is_challenge`. The offer of a validator is in its first record.
        """
        root = self if self._parent is None else self._parent
        if root._challenges and ACME_TLS_1 in hello:
            return root._first_for_challenges
        return self._first

    def is_challenge(self, first: SSL.Context) -> bool:
        """Tell whether a context that `first_context` has returned answers challenges."""
        return first is (self if self._parent is None else self._parent)._first_for_challenges

    def for_name(self, server_name: bytes | None) -> SSL.Context | None:
        """Return the context for clients that ask for a name, or for none; None if there is no certificate at all."""
        found = None if server_name is None else self._find(server_name.lower())
        return found or self._any()

    def _find(self, name: bytes) -> SSL.Context | None:
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name.get(b"*." + name.partition(b".")[2])
        if found is None and self._parent is not None:
            return self._parent._find(name)
        return found

    def _any(self) -> SSL.Context | None:
        if self._certificates:
            return self._first
        return None if self._parent is None else self._parent._any()

    def _choose(self, connection: SSL.Connection) -> None:
        context = self.for_name(connection.get_servername())
        # Without any certificate, OpenSSL ends the handshake with an alert.
        if context is not None and context is not connection.get_context():
            connection.set_context(context)

    def _choose_challenge(self, connection: SSL.Connection) -> None:
        context = self._challenges.get((connection.get_servername() or b"").lower())
        if context is not None:
            connection.set_context(context)

    # What changes them

    def install(self, certificate: Certificate) -> None:
        """Use a certificate for new connections from now on, in place of the one from the same source.

        Raises `CertificateError`, and changes nothing, if OpenSSL refuses it.
        """
        self._certificates[certificate.source] = certificate, certificate.context(HTTP_1_1)
        self._index()

    def discard(self, source: str) -> None:
        """Remove the certificate from a source, if there is one. Connections go on."""
        self._keep(each for each in [*self._certificates] if each != source)

    def arrange(self, sources: Iterable[str]) -> None:
        """Put the certificates from these sources in front, in this order. The first one is the default."""
        first = [source for source in sources if source in self._certificates]
        self._keep(dict.fromkeys([*first, *self._certificates]))

    def _keep(self, sources: Iterable[str]) -> None:
        self._certificates = {source: self._certificates[source] for source in sources}
        self._index()

    def _index(self) -> None:
        self._begin_with_the_first()
        by_name: dict[bytes, SSL.Context] = {}
        for number, (certificate, context) in enumerate(self._certificates.values()):
            for name in certificate.names:
                by_name.setdefault(name.encode("utf-8", "replace"), context if number else self._first)
        self._by_name = by_name
        for child in self._children:
            child._index()

    def _begin_with_the_first(self) -> None:
        """Make the first context, unless it is there. It need not ask for names if there is only one certificate."""
        is_alone = len(self._certificates) == 1 and (self._parent is None or not self._parent._certificates)
        first = next((certificate for certificate, _ in self._certificates.values()), None)
        if (first, is_alone) != self._begins_with:
            self._begins_with = first, is_alone
            choose = None if is_alone else self._choose
            self._first = empty_context(self._choose) if first is None else first.context(HTTP_1_1, choose)

    def challenge(self, name: str, certificate: Certificate | None) -> None:
        """Answer TLS-ALPN-01 challenges for a name with this certificate; None ends that. Call it on the root only.

        RFC 8737 section 3: the certificate is self-signed, has only that name, and the ``acmeIdentifier`` extension.
        """
        key = name.lower().encode("ascii")
        if certificate is None:
            self._challenges.pop(key, None)
        else:
            self._challenges[key] = certificate.context(ACME_TLS_1)

    def renew_ticket_keys(self) -> None:
        """Encrypt session tickets with new keys. Clients with older tickets make one full handshake."""
        for store in (self, *self._children):
            store._begins_with = None
            store._index()

    def expiries(self) -> list[CertificateInfo]:
        """Return what there is to tell of all certificates, those of single endpoints last."""
        own = [certificate.info for certificate, _ in self._certificates.values()]
        return [*own, *(info for child in self._children for info in child.expiries())]
