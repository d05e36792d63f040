"""Which certificate a client gets, what is read from PEM, tickets of all certificates, and challenges."""

from __future__ import annotations

import gc
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL
from tests.support.harness import World
from tests.support.tls_peers import (
    TLS_1_2,
    TLS_1_3,
    TlsPeer,
    Turns,
    client_context,
    named_certificate,
    pem_of,
    store_of,
)

from pyryrelay.listen.tls.certificates import Certificate, CertificateError, CertificateInfo, CertificateStore
from pyryrelay.listen.tls.transport import TlsFactory

both_versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
ONE = named_certificate("one.example.org", "www.example.org", source="one")
TWO = named_certificate("two.example.org", source="two")
WILD = named_certificate("*.example.org", source="wild")


def served(store: CertificateStore, name: str | None) -> str:
    """Return the first name of the certificate that a client gets who asks for a name."""
    world = World()
    peer = TlsPeer(world, factory=TlsFactory(store, world.http_factory, Turns().queue), server_name=name)
    peer.shake_hands()
    der = peer.tls.getpeercert(binary_form=True)
    assert der is not None
    found = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one.example.org", "one.example.org"),
        ("www.example.org", "one.example.org"),
        ("TWO.example.org", "two.example.org"),
        ("three.example.org", "*.example.org"),
        ("example.org", "one.example.org"),
        ("a.three.example.org", "one.example.org"),
        ("elsewhere.test", "one.example.org"),
        (None, "one.example.org"),
    ],
)
def test_the_certificate_of_a_name(name: str | None, expected: str) -> None:
    """Exact names come before wildcards of one label, and the first certificate is for all others."""
    assert served(store_of(ONE, WILD, TWO), name) == expected


@pytest.mark.parametrize(("name", "expected"), [("two.example.org", "two"), ("one.example.org", "one"), (None, "two")])
def test_certificates_of_one_endpoint(name: str | None, expected: str) -> None:
    """Those of an endpoint come before those of all endpoints, and are told with them."""
    root = store_of(ONE)
    store = store_of(TWO, parent=root)
    assert served(store, name) == f"{expected}.example.org"
    assert [info.source for info in root.expiries()] == ["one", "two"]
    assert served(CertificateStore(root), "elsewhere.test") == "one.example.org"


def test_a_store_without_certificates_ends_handshakes() -> None:
    """Without any certificate, a client gets an alert."""
    world = World()
    store = CertificateStore()
    peer = TlsPeer(world, factory=TlsFactory(store, world.http_factory, Turns().queue), server_name="one.example.org")
    peer.feed(peer.hello())
    assert "handshake failure" in peer.refusal()
    store.install(ONE)
    assert served(store, "one.example.org") == "one.example.org"


def test_replacing_removing_and_arranging() -> None:
    """A certificate replaces the one from its source, in its place; the first one is the default."""
    store = store_of(ONE, TWO)
    store.install(named_certificate("new.example.org", source="one"))
    assert served(store, None) == "new.example.org"
    store.arrange(["two", "unknown"])
    assert served(store, None) == "two.example.org"
    store.discard("two")
    assert served(store, "two.example.org") == "new.example.org"
    assert "one" in store
    store.discard("one")
    store.discard("one")
    assert store.expiries() == []


def test_the_first_of_two_certificates_with_a_name_is_used() -> None:
    """A later certificate does not take names away from an earlier one."""
    store = store_of(ONE, named_certificate("other.example.org", "one.example.org", source="other"))
    assert served(store, "one.example.org") == "one.example.org"


