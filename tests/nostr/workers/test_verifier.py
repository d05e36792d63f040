"""Signatures are verified as BIP-340 says, and not those of events that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

coincurve = pytest.importorskip("coincurve")

from pyryrelay.nostr.storage.interface import StoreError  # noqa: E402
from pyryrelay.nostr.workers.verifier import MAX_KEYS, Verifier  # noqa: E402
from pyryrelay.nostr.workers.wire import Verdict, Verdicts, VerifierConfig, Verify, encode  # noqa: E402

KEY = coincurve.PrivateKey(bytes(31) + b"\x03")
PUBKEY = coincurve.PublicKeyXOnly.from_secret(KEY.secret).format()
ID = bytes(range(32))
OFF_CURVE = bytes(31) + b"\x05"
"""5 is not the x coordinate of a point."""


class FakeStore:
    """A store that knows some ids."""

    def __init__(self, known: set[bytes] | None) -> None:
        self._known = known
        self.is_closed = False

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return those of the ids that are known, if the store can be read."""
        if self._known is None:
            raise StoreError("damaged")
        return self._known & set(ids)

    def close(self) -> None:
        """Keep that."""
        self.is_closed = True


def event(event_id: bytes = ID, pubkey: bytes = PUBKEY, signature: bytes | None = None) -> bytes:
    """Return an event's parts, by default of an event with a right signature."""
    return event_id + pubkey + (KEY.sign_schnorr(event_id) if signature is None else signature)


def verdicts(store: Any, *events: bytes) -> list[int]:
    """Return the verdicts that a verifier sends."""
    sent: list[Any] = []
    verifier = Verifier(store, sent.append)
    verifier.receive(encode(Verify(9, b"".join(events).hex())))
    (message,) = sent
    assert isinstance(message, Verdicts)
    assert message.number == 9
    return list(message.verdicts)


def test_each_event_has_its_verdict() -> None:
    """They come in order, also where a key comes twice."""
    wrong = bytearray(KEY.sign_schnorr(ID))
    wrong[40] ^= 1
    events = [event(), event(signature=bytes(wrong)), event(pubkey=OFF_CURVE), event(pubkey=OFF_CURVE), event()]
    assert verdicts(None, *events) == [
        Verdict.GOOD,
        Verdict.BAD_SIGNATURE,
        Verdict.BAD_KEY,
        Verdict.BAD_KEY,
        Verdict.GOOD,
    ]


def test_a_signature_is_of_the_id() -> None:
    """That of another event does not verify, nor do zeros."""
    other = KEY.sign_schnorr(bytes(32))
    assert verdicts(None, event(signature=other), event(signature=bytes(64))) == [Verdict.BAD_SIGNATURE] * 2


def test_stored_events_are_not_verified() -> None:
    """The id is the hash of everything but the signature, so a wrong one makes no difference."""
    assert verdicts(FakeStore({ID}), event(signature=bytes(64)), event(bytes(32))) == [Verdict.KNOWN, Verdict.GOOD]


def test_a_store_that_cannot_be_read() -> None:
    """Then all are verified, and the writer finds out what is stored."""
    assert verdicts(FakeStore(None), event()) == [Verdict.GOOD]


def test_no_events() -> None:
    """An empty batch has an empty answer."""
    assert verdicts(None) == []


def test_the_memory_for_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign keys push out others, but never change a verdict."""
    monkeypatch.setattr("pyryrelay.nostr.workers.verifier.MAX_KEYS", 2)
    assert MAX_KEYS > 2
    verifier = Verifier(None, print)
    for secret in range(1, 8):
        key = coincurve.PrivateKey(secret.to_bytes(32, "big"))
        pubkey = coincurve.PublicKeyXOnly.from_secret(key.secret).format()
        assert verifier.verdicts(event(pubkey=pubkey, signature=key.sign_schnorr(ID))) == bytes([Verdict.GOOD])
        assert verifier.verdicts(event()) == bytes([Verdict.GOOD])
        assert len(verifier._keys) <= 2


def test_there_is_nothing_else_to_do() -> None:
    """A verifier waits for the next frame, whatever it is, and closes its store."""
    store, sent = FakeStore(set()), list[object]()
    verifier = Verifier(store, sent.append)  # type: ignore[arg-type]
    verifier.receive(encode(VerifierConfig(database=None)))
    verifier.work()
    assert verifier.wait_s() is None
    verifier.close()
    assert store.is_closed
    assert sent == []
