"""What the answers of the push service and of the token service mean. PURE.

Only words of this module reach a log: names of errors that are documented, or ``HTTP`` and a status. Anything else in
an answer may repeat what was sent, so it is never passed on. Times are seconds.

Sources: FCM HTTP v1 (``FcmError``, ``ErrorCode``), google.rpc.Code, RFC 6749 section 5.2, RFC 9110 section 10.2.3.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

MALFORMED: Final = "malformed"
DEFAULT_PAUSE_S: Final = 60.0
"""How long to send nothing after 429 without Retry-After: FCM asks for a minute."""
MAX_PAUSE_S: Final = 600.0
DEFAULT_REPEAT_S: Final = 10.0
"""How long to wait before a wake is repeated after an error of the service: the least that FCM asks for."""
MAX_REPEAT_S: Final = 30.0
"""A wake that could be repeated only later than this is given up: the phone would wake for what has passed."""

_UNREGISTERED: Final = "UNREGISTERED"
_NOT_FOUND: Final = "NOT_FOUND"
_FCM_CODES: Final = frozenset(
    {
        "INVALID_ARGUMENT",
        _UNREGISTERED,
        "SENDER_ID_MISMATCH",
        "QUOTA_EXCEEDED",
        "UNAVAILABLE",
        "INTERNAL",
        "THIRD_PARTY_AUTH_ERROR",
        "UNSPECIFIED_ERROR",
    }
)
_RPC_CODES: Final = frozenset(
    {
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        _NOT_FOUND,
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
    }
)
_OAUTH_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "access_denied",
    }
)
_TOKEN: Final = re.compile(r"[!-~]{1,4096}")
_SECONDS: Final = re.compile(r"[0-9]{1,5}")
_PASSING: Final = frozenset({500, 502, 503, 504})
MIN_LIFETIME_S, MAX_LIFETIME_S = 60.0, 3600.0


class Outcome(StrEnum):
    """What became of a wake: the values of the metric's label, which the specification names."""

    SENT = "sent"
    UNREGISTERED = "unregistered"
    SEND_FAILED = "send_failed"
    TOKEN_FETCH_FAILED = "token_fetch_failed"
    DROPPED = "dropped"


class Next(Enum):
    """What to do after an answer."""

    NOTHING = "nothing"
    NEW_TOKEN = "new token"
    """Repeat the wake at once, with a new access token."""
    REPEAT = "repeat"
    """Repeat the wake after some time."""
    PAUSE = "pause"
    """Give this wake up, and send no others for some time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its status, the value of Retry-After, and its whole body."""

    status: int
    retry_after: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means for a wake. ``reason`` is a word for the log."""

    outcome: Outcome
    reason: str = ""
    then: Next = Next.NOTHING
    after_s: float = 0.0


def judge(answer: Answer) -> Verdict:
    """Return what an answer of the push service means."""
    status, found = answer.status, _object(answer.body)
    if status == 200:
        # A proxy or a login page may answer 200 as well.
        is_receipt = isinstance(found.get("name"), str)
        return Verdict(Outcome.SENT) if is_receipt else Verdict(Outcome.SEND_FAILED, MALFORMED)
    code = _error_code(found)
    reason = code or f"HTTP {status}"
    if code == _UNREGISTERED or (status == 404 and code == _NOT_FOUND):
        return Verdict(Outcome.UNREGISTERED, reason)
    if status == 401:
        return Verdict(Outcome.SEND_FAILED, reason, Next.NEW_TOKEN)
    if status == 429:
        pause_s = min(_retry_after_s(answer.retry_after, DEFAULT_PAUSE_S), MAX_PAUSE_S)
        return Verdict(Outcome.SEND_FAILED, reason, Next.PAUSE, pause_s)
    if status in _PASSING:
        repeat_s = _retry_after_s(answer.retry_after, DEFAULT_REPEAT_S)
        if repeat_s <= MAX_REPEAT_S:
            return Verdict(Outcome.SEND_FAILED, reason, Next.REPEAT, repeat_s)
        return Verdict(Outcome.SEND_FAILED, reason, Next.PAUSE, min(repeat_s, MAX_PAUSE_S))
    return Verdict(Outcome.SEND_FAILED, reason)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that the push service accepts for ``lifetime_s``."""

    text: str
    lifetime_s: float

    def __repr__(self) -> str:
        return f"AccessToken(lifetime_s={self.lifetime_s!r})"


def read_token(answer: Answer) -> AccessToken | str:
    """Return the access token in an answer of the token service, or a word that says why there is none."""
    found = _object(answer.body)
    if answer.status != 200:
        error = found.get("error")
        return error if isinstance(error, str) and error in _OAUTH_ERRORS else f"HTTP {answer.status}"
    text, lifetime_s = found.get("access_token"), found.get("expires_in")
    is_number = isinstance(lifetime_s, int | float) and not isinstance(lifetime_s, bool)
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None or not is_number:
        return MALFORMED
    if not isinstance(lifetime_s, int | float) or not lifetime_s > 0:
        return MALFORMED
    return AccessToken(text, float(max(MIN_LIFETIME_S, min(lifetime_s, MAX_LIFETIME_S))))


def _object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; an empty one if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _error_code(found: dict[str, Any]) -> str:
    """Return the code of FCM in an error, or else that of its RPC framework; "" if neither is known."""
    error = found.get("error")
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        code = detail.get("errorCode") if isinstance(detail, dict) else None
        if isinstance(code, str) and code in _FCM_CODES:
            return code
    status = error.get("status")
    return status if isinstance(status, str) and status in _RPC_CODES else ""


def _retry_after_s(text: str, default_s: float) -> float:
    """Return the seconds of Retry-After. A date needs a clock that both sides agree on, and counts as missing."""
    return max(1.0, float(text)) if _SECONDS.fullmatch(text) else default_s