@both_versions
def test_tickets_survive_renewal_and_names(version: ssl.TLSVersion) -> None:
    """A session is resumed whichever certificates are replaced or asked for, until the first one is, or ticket keys."""
    world, store, context = World(), store_of(ONE, TWO), client_context(version)
    factory = TlsFactory(store, world.http_factory, Turns().queue)

    def session(name: str, before: ssl.SSLSession | None = None) -> TlsPeer:
        peer = TlsPeer(world, context, factory=factory, server_name=name, session=before)
        peer.upgrade()
        return peer

    def replace_first() -> None:
        store.install(named_certificate("one.example.org", source="one"))

    for change in (replace_first, store.renew_ticket_keys):
        first = session("two.example.org")
        store.install(named_certificate("two.example.org", source="two"))
        store.install(named_certificate("new.example.org", source="new"))
        assert session("two.example.org", first.tls.session).tls.session_reused
        change()
        assert not session("two.example.org", first.tls.session).tls.session_reused
    if version is TLS_1_3:
        # In TLS 1.2, RFC 6066 section 3 forbids it: "the server MUST NOT accept the request to resume the session if
        # the server_name extension contains a different name".
        assert session("one.example.org", session("two.example.org").tls.session).tls.session_reused


def test_a_certificate_that_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one certificate, nobody is asked for a name, also if others come and go."""
    asked: list[bytes | None] = []
    find = CertificateStore.for_name

    def for_name(store: CertificateStore, name: bytes | None) -> SSL.Context | None:
        asked.append(name)
        return find(store, name)

    monkeypatch.setattr(CertificateStore, "for_name", for_name)
    root = CertificateStore()
    store = store_of(ONE, parent=root)
    assert served(store, "two.example.org") == "one.example.org"
    assert asked == []
    root.install(TWO)
    assert served(store, "two.example.org") == "two.example.org"
    root.discard("two")
    assert served(store, "two.example.org") == "one.example.org"
    assert asked == [b"two.example.org"]


def test_the_whole_chain_is_sent() -> None:
    """Clients get all certificates of the chain, in its order."""
    chain = (*ONE.chain, *TWO.chain, *WILD.chain)
    world = World()
    store = store_of(Certificate(chain, ONE.key, "chain"))
    peer = TlsPeer(world, factory=TlsFactory(store, world.http_factory, Turns().queue))
    peer.shake_hands()
    sent = [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in peer.tls._sslobj.get_unverified_chain()]  # type: ignore[attr-defined]
    assert sent == [each.public_bytes(serialization.Encoding.DER) for each in chain]


# PEM


def test_reading_pem() -> None:
    """A chain and a key are read from PEM, also from one text with both, and from one with other blocks."""
    chain, key = pem_of(Certificate((*ONE.chain, *TWO.chain), ONE.key, ""))
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    for text in (parameters + key + chain, chain + key):
        found = Certificate.from_pem(text, text, "both")
        assert found.chain == (*ONE.chain, *TWO.chain)
        assert found.names == ("one.example.org", "www.example.org")
        assert found.info == CertificateInfo(found.names, found.expires_at, "both")
    assert "PRIVATE" not in repr(found)


SECRET = ONE.key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pass")
)


@pytest.mark.parametrize(
    ("chain", "key", "problem"),
    [
        (b"", pem_of(ONE)[1], "holds no certificate"),
        (pem_of(ONE)[0][:-40], pem_of(ONE)[1], "is cut off in the middle of a certificate"),
        (pem_of(ONE)[0].replace(b"MII", b"AAA", 1), pem_of(ONE)[1], "holds a broken certificate"),
        (pem_of(ONE)[0], pem_of(ONE)[0], "holds no private key"),
        (pem_of(ONE)[0], SECRET, "is encrypted"),
        (pem_of(ONE)[0], pem_of(ONE)[1].replace(b"MIG", b"AAA"), "holds a broken private key"),
        (pem_of(ONE)[0], pem_of(TWO)[1], "the key does not belong to the certificate"),
    ],
)
def test_pem_that_cannot_be_used(chain: bytes, key: bytes, problem: str) -> None:
    """What is wrong is one line with a fix, and nothing of the files is quoted."""
    with pytest.raises(CertificateError, match=problem) as caught:
        Certificate.from_pem(chain, key, "files")
    assert caught.value.fix
    assert "-----" not in str(caught.value)


def test_a_key_that_openssl_refuses() -> None:
    """A key that is too short is refused in one line, and the old certificate stays."""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    store = store_of(ONE)
    with pytest.raises(CertificateError, match="OpenSSL refuses; use an ECDSA key on P-256"):
        store.install(named_certificate("one.example.org", source="one", key=short))
    assert served(store, None) == "one.example.org"


def test_names_are_safe_for_a_line_of_the_log() -> None:
    """An authority may write anything into a certificate."""
    assert named_certificate("a.example", "b\n\x1b[31m").names == ("a.example", "b\\n\\x1b[31m")


def test_names_of_a_certificate_without_alternative_names() -> None:
    """Old certificates have their name in the subject only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Old.example.org")])
    old = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ONE.chain[0].not_valid_before_utc)
        .not_valid_after(ONE.chain[0].not_valid_after_utc)
        .sign(key, ONE.chain[0].signature_hash_algorithm)  # type: ignore[arg-type]
    )
    assert Certificate((old,), key, "old").names == ("old.example.org",)


