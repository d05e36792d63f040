"""WebSocket close codes (RFC 6455 section 7.4.1, the IANA registry, and this relay's own 4000-4999)."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Each code that this relay sends or reports, with its meaning as the member's ``meaning``."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> CloseCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    NORMAL = 1000, "the connection has done its work"
    GOING_AWAY = 1001, "the relay is shutting down"
    PROTOCOL_ERROR = 1002, "the peer broke the WebSocket protocol"
    NO_STATUS = 1005, "reported only: the peer's close frame carried no code"
    ABNORMAL = 1006, "reported only: the connection ended without a close frame"
    INVALID_PAYLOAD = 1007, "text that is no UTF-8, or a frame that is no JSON"
    POLICY_VIOLATION = (
        1008,
        "a message too slow or in too many fragments, or a quota exceeded for too long",
    )
    MESSAGE_TOO_BIG = 1009, "a message over the size limit"
    INTERNAL_ERROR = 1011, "heartbeat timeout, a backlog that is full, or an error inside the relay"
    NO_SERVER = 4404, "no binary holds that server-id, or it was reclaimed: try again"
    SERVER_ID_CLAIMED = 4409, "another live binary holds that server-id"
    TOO_MANY_PHONES = 4429, "as many phones as the relay allows are on that server-id"


def table() -> str:
    """The Markdown table of docs/reference/close-codes.md."""
    rows = [f"| {code.value} | `{code.name}` | {code.meaning} |" for code in CloseCode]
    return "\n".join(["| code | name | meaning |", "|---|---|---|", *rows])
