"""WebSocket close codes (RFC 6455 section 7.4.1 and the IANA registry)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Self


class DescribedInt(IntEnum):
    """A number of a fixed set, such as a close code, with its meaning."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class CloseCode(DescribedInt):
    """The codes that the transport sends or reports. Protocols have their own, from 4000 to 4999."""

    NORMAL = 1000, "the connection has served its purpose"
    GOING_AWAY = 1001, "the relay is shutting down"
    PROTOCOL_ERROR = 1002, "the peer broke the WebSocket protocol"
    NO_STATUS = 1005, "reported only: the peer's close frame carried no code"
    ABNORMAL = 1006, "reported only: the connection ended without a close frame"
    INVALID_PAYLOAD = 1007, "text that is not UTF-8, or a frame that is not JSON"
    POLICY_VIOLATION = (
        1008,
        "a message too slow or in too many fragments, or a quota exceeded for too long",
    )
    MESSAGE_TOO_BIG = 1009, "a message over the size limit"
    INTERNAL_ERROR = 1011, "heartbeat timeout, a backlog that is full, or an error inside the relay"


ALLOWED_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""The codes that a close frame may contain (RFC 6455 section 7.4, IANA): not 1004, 1005, 1006 and 1015."""

TRY_AGAIN_LATER: Final = 1013
BAD_GATEWAY: Final = 1014
"""This and `TRY_AGAIN_LATER` are codes that only peers send."""


def table(*enums: type[DescribedInt]) -> str:
    """Return the Markdown table of docs/reference/close-codes.md: the transport's codes, then those of ``enums``."""
    codes: list[DescribedInt] = [*CloseCode, *(code for enum in enums for code in enum)]
    rows = [f"| {code.value} | `{code.name}` | {code.meaning} |" for code in codes]
    return "\n".join(["| code | name | meaning |", "|---|---|---|", *rows])
