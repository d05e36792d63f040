"""Assertions that a service account signs to get access tokens (RFC 7523, RS256)."""

from __future__ import annotations

from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pyryrelay.pyry.push.credentials import CredentialsError, ServiceAccount

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
LIFETIME_S: Final = 3600
MIN_KEY_BITS, MAX_KEY_BITS = 2048, 8192


class Signer:
    """The private key of a service account. Raises `CredentialsError` if it is none that can sign."""

    def __init__(self, account: ServiceAccount) -> None:
        self._account = account
        try:
            key = load_pem_private_key(account.key_pem.encode("ascii"), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # Errors of the parser may describe the key.
            key = None
        if not isinstance(key, RSAPrivateKey) or not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS:
            raise CredentialsError("has a private_key that is no usable RSA key; download the key again")
        self._key = key

    def assertion(self, wall_now: float) -> str:
        """Return an assertion that is valid from now on; ``wall_now`` is the Unix time. Takes some milliseconds."""
        account, issued_at = self._account, int(wall_now)
        claims = {
            "iss": account.email,
            "scope": SCOPE,
            "aud": account.token_uri,
            "iat": issued_at,
            "exp": issued_at + LIFETIME_S,
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": account.key_id})
