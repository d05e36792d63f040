"""What ``pyryrelay probe --nostr`` does to a Nostr relay: it reads the information document, asks for a note, and may
publish an ephemeral event that is signed with a key of the moment.

It works with every relay of NIP-01. Times are unix seconds.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from pyryrelay.protocol_options import ProbeError, ProbePeer, Prober
from pyryrelay.text import printable, quoted

__all__ = ["NostrProbe"]

EPHEMERAL_KIND: Final = 20_777
"""An ephemeral kind (NIP-01): relays deliver it, and store nothing."""
AUTH_KIND: Final = 22_242
MAX_BEFORE_ANSWER: Final = 500
"""Messages that may come before the one that answers."""
_TYPE: Final = "application/nostr+json"
_MISSING: Final = "there is none"
_FIXES: Final = {
    "auth-required": "authenticate: run the probe with coincurve installed (pip install 'pyryrelay[nostr]')",
    "restricted": "the relay does not serve everybody: allow the key, or probe another path",
    "blocked": "the relay does not take this: see its rules",
    "rate-limited": "wait, and try again",
    "pow": "the relay wants proof of work: probe without --publish",
    "payment-required": "the relay has to be paid: probe without --publish",
    "invalid": "the relay says that the event is malformed: check its clock and this one",
    "error": "the relay has trouble: see its log",
}
"""What to do about the prefixes of NIP-01 and NIP-42."""


class NostrProbe:
    """See `pyryrelay.protocol_options.Probe`."""

    visitor = "a client that reads the information document and subscribes"

    def add_options(self, parser: Any) -> None:
        """Add ``--publish``."""
        parser.add_argument(
            "--publish",
            action="store_true",
            help="also publish an ephemeral event, which no relay stores, with a key that is thrown away",
        )

    def visit(self, prober: Prober, arguments: Any) -> None:
        """Read the document, subscribe, publish if that is wanted, and leave."""
        path = prober.path or "/"
        _information(prober, path)
        client = _Client(prober, prober.connect("client", path, {}, {}))
        client.subscribe()
        if arguments.publish:
            client.publish()
        with prober.step("client: close") as step:
            step.detail = f"answered with {client.peer.close()}"


def _information(prober: Prober, path: str) -> None:
    """Read the relay information document (NIP-11), which relays need not have."""
    name = "information document"
    detail = prober.get(name, path, {"Accept": _TYPE}, _described)
    if detail.startswith(_MISSING):
        prober.warn(name, detail, f"have the proxy in front pass requests on that accept {_TYPE}")


def _described(status: int, body: bytes) -> str:
    """Describe the document."""
    try:
        document = json.loads(body) if status == 200 else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return f"{_MISSING} ({f'status {status}' if status else body.decode('utf-8', 'replace')})"
    name, software, version = (printable(str(document.get(key) or ""))[:60] for key in ("name", "software", "version"))
    nips = document.get("supported_nips")
    count = f"{len(nips)} NIPs" if isinstance(nips, list) else ""
    return ", ".join(filter(None, (name, f"{software} {version}".strip(), count))) or "it says nothing"


class _Client:
    """A client, which authenticates when it is asked to."""

    def __init__(self, prober: Prober, peer: ProbePeer) -> None:
        self._prober = prober
        self.peer = peer
        self._challenge = ""
        self._key: _Key | None = None
        self._has_authenticated = False

    def subscribe(self) -> None:
        """Ask for the newest note, wait for the end of what is stored, and end the subscription."""
        for _ in range(2):
            with self._prober.step("REQ to EOSE") as step:
                self._send("REQ", "probe", {"kinds": [1], "limit": 1})
                found, refused = self._stored()
                step.detail = refused or f"{found} event{'' if found == 1 else 's'}"
                if refused and (self._has_authenticated or not refused.startswith("auth-required")):
                    raise _refused("the subscription", refused)
            if not refused:
                break
            self._authenticate()
        self._send("CLOSE", "probe")

    def _stored(self) -> tuple[int, str]:
        """Return the number of events before EOSE, or why the subscription was refused."""
        found = 0
        for _ in range(MAX_BEFORE_ANSWER):
            message = self._receive()
            if message[:2] == ["EVENT", "probe"]:
                found += 1
            elif message[:2] == ["EOSE", "probe"]:
                return found, ""
            elif message[:2] == ["CLOSED", "probe"]:
                return found, str((*message, "", "")[2]) or "without a reason"
        raise ProbeError("EOSE did not come", "check that it is a relay of NIP-01")

    def publish(self) -> None:
        """Publish an ephemeral event."""
        for _ in range(2):
            with self._prober.step("EVENT to OK") as step:
                is_stored, text = self._offer("EVENT", self._event(EPHEMERAL_KIND, [], "pyryrelay probe"))
                step.detail = "accepted" if is_stored else text
                if not is_stored and (self._has_authenticated or not text.startswith("auth-required")):
                    raise _refused("the event", text)
            if is_stored:
                break
            self._authenticate()

    def _authenticate(self) -> None:
        """Answer the challenge (NIP-42)."""
        with self._prober.step("AUTH to OK") as step:
            if not self._challenge:
                raise ProbeError("the relay wants authentication, and has sent no challenge", "see its documentation")
            tags = [["relay", self._prober.url], ["challenge", self._challenge]]
            is_good, text = self._offer("AUTH", self._event(AUTH_KIND, tags, ""))
            if not is_good:
                fix = "probe the URL that the relay has as its own (--nostr-url of pyryrelay), and check both clocks"
                raise ProbeError(f"the relay does not accept the authentication: {quoted(text)}", fix)
            self._has_authenticated = True
            step.detail = "accepted"

    def _offer(self, verb: str, event: dict[str, Any]) -> tuple[bool, str]:
        """Send an event, and return the answer to it."""
        self._send(verb, event)
        for _ in range(MAX_BEFORE_ANSWER):
            message = self._receive()
            if message[:2] == ["OK", event["id"]]:
                _, _, is_good, text = (*message, False, "")[:4]
                return is_good is True, str(text)
        raise ProbeError("OK did not come", "check that it is a relay of NIP-01")

    def _event(self, kind: int, tags: Sequence[Sequence[str]], content: str) -> dict[str, Any]:
        self._key = self._key or _Key()
        return self._key.event(kind, tags, content)

    def _send(self, *message: object) -> None:
        self.peer.send(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    def _receive(self) -> list[Any]:
        """Return the next message; a challenge is kept, a notice is told."""
        try:
            message = json.loads(self.peer.receive())
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, list) or not message:
            raise ProbeError("the message is no JSON array", "check that it is a Nostr relay")
        if message[0] == "AUTH" and len(message) > 1:
            self._challenge = str(message[1])
        elif message[0] == "NOTICE":
            notice = quoted(str((*message, "")[1]))
            self._prober.warn("NOTICE", notice, "see what the relay says")
        return message


def _refused(what: str, text: str) -> ProbeError:
    fix = _FIXES.get(text.partition(":")[0], "see what the relay says")
    return ProbeError(f"{what} was refused: {quoted(text)}", fix)


class _Key:
    """A key of the moment, which signs events (NIP-01). Raises `ProbeError` without coincurve."""

    def __init__(self) -> None:
        try:
            from coincurve import PrivateKey, PublicKeyXOnly
        except ImportError:
            problem = "signing events needs coincurve, which is not installed"
            raise ProbeError(problem, "pip install 'pyryrelay[nostr]'") from None
        self._secret = PrivateKey(secrets.token_bytes(32))
        self._pubkey = PublicKeyXOnly.from_secret(self._secret.secret).format().hex()

    def event(self, kind: int, tags: Sequence[Sequence[str]], content: str) -> dict[str, Any]:
        """Return a signed event of now."""
        created_at = int(time.time())
        signed = [0, self._pubkey, created_at, kind, tags, content]
        digest = hashlib.sha256(json.dumps(signed, separators=(",", ":"), ensure_ascii=False).encode()).digest()
        return {
            "id": digest.hex(),
            "pubkey": self._pubkey,
            "created_at": created_at,
            "kind": kind,
            "tags": tags,
            "content": content,
            "sig": self._secret.sign_schnorr(digest).hex(),
        }
