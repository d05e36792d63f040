"""Assertions of a service account."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from tests.support.push import TOKEN_URI, WALL, key_text, pem, private_key

from pyryrelay.pyry.push.credentials import CredentialsError, read_account
from pyryrelay.pyry.push.signing import SCOPE, Signer


def test_an_assertion_is_signed() -> None:
    """It is for the token service, for an hour, for wakes alone, and names its key."""
    assertion = Signer(read_account(key_text())).assertion(WALL + 0.7)
    claims = jwt.decode(
        assertion,
        private_key(2048).public_key(),
        algorithms=["RS256"],
        audience=TOKEN_URI,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims == {
        "iss": "relay@my-project.iam.gserviceaccount.com",
        "scope": SCOPE,
        "aud": TOKEN_URI,
        "iat": WALL,
        "exp": WALL + 3600,
    }
    assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}


def unusable() -> dict[str, str]:
    """Return private keys that cannot sign."""
    curve = ec.generate_private_key(ec.SECP256R1())
    lines = pem().splitlines()
    return {
        "another kind": curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "too short": pem(1024),
        "cut off": "\n".join([*lines[:5], lines[-1]]),
        "no base64": lines[0] + "\n!!!\n" + lines[-1],
        "empty": lines[0] + "\n" + lines[-1],
        "encrypted": private_key(2048)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
        .decode()
        .replace("ENCRYPTED ", ""),
    }


@pytest.mark.parametrize("kind", [*unusable()])
def test_a_key_that_cannot_sign(kind: str) -> None:
    """One phrase for all, which quotes nothing of the key and has no cause."""
    with pytest.raises(CredentialsError, match="no usable RSA key") as caught:
        Signer(read_account(key_text(private_key=unusable()[kind])))
    assert caught.value.__context__ is None