# Challenges


def offered(store: CertificateStore, name: str, *protocols: str) -> TlsPeer:
    """Return a client that has asked for a name, and has offered protocols by ALPN."""
    world = World()
    factory = TlsFactory(store, world.http_factory, Turns().queue)
    peer = TlsPeer(world, client_context(alpn=[*protocols]), factory=factory, server_name=name)
    peer.feed(peer.hello())
    return peer


def test_a_challenge() -> None:
    """RFC 8737 section 3: validators get the certificate of the challenge, and the connection ends; others do not."""
    store = store_of(ONE)
    challenge = named_certificate("two.example.org", source="challenge")
    store.challenge("two.example.org", challenge)
    for place in (store, store_of(WILD, parent=store)):
        peer = offered(place, "two.example.org", "acme-tls/1")
        assert peer.refusal() == "none"
        assert peer.tls.selected_alpn_protocol() == "acme-tls/1"
        der = peer.tls.getpeercert(binary_form=True)
        assert der == challenge.chain[0].public_bytes(serialization.Encoding.DER)
        peer.feed(peer.encrypted())
        assert peer.read() == b""
        assert peer.has_ended
        assert peer.transport.disconnecting
    assert served(store, "two.example.org") == "one.example.org"
    store.challenge("two.example.org", None)
    store.challenge("two.example.org", None)
    assert "no application protocol" in offered(store, "two.example.org", "acme-tls/1").refusal()


@pytest.mark.parametrize("name", ["one.example.org", "elsewhere.test"])
def test_a_challenge_for_another_name(name: str) -> None:
    """RFC 8737 section 3: a server without a challenge for the name ends the handshake."""
    store = store_of(ONE)
    store.challenge("two.example.org", TWO)
    assert "handshake failure" in offered(store, name, "acme-tls/1").refusal()


def test_other_clients_during_a_challenge() -> None:
    """While there is a challenge, clients that speak HTTP are served as before."""
    store = store_of(ONE)
    store.challenge("two.example.org", TWO)
    peer = offered(store, "two.example.org", "http/1.1")
    assert peer.refusal() == "none"
    assert peer.tls.selected_alpn_protocol() == "http/1.1"


def test_names_that_clients_ask_for_are_not_remembered() -> None:
    """Handshakes for random names leave behind what handshakes for one name do, and no sessions."""
    world, store = World(), store_of(ONE, WILD)
    factory = TlsFactory(store, world.http_factory, Turns().queue)
    context = client_context(TLS_1_2)

    def left_by(names: list[str]) -> int:
        gc.collect()
        before = len(gc.get_objects())
        for name in names:
            peer = TlsPeer(world, context, factory=factory, server_name=name)
            peer.shake_hands()
            peer.protocol.connectionLost()
        gc.collect()
        return len(gc.get_objects()) - before

    left_by(["one.example.org"] * 20)
    same = left_by(["one.example.org"] * 40)
    assert left_by([f"n{number}.{number % 7}.test" for number in range(40)]) <= same + 20
