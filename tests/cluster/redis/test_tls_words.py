"""Words for errors of OpenSSL."""

from __future__ import annotations

import pytest

from pyryrelay.cluster.redis.tls_words import NO_TLS, words_of_tls


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrong version number", NO_TLS),
        ("WRONG_VERSION_NUMBER", NO_TLS),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "it wants a certificate of the relay: write cert=FILE&key=FILE"),
        ("tlsv1 alert unknown ca", "it refuses the certificate of the relay (tlsv1 alert unknown ca)"),
        ("sslv3 alert handshake failure", "TLS failed (sslv3 alert handshake failure): if it wants a certificate"),
        ("tlsv1 alert protocol version", "TLS failed (tlsv1 alert protocol version)"),
        ("Unexpected EOF", "TLS failed (unexpected eof)"),
        ("", "TLS failed"),
    ],
)
def test_errors_have_words(text: str, words: str) -> None:
    """What operators can mend is told plainly, and the rest as OpenSSL says it."""
    assert words_of_tls(text).startswith(words)
