"""One order of a certificate, with the package ``acme``. Everything here blocks: it runs in the child process.

All errors end as `OrderError`, whose text is one line and contains no key. Times are seconds.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, Final

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from josepy.errors import DeserializationError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from pyryrelay import __version__
from pyryrelay.acme.wire import AskWindow, Challenge, Issued, Order, Window
from pyryrelay.config.options.acme_options import ChallengeKind
from pyryrelay.text import printable

__all__ = ["OrderError", "ask_window", "order"]

REQUEST_S: Final = 30
"""How long one answer of the authority may take."""
ORDER_S: Final = 180
"""How long the authority may check and issue."""
NONCES: Final = 5
MAX_TEXT: Final = 300
MAX_CHAIN_BYTES: Final = 65_536
"""The longest chain of certificates in PEM: every handshake sends it, and many clients refuse more than 100 KB."""

_ACME_IDENTIFIER: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING_OF_32: Final = b"\x04\x20"


class OrderError(Exception):
    """An order failed. ``account`` is the one that was registered, "" if there is none."""

    def __init__(self, problem: str, account: str = "") -> None:
        super().__init__(problem)
        self.account = account


class TLSALPN01Response(challenges.KeyAuthorizationChallengeResponse):
    """Says that the challenge may be checked now; it has no content."""

    typ = "tls-alpn-01"


@challenges.Challenge.register
class TLSALPN01(challenges.KeyAuthorizationChallenge):
    """The challenge of RFC 8737, which the package no longer knows."""

    typ = "tls-alpn-01"
    response_cls = TLSALPN01Response

    def validation(self, account_key: JWK, **_: Any) -> str:
        """Return what the certificate has to prove."""
        return self.key_authorization(account_key)


def order(request: Order, answer: Callable[[Challenge], None]) -> Issued:
    """Get a certificate; ``answer`` returns when the relay answers a challenge. Raises `OrderError`."""
    key = _account_key(request.account)
    account = ""
    try:
        acme = _client(request.directory, key)
        _register(acme, request.email)
        account = key.json_dumps()
        private_key = ec.generate_private_key(ec.SECP256R1())
        key_pem = _pem(private_key)
        ordered = acme.new_order(crypto_util.make_csr(key_pem, [request.name]))
        for authorization in ordered.authorizations:
            if authorization.body.status != messages.STATUS_VALID:
                _answer(acme, key, authorization.body, request, answer)
        deadline = datetime.datetime.now() + datetime.timedelta(seconds=ORDER_S)  # noqa: DTZ005  # as the package has it
        chain = acme.poll_and_finalize(ordered, deadline).fullchain_pem
        if len(chain) > MAX_CHAIN_BYTES:
            raise OrderError(f"the authority sent a chain of more than {MAX_CHAIN_BYTES} bytes")
    except OrderError as error:
        raise OrderError(str(error), account) from None
    except Exception as error:
        raise OrderError(_problem(error), account) from None
    return Issued(chain.strip() + "\n" + key_pem.decode("ascii"), account)


def ask_window(request: AskWindow) -> Window:
    """Ask when to renew a certificate. Raises `OrderError`."""
    try:
        acme = _client(request.directory, None)
        renew_at, ask_again_at = acme.renewal_time(request.certificate.encode("ascii"))
    except Exception as error:
        raise OrderError(_problem(error)) from None
    return Window(None if renew_at is None else renew_at.timestamp(), ask_again_at.timestamp())


class _Network(client.ClientNetwork):
    """Sends a request again, as often as RFC 8555 section 6.5 lets a client, if its nonce is not accepted."""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(NONCES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


def _client(directory: str, key: JWKEC | None) -> client.ClientV2:
    network = _network(directory, key)
    return client.ClientV2(client.ClientV2.get_directory(directory, network), network)


def _network(directory: str, key: JWKEC | None) -> _Network:
    network = _Network(key, alg=ES256, user_agent=f"pyryrelay/{__version__}", timeout=REQUEST_S)
    # No authority redirects. A hostile one could have requests sent to other machines, those behind the firewall too.
    network.session.max_redirects = 0
    if directory.startswith("https:"):
        del network.session.adapters["http://"]
    return network


def _account_key(account: str) -> JWKEC:
    """Return the key of an account, or a new one."""
    try:
        return JWKEC.json_loads(account)
    except (DeserializationError, ValueError, TypeError):
        return JWKEC(key=ec.generate_private_key(ec.SECP256R1()))


def _register(acme: client.ClientV2, email: str) -> None:
    """Register the account, or find out its URL if it is registered. The terms of the authority are agreed to."""
    wanted = messages.NewRegistration.from_data(email=email or None, terms_of_service_agreed=True)
    try:
        acme.new_account(wanted)
    except errors.ConflictError as conflict:
        acme.net.account = messages.RegistrationResource(body=wanted, uri=conflict.location)


def _answer(
    acme: client.ClientV2,
    key: JWKEC,
    authorization: messages.Authorization,
    request: Order,
    answer: Callable[[Challenge], None],
) -> None:
    """Have the relay answer one of the challenges, and tell the authority to check it. Raises `OrderError`."""
    offered = {each.chall.typ: each for each in authorization.challenges}
    kind = _first(request.kinds, offered)
    body = offered[kind]
    response, validation = body.chall.response_and_validation(key)
    text = validation if kind == "http-01" else _proof(request.name, validation)
    answer(Challenge(kind, request.name, body.chall.encode("token"), text))
    acme.answer_challenge(body, response)


def _first(kinds: Sequence[ChallengeKind], offered: dict[str, Any]) -> ChallengeKind:
    for kind in kinds:
        if kind in offered:
            return kind
    raise OrderError(f"the authority offers none of {', '.join(kinds)}, only {', '.join(sorted(offered))}")


def _proof(name: str, key_authorization: str) -> str:
    """Return the certificate of RFC 8737 section 3 and its key: the hash is a critical extension of it."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key_authorization.encode("ascii"))
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTET_STRING_OF_32 + digest.finalize()), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    return (certificate.public_bytes(serialization.Encoding.PEM) + _pem(key)).decode("ascii")


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _problem(error: Exception) -> str:
    """Return one line about a failure, with what the operator can do about it where that is known."""
    if isinstance(error, errors.ValidationError):
        texts = [_text(each.error) for failed in error.failed_authzrs for each in failed.body.challenges if each.error]
        text = "; ".join(texts) + "; the authority must reach the relay by this name, on port 80 or 443"
    elif isinstance(error, messages.Error):
        text = _text(error)
    elif isinstance(error, errors.IssuanceError):
        text = _text(error.error)
    elif isinstance(error, errors.TimeoutError):
        text = f"the authority did not finish within {ORDER_S} s"
    elif isinstance(error, requests.exceptions.SSLError):
        text = f"its certificate is not trusted ({_cause(error)}); for an authority of your own, "
        text += "name the file of its root certificate in the environment variable REQUESTS_CA_BUNDLE"
    elif isinstance(error, requests.exceptions.Timeout):
        text = f"the authority did not answer within {REQUEST_S} s"
    elif isinstance(error, requests.exceptions.RequestException):
        text = f"the authority cannot be reached ({_cause(error)})"
    else:
        text = f"the authority answered in an unexpected way ({type(error).__name__})"
    return printable(text)[:MAX_TEXT]


def _text(error: messages.Error) -> str:
    """Return what the authority says of a problem."""
    return f"{error.code or 'error'}: {error.detail or error.title or error.description or 'no details'}"


def _cause(error: BaseException) -> str:
    """Return the name of the innermost cause; texts of these errors repeat whole URLs and addresses of objects."""
    while (
        inner := error.__context__ or next((a for a in error.args if isinstance(a, BaseException)), None)
    ) is not None:
        error = inner
    return getattr(error, "strerror", None) or type(error).__name__
