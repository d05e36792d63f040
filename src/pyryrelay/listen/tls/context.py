"""The settings of OpenSSL for ``ssl:`` endpoints."""

from __future__ import annotations

from collections.abc import Sequence

from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions


class NoSharedProtocolError(Exception):
    """The client offers protocols by ALPN, and the server speaks none of them."""


def server_context(options: CertificateOptions, protocols: Sequence[bytes]) -> SSL.Context:
    """Return the context of an ``ssl:`` endpoint: its key and certificates, and nothing older than TLS 1.2.

    Sessions are resumed by tickets, which saves the server's signature. Renegotiation is refused, because it would let
    a client ask for any number of handshakes. A client that offers none of ``protocols`` by ALPN gets an alert (RFC
    7301 section 3.2); one that offers nothing is accepted.
    """
    ours = CertificateOptions(
        privateKey=options.privateKey,
        certificate=options.certificate,
        extraCertChain=options.extraCertChain or None,
        dhParameters=options.dhParameters,
        enableSessionTickets=True,
        method=None if options.method == SSL.TLS_METHOD else options.method,
    )

    def select(_: SSL.Connection, offered: Sequence[bytes]) -> bytes:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        raise NoSharedProtocolError

    context = ours.getContext()
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    if protocols:
        context.set_alpn_select_callback(select)
    return context
