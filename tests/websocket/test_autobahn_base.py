"""The internals of Autobahn that the relay uses: each test fails with the name of what a newer version has moved."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from tests.support.frames import close_of, decode, frame, header
from tests.support.moved import Library
from websockets.frames import Opcode

from pyryrelay.websocket import autobahn_base
from pyryrelay.websocket.autobahn_base import (
    HAS_NVX,
    READ_IN,
    USES_NVX,
    AutobahnBase,
    GuardHooks,
    connection_request,
)

AUTOBAHN = Library("Autobahn", READ_IN, version("autobahn"), "pyryrelay.websocket.autobahn_base")


class Base(AutobahnBase):
    """A connection that records what it is asked to send."""

    def __init__(self, *, is_open: bool = True) -> None:
        # As in the relay's connections, no initialiser of Autobahn's runs.
        self.sent = b""
        if is_open:
            self.allow_messages()

    def write_control(self, data: bytes) -> None:
        """Record it."""
        self.sent += data

    def closes(self) -> list[tuple[int, str]]:
        """Return codes and reasons of the close frames that were sent."""
        found = decode(self.sent)
        assert {each.opcode for each in found} <= {Opcode.CLOSE}
        return [close_of(each) for each in found]


class Guarded(GuardHooks, Base):  # type: ignore[misc]  # Autobahn's own bases disagree
    """A connection with the hooks of the guard in front."""

    fields: Any = None

    def denial_fields(self) -> Any:
        """Return what the test wants."""
        return self.fields


# What Autobahn must still do


def test_no_initialiser_needs_to_run() -> None:
    """A new object has all attributes that Autobahn's methods read, and is not open yet."""
    with AUTOBAHN.relied_on("WebSocketServerProtocol.__init__, connectionMade, state", "the class has it all"):
        base = Base(is_open=False)
        assert base.state == WebSocketServerProtocol.STATE_CONNECTING
        base.allow_messages()
        assert base.state == WebSocketServerProtocol.STATE_OPEN
        base.end_messages()
        assert base.state == WebSocketServerProtocol.STATE_CLOSED


def test_any_close_code_can_be_sent_once() -> None:
    """A close frame of ours may have any code and is the last frame; after the end of messages there is none."""
    with AUTOBAHN.relied_on("sendCloseFrame, closedByMe, localCloseCode, STATE_CLOSING", "it sends any code, once"):
        for code in (1000, 1001, 1008, 1011, 4404):
            base = Base()
            base.send_close(code, "reason")
            assert base.state == WebSocketServerProtocol.STATE_CLOSING
            base.send_close(1002, "again")
            assert base.closes() == [(code, "reason")]
            assert base.close_status() == (code, "")
        base = Base()
        base.end_messages()
        base.send_close(1000, "late")
        assert base.closes() == []


def test_a_long_reason_is_cut() -> None:
    """RFC 6455 section 5.5: a control frame carries at most 125 bytes, two of which are the code."""
    base = Base()
    base.send_close(1000, "ä" * 100)
    ((_, reason),) = base.closes()
    assert reason == "ä" * 61


@pytest.mark.parametrize(
    ("payload", "answer", "status"),
    [
        (b"", (1000, ""), (1005, "")),
        (b"\x03\xe9bye", (1000, ""), (1001, "bye")),
        (b"\x0f\xa1", (1000, ""), (4001, "")),
        (b"\x03\xed", (1002, "invalid close code 1005"), (1005, "")),
        (b"\x03\xe8\xff", (1007, "invalid close reason (non-UTF8 payload)"), (1007, "")),
    ],
)
def test_close_frames_are_judged_and_answered(payload: bytes, answer: tuple[int, str], status: tuple[int, str]) -> None:
    """Autobahn answers a close frame, chooses code and reason for an invalid one, and then ends the connection."""
    with AUTOBAHN.relied_on(
        "onCloseFrame, remoteCloseCode, remoteCloseReason, dropConnection, factory.isServer", "it judges and answers"
    ):
        base = Base()
        base.judge_close_frame(payload)
        assert base.closes() == [answer]
        assert base.close_status() == status
        assert base.state == WebSocketServerProtocol.STATE_CLOSED


def test_an_answer_to_our_close_frame_is_not_answered() -> None:
    """The answer to our close frame ends the connection, and the first code counts."""
    with AUTOBAHN.relied_on("onCloseFrame", "it does not answer an answer"):
        base = Base()
        base.send_close(4404, "ours")
        base.judge_close_frame(b"\x03\xe8theirs")
        assert base.closes() == [(4404, "ours")]
        assert base.close_status() == (4404, "")
        assert base.state == WebSocketServerProtocol.STATE_CLOSED


