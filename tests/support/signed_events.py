"""Nostr events with signatures that verify, made with coincurve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from coincurve import PrivateKey, PublicKeyXOnly

from pyryrelay.nostr.events import Event, canonical, event_id

WALL_S: Final = 1_700_000_000


class Author:
    """An author whose key follows from a name."""

    def __init__(self, name: str) -> None:
        self._secret = PrivateKey(hashlib.sha256(name.encode()).digest())
        self.pubkey = PublicKeyXOnly.from_secret(self._secret.secret).format().hex()

    def event(
        self, content: str = "", *, kind: int = 1, created_at: int = WALL_S, tags: Iterable[Sequence[str]] = ()
    ) -> Event:
        """Return a signed event."""
        draft = Event("0" * 64, self.pubkey, created_at, kind, [list(tag) for tag in tags], content, "0" * 128)
        id_ = event_id(canonical(draft).preimage)
        signature = self._secret.sign_schnorr(bytes.fromhex(id_)).hex()
        return Event(id_, self.pubkey, created_at, kind, draft.tags, content, signature)

    def line(self, content: str = "", **fields: Any) -> bytes:
        """Return a signed event as canonical JSON."""
        return canonical(self.event(content, **fields)).json


def forged(line: bytes) -> bytes:
    """Return an event with a wrong signature."""
    return json.dumps(json.loads(line) | {"sig": "0" * 128}, separators=(",", ":")).encode()
