"""TLS of connections that the relay makes: whom it trusts, what it shows of itself, and why a certificate is refused.

Twisted's own options for clients accept a certificate that has no name at all (26.10.0, ``_verifyCB``: what
`service_identity` raises then is logged and forgotten). Private authorities issue such certificates, to clients most of
all. Here it is refused, as everything is that cannot be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

__all__ = ["CERTIFICATE_PROBLEMS", "OTHER_NAME", "ClientTls", "TlsFileError", "client_context"]

OTHER_NAME: Final = "its certificate is for another name"
CERTIFICATE_PROBLEMS: Final[Mapping[int, str]] = {
    2: "an authority between its certificate and the trusted ones is not trusted",
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed, and not trusted",
    19: "the authority of its certificate is not trusted",
    20: "the authority of its certificate is not trusted",
    62: OTHER_NAME,
    64: OTHER_NAME,
}
"""Why a certificate is refused, by the codes of OpenSSL (X509_V_ERR_..., openssl-verification-options(1))."""


class TlsFileError(Exception):
    """A file has not what TLS needs. The text names it."""


def client_context(ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> SSL.Context:
    """Return a context that trusts the authorities in ``ca``, instead of the system's.

    A server that asks for it is shown the ``certificate``, whose ``key`` is in the same file if there is no other one.
    Raises `OSError` and `TlsFileError`.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if ca is None:
        context.set_default_verify_paths()
    else:
        _certificates(ca)
        context.load_verify_locations(str(ca))
    if certificate is not None:
        _show(context, certificate, key or certificate)
    return context


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise TlsFileError(f"{path}: it has no certificates in PEM") from None


def _show(context: SSL.Context, certificate: Path, key: Path) -> None:
    first, *others = _certificates(certificate)
    # Only this one reads keys without asking the terminal for the password of one that is encrypted.
    content = key.read_bytes()
    try:
        secret: Any = load_pem_private_key(content, None)
    except TypeError:
        raise TlsFileError(f"{key}: its key is encrypted") from None
    except ValueError:
        raise TlsFileError(f"{key}: it has no private key in PEM") from None
    context.use_certificate(first)
    for other in others:
        context.add_extra_chain_cert(other)
    try:
        context.use_privatekey(secret)
        context.check_privatekey()
    except (SSL.Error, TypeError):
        raise TlsFileError(f"{key}: its key is not that of the certificate in {certificate}") from None


@implementer(IOpenSSLClientConnectionCreator)
class ClientTls:
    """Makes connections to ``host``, a name or an address.

    ``checked`` is called with the reason if the certificate is refused, and with "" if it is accepted.
    """

    def __init__(
        self, context: SSL.Context, host: str, checked: Callable[[str], object] = lambda problem: None
    ) -> None:
        self._context = context
        self._host = host
        self._checked = checked

    def clientConnectionForTLS(self, _: object) -> SSL.Connection:
        """Return the half of a connection that OpenSSL has."""
        connection = SSL.Connection(self._context, None)
        if not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("idna"))
        connection.set_verify(SSL.VERIFY_PEER, self._verify)
        return connection

    def _verify(self, connection: SSL.Connection, certificate: Any, code: int, depth: int, accepted: int) -> bool:
        """Judge one certificate of a chain, of which that of the server comes last, with a depth of 0."""
        if not accepted:
            problem = CERTIFICATE_PROBLEMS.get(code, f"its certificate is refused (code {code} of OpenSSL)")
        elif depth == 0:
            problem = self._problem_of_name(certificate)
        else:
            return True
        self._checked(problem)
        return not problem

    def _problem_of_name(self, certificate: Any) -> str:
        wanted = IPAddress_ID(self._host) if _is_address(self._host) else DNS_ID(self._host)
        try:
            verify_service_identity(extract_patterns(certificate), [wanted], [])
        except CertificateError:
            return "its certificate has no name (subjectAltName)"
        except VerificationError:
            return OTHER_NAME
        except Exception as error:
            # An exception that leaves a callback of OpenSSL is lost, and the certificate would count as accepted.
            return f"its certificate cannot be checked ({type(error).__name__})"
        return ""


def _is_address(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)
