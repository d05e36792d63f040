"""The settings of OpenSSL for ``ssl:`` endpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL

HTTP_1_1: Final = b"http/1.1"
ACME_TLS_1: Final = b"acme-tls/1"
"""The protocols that are spoken, by their names for ALPN (RFC 7301 section 6, RFC 8737 section 6.2)."""
_TLS_1_2_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
"""Those with forward secrecy and authenticated encryption. Those of TLS 1.3 all have both."""


class NoSharedProtocolError(Exception):
    """The client offers protocols by ALPN, and the server speaks none of them."""


def empty_context(choose: Callable[[SSL.Connection], None]) -> SSL.Context:
    """Return a context without a certificate, with which connections begin; ``choose`` may give them another one.

    OpenSSL calls it for each client, whether it has sent a name (SNI) or not.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _restrict(context)
    context.set_tlsext_servername_callback(choose)
    return context


def certificate_context(
    chain: Sequence[x509.Certificate],
    key: Any,
    protocol: bytes,
    choose: Callable[[SSL.Connection], None] | None = None,
) -> SSL.Context:
    """Return the context of a certificate, which comes first in its ``chain``; for ``choose`` see `empty_context`.

    A client that offers protocols by ALPN, but not this one, gets an alert (RFC 7301 section 3.2); one that offers
    nothing is accepted. Raises `SSL.Error`, or ``TypeError`` for keys of other kinds.
    """

    def select(_: SSL.Connection, offered: Sequence[bytes]) -> bytes:
        if protocol in offered:
            return protocol
        raise NoSharedProtocolError

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _restrict(context)
    context.use_certificate(chain[0])
    for issuer in chain[1:]:
        context.add_extra_chain_cert(issuer)
    context.use_privatekey(key)
    context.check_privatekey()
    context.set_alpn_select_callback(select)
    if choose is not None:
        context.set_tlsext_servername_callback(choose)
    return context


def _restrict(context: SSL.Context) -> None:
    """Allow what is safe today: nothing older than TLS 1.2, and no renegotiation, which a client could repeat forever.

    Sessions are resumed by tickets, which saves the server's signature, and all memory: none are kept here.
    """
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_TLS_1_2_CIPHERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
