"""PURE: the states of an upgraded connection, from the opening handshake to the loss of its transport.

`pyryrelay.websocket.lifecycle` is driven by `TRANSITIONS`, and docs/reference/connection-states.md is generated from
it. The states stand in the order of a connection's life, and every transition leads forwards. So a connection ends in
finitely many steps, each state is entered once at most, and a test such as ``state <= State.FLUSHING`` means that the
connection has not come further than that.

The session is opened in OPEN. It is told the end by the first of: a transition to DRAINING, a chunk that arrives in
CLOSING, the transition to CLOSED.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from pyryrelay.close_codes import DescribedInt

__all__ = ["TRANSITIONS", "Event", "State", "Transition"]


class State(DescribedInt):
    """A state of a connection, with what is so while it lasts as the member's ``meaning``."""

    CONNECTING = 0, "The request was checked; the gate has not admitted it yet."
    OPEN = 1, "Messages are delivered, and sent."
    FLUSHING = 2, "The application, or the end of the relay, has closed the peer. What was sent before is on its way."
    CLOSING = 3, "Our close frame is sent, and the peer's is awaited."
    DRAINING = 4, "Nothing more is sent, and what arrives is discarded. The write side ends behind what was sent."
    LINGERING = 5, "The write side has ended, and the peer's end is awaited, for a second at most."
    DISCONNECTING = 6, "The transport was told to close, because the peer's end did not come."
    ABORTED = 7, "The transport was told to reset the connection."
    CLOSED = 8, "The transport is lost."


class Event(StrEnum):
    """What happens to a connection, with what has happened as the member's ``meaning``."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Event:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    ADMITTED = "admitted", "The gate has admitted the upgrade."
    DENIED = "denied", "The gate has refused the upgrade at the last moment."
    CLOSE_REQUESTED = "close requested", "The application closes the peer, or the relay shuts down."
    FLUSHED = "flushed", "What was sent before the close has been handed over."
    PEER_CLOSED = "peer closed", "The peer's close frame has arrived."
    PEER_LEFT = "peer left", "The peer has ended its side of TLS without a close frame."
    FAILED = "failed", "The peer broke the protocol, a limit or a deadline, or the application failed."
    WRITING_ENDED = "writing ended", "The transport has been told to end the write side, and holds little before it."
    TIMED_OUT = "timed out", "The time for this part of the end is over."
    CUT_OFF = "cut off", "The peer has hung up, the relay's own end has taken too long, or the relay failed."
    LOST = "lost", "The transport has reported that it is lost."


class Transition(NamedTuple):
    """One row of the table: the state that follows, the action's name, and what it does."""

    target: State
    action: str
    effect: str


_END: Final = Transition(
    State.DRAINING,
    "end",
    "What waits is forgotten, the session is told the end, and the write side ends behind what the transport holds.",
)
_ABORT: Final = Transition(State.ABORTED, "reset", "The connection is reset.")
_RELEASE: Final = Transition(
    State.CLOSED, "release_all", "The session is told the end if it was not, and everything is given back."
)

TRANSITIONS: Final[Mapping[tuple[State, Event], Transition]] = MappingProxyType(
    {
        (State.CONNECTING, Event.ADMITTED): Transition(
            State.OPEN, "open", "The application opens a session, and the 101 is sent."
        ),
        (State.CONNECTING, Event.DENIED): Transition(
            State.DRAINING, "end", "The refusal was sent, and the transport is closed behind it."
        ),
        (State.CONNECTING, Event.LOST): _RELEASE,
        (State.OPEN, Event.CLOSE_REQUESTED): Transition(
            State.FLUSHING,
            "flush_before_close",
            "From now on the time is limited, no message is delivered or sent, and a paused peer is read from again.",
        ),
        (State.OPEN, Event.PEER_CLOSED): _END,
        (State.OPEN, Event.PEER_LEFT): _END,
        (State.OPEN, Event.FAILED): _END,
        (State.OPEN, Event.CUT_OFF): _ABORT,
        (State.OPEN, Event.LOST): _RELEASE,
        (State.FLUSHING, Event.FLUSHED): Transition(State.CLOSING, "send_close_frame", "Our close frame is sent."),
        (State.FLUSHING, Event.PEER_CLOSED): _END,
        (State.FLUSHING, Event.PEER_LEFT): _END,
        (State.FLUSHING, Event.FAILED): _END,
        (State.FLUSHING, Event.TIMED_OUT): _ABORT,
        (State.FLUSHING, Event.CUT_OFF): _ABORT,
        (State.FLUSHING, Event.LOST): _RELEASE,
        (State.CLOSING, Event.PEER_CLOSED): _END,
        (State.CLOSING, Event.PEER_LEFT): _END,
        (State.CLOSING, Event.FAILED): _END,
        (State.CLOSING, Event.TIMED_OUT): _ABORT,
        (State.CLOSING, Event.CUT_OFF): _ABORT,
        (State.CLOSING, Event.LOST): _RELEASE,
        (State.DRAINING, Event.WRITING_ENDED): Transition(
            State.LINGERING, "linger", "The peer has a second to end its side, too."
        ),
        (State.DRAINING, Event.TIMED_OUT): _ABORT,
        (State.DRAINING, Event.CUT_OFF): _ABORT,
        (State.DRAINING, Event.LOST): _RELEASE,
        (State.LINGERING, Event.TIMED_OUT): Transition(
            State.DISCONNECTING, "disconnect", "The transport is closed, for which the time is limited, too."
        ),
        (State.LINGERING, Event.CUT_OFF): _ABORT,
        (State.LINGERING, Event.LOST): _RELEASE,
        (State.DISCONNECTING, Event.TIMED_OUT): _ABORT,
        (State.DISCONNECTING, Event.CUT_OFF): _ABORT,
        (State.DISCONNECTING, Event.LOST): _RELEASE,
        (State.ABORTED, Event.LOST): _RELEASE,
    }
)
"""Every transition there is. A pair that is not here cannot happen."""