BAD_HEADERS = {
    "unmasked client-to-server frame": (frame(b"a", mask=None)[:2], False),
    "RSV = 4 and no extension negotiated": (frame(b"", rsv=4), False),
    "data frame using reserved opcode 3": (frame(b"", 3), False),
    "control frame using reserved opcode 11": (frame(b"", 11), False),
    "fragmented control frame": (frame(b"", 9, fin=False), False),
    "control frame with payload length > 125 octets": (header(126, 9) + bytes(4), False),
    "received close control frame with payload len 1": (header(1, 8) + bytes(4), False),
    "received continuation data frame outside fragmented message": (frame(b"", 0), False),
    "received non-continuation data frame while inside fragmented message": (frame(b""), True),
    "invalid data frame length (>2^63)": (header(1 << 63) + bytes(4), False),
}


@pytest.mark.parametrize("reason", BAD_HEADERS)
def test_headers_are_judged(reason: str) -> None:
    """Autobahn has the reason for each invalid header, the relay has one for valid ones, and nothing is kept."""
    raw, inside_message = BAD_HEADERS[reason]
    with AUTOBAHN.relied_on(
        "_dataReceived, data, current_frame, inside_message, _fail_connection", "they judge the header of a frame"
    ):
        base = Base()
        base.judge_header(raw, inside_message)
        assert base.closes() == [(1002, reason)]
        assert (base.data, base.current_frame) == (b"", None)


@pytest.mark.parametrize(("raw", "inside_message"), [(header(5) + bytes(4), False), (frame(b"", 0), True)])
def test_no_frame_is_taken(raw: bytes, inside_message: bool) -> None:
    """A header that Autobahn accepts ends the connection as well, and begins no message."""
    with AUTOBAHN.relied_on("onFrameBegin, onFrameData", "they are called for headers that pass"):
        base = Base()
        base.judge_header(raw, inside_message)
        assert base.closes() == [(1002, "bad frame header")]


def test_a_refusal_is_one_complete_answer() -> None:
    """Autobahn writes status, phrase and fields of a refused handshake, and ends the connection."""
    with AUTOBAHN.relied_on("failHandshake, sendData", "it writes a refusal with these fields"):
        base = Guarded(is_open=False)
        base.fields = [("Retry-After", "6")]
        base.failHandshake("what the client sent", 429)
        assert re.fullmatch(
            rb"HTTP/1\.1 429 Too Many Requests\r\nDate: [^\r\n]+ GMT\r\nRetry-After: 6\r\n"
            rb"Content-Length: 0\r\nConnection: close\r\n\r\n",
            base.sent,
        )
        assert base.state == WebSocketServerProtocol.STATE_CLOSED


def test_1014_is_taken_for_a_valid_code() -> None:
    """IANA has registered 1014 after Autobahn's list was made, and it is valid here."""
    with AUTOBAHN.relied_on("onCloseFrame", "it takes 1013, and puts it into remoteCloseCode"):
        base = Guarded()
        base.judge_close_frame((1014).to_bytes(2, "big") + b"bad gateway")
        assert base.closes() == [(1000, "")]
        assert base.close_status() == (1014, "bad gateway")


def test_autobahns_own_lines_are_silenced() -> None:
    """Autobahn logs no line for what a peer does; a guarded server of others logs none for refusals."""
    with AUTOBAHN.relied_on("log", "each method logs to this attribute"):
        assert "log" in vars(AutobahnBase)
        silent = Guarded(is_open=False)
        silent.fields = []
        silent.failHandshake("", 403)
        assert vars(silent)["log"] is autobahn_base._silent_logger()


def test_whether_the_native_part_is_in_use() -> None:
    """Autobahn reports whether its native part exists, and whether it is in use."""
    with AUTOBAHN.relied_on("HAS_NVX, USES_NVX", "they are flags"):
        assert isinstance(HAS_NVX, bool)
        assert isinstance(USES_NVX, bool)


# Our own part


def test_requests_hold_nothing_that_the_client_wrote() -> None:
    """`onConnect` gets a request with the path alone, and the same object for the same path."""
    found = connection_request("/v1/server")
    assert isinstance(found, ConnectionRequest)
    assert (found.path, found.headers, found.peer) == ("/v1/server", {}, "")
    assert connection_request("/v1/server") is found


def test_what_a_mixin_or_subclass_must_bring() -> None:
    """The two hooks have no default."""
    with pytest.raises(NotImplementedError):
        AutobahnBase().write_control(b"")
    with pytest.raises(NotImplementedError):
        GuardHooks.denial_fields(Guarded())


def test_a_connection_without_a_close_frame_ended_abnormally() -> None:
    """1006 is reported where neither side sent a close frame."""
    assert Base().close_status() == (1006, "")


def test_every_entry_of_the_list_has_a_test() -> None:
    """Each attribute in the module's docstring is named by one of these tests."""
    rows = [row for row in (autobahn_base.__doc__ or "").splitlines() if row.startswith("| ")][2:]
    listed = {name for row in rows for name in re.findall(r"``([\w.]+)``", row.split("|")[1] or row)}
    source = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in listed if name.split(".")[-1].strip("_") not in source} == set()
    assert len(listed) > 12
