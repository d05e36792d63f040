"""A push service and a token service in memory, on a clock that only the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from pyryrelay.pyry.push.access_tokens import AccessTokens
from pyryrelay.pyry.push.credentials import read_account
from pyryrelay.pyry.push.requests import Requests
from pyryrelay.pyry.push.signing import Signer
from pyryrelay.runtime.outgoing.agent import OutgoingHttp

TOKEN = "d3v1ce:APA91b-registration-token"
"""A token of a phone, which must appear nowhere but in the request."""
ACCESS = "ya29.access-token"
TOKEN_PORT, PUSH_PORT = 4001, 4002
TOKEN_URI = f"http://127.0.0.1:{TOKEN_PORT}/token"
PUSH_URL = f"http://127.0.0.1:{PUSH_PORT}"
WALL = 1_700_000_000.0


@cache
def private_key(bits: int) -> rsa.RSAPrivateKey:
    """Return a key for tests alone."""
    return rsa.generate_private_key(65537, bits)


@cache
def pem(bits: int = 2048) -> str:
    """Return the key as a service-account file has it."""
    return private_key(bits).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def key_fields(**changes: object) -> dict[str, object]:
    """Return the content of a service-account file; a field that is None is left out."""
    fields: dict[str, object] = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "key-1",
        "private_key": pem(),
        "client_email": "relay@my-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": TOKEN_URI,
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def key_text(**changes: object) -> str:
    """Return a service-account file."""
    return json.dumps(key_fields(**changes))


@cache
def signer() -> Signer:
    """Return the key of the service account."""
    return Signer(read_account(key_text()))


def answer_bytes(status: int = 200, body: bytes = b"{}", fields: str = "") -> bytes:
    """Return an HTTP answer; ``fields`` are whole lines of its head."""
    return f"HTTP/1.1 {status} Some\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body


def fcm_error(status: str, code: str | None = None, message: str = "no") -> bytes:
    """Return the body of an error of FCM."""
    error: dict[str, object] = {"message": message, "status": status}
    if code is not None:
        kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
        error["details"] = [{"@type": "x"}, {"@type": kind, "errorCode": code}]
    return json.dumps({"error": error}).encode()


SENT = b'{"name":"projects/my-project/messages/1"}'


class Received(NamedTuple):
    """A request that a service received."""

    target: str
    fields: dict[str, str]
    body: bytes


class _Transport(StringTransport):
    """A transport that tells its protocol in a later turn that the connection is gone, as sockets do."""

    def __init__(self, clock: Any) -> None:
        StringTransport.__init__(self)
        self._clock = clock
        self.lost: Callable[[], None] = lambda: None
        self.was_aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do what sockets do."""

    def loseConnection(self) -> None:
        self._clock.callLater(0, self.lost)

    def abortConnection(self) -> None:
        self.was_aborted = True
        self._clock.callLater(0, self.lost)


class Line:
    """One connection to a service."""

    def __init__(self, clock: Any, port: int, factory: Any) -> None:
        self.port = port
        self._protocol = factory.buildProtocol(None)
        self.transport: Any = _Transport(clock)
        self.transport.lost = self.lose
        self._is_lost = False
        self._protocol.makeConnection(self.transport)

    @property
    def was_aborted(self) -> bool:
        """Whether the relay has cut the connection off."""
        return bool(self.transport.was_aborted)

    def request(self) -> Received | None:
        """Take the next request off the line; None if there is none."""
        raw = self.transport.value()
        if not raw:
            return None
        self.transport.clear()
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in fields)
        return Received(first.split()[1], {name.lower(): value for name, value in pairs}, body)

    def feed(self, data: bytes) -> None:
        """Send bytes to the relay."""
        if not (self.was_aborted or self._is_lost):
            self._protocol.dataReceived(data)

    def answer(self, status: int = 200, body: bytes = b"{}", fields: str = "") -> None:
        """Answer the request."""
        self.feed(answer_bytes(status, body, fields))

    def lose(self) -> None:
        """End the connection."""
        if not self._is_lost:
            self._is_lost = True
            self._protocol.connectionLost(Failure(ConnectionDone()))


class PushServices:
    """The two services, and the relay's client for them."""

    def __init__(self) -> None:
        self.clock: Any = MemoryReactorClock()
        self.outgoing = OutgoingHttp(self.clock)
        self.requests = Requests(self.outgoing.agent(), self.clock.callLater)
        self.failures: list[tuple[str, float]] = []
        self.lines: list[Line] = []
        self._accepted = 0

    def tokens(self) -> AccessTokens:
        """Return the access tokens of the service account."""
        return AccessTokens(
            signer(),
            TOKEN_URI,
            self.requests,
            self.in_thread,
            self.clock.seconds,
            lambda: WALL + self.clock.seconds(),
            lambda word, seconds: self.failures.append((word, seconds)),
        )

    def in_thread(self, call: Callable[[], Any]) -> Deferred[Any]:
        """Make a call at once."""
        return maybeDeferred(call)

    def accept(self) -> list[Line]:
        """Accept the connections that wait."""
        fresh = []
        for _, port, factory, *_ in self.clock.tcpClients[self._accepted :]:
            self._accepted += 1
            fresh.append(Line(self.clock, port, factory))
        self.lines += fresh
        return fresh

    def refuse(self, error: Exception) -> None:
        """Refuse the connections that wait."""
        for _, _, factory, *_ in self.clock.tcpClients[self._accepted :]:
            self._accepted += 1
            factory.clientConnectionFailed(None, Failure(error))

    def next(self, port: int = PUSH_PORT) -> tuple[Line, Received]:
        """Return the next request at a service, and the line that it came on."""
        self.accept()
        for line in self.lines:
            if line.port == port and (received := line.request()) is not None:
                return line, received
        raise AssertionError(f"no request on port {port}")

    def is_quiet(self) -> bool:
        """Return whether no service has got a request that it has not taken."""
        self.accept()
        return not any(line.transport.value() for line in self.lines)

    def grant(self, token: str = ACCESS, lifetime_s: float = 3600) -> Received:
        """Answer a request for an access token."""
        line, received = self.next(TOKEN_PORT)
        body = json.dumps({"access_token": token, "expires_in": lifetime_s, "token_type": "Bearer"})
        line.answer(body=body.encode())
        return received
