"""The echo server for conformance suites: a real process, the `websockets` client, and raw frames.

The rules are those that such suites check (RFC 6455 sections 5 to 8). How the relay treats broken frames is in
tests/end_to_end/test_bad_frames.py, whose frames are sent here too. Sizes are bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from tests.conformance.echo import FRAGMENTS, echo_server
from tests.end_to_end.harness import (
    DEADLINE_S,
    LOCALHOST,
    ROOT,
    assert_clean,
    asynchronous,
    environment,
    run,
    until,
)
from tests.end_to_end.raw import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    SAMPLE_ACCEPT,
    TEXT,
    UPGRADE,
    Raw,
    close_frame,
    frame,
    head,
    raw,
)
from tests.end_to_end.test_bad_frames import CONTINUATION, WRONG_CLOSES, WRONG_FRAMES
from tests.support.frames import decode
from tests.support.frames import frame as client_frame
from tests.support.harness import ALICE, request_head
from tests.support.transports import HIGH_WATER_BYTES, Transport, tcp_address
from twisted.internet.task import Clock
from websockets.asyncio.client import connect

pytestmark = pytest.mark.thorough

SCRIPT = ROOT / "tests" / "conformance" / "echo.py"
LIMIT = 16 * 1024 * 1024
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 1 << 20, LIMIT)


class EchoProcess:
    """The script, started as its help says."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, SCRIPT, "--listen", f"tcp:0:interface={LOCALHOST}", *options],
                cwd=directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        try:
            line = until(self._first_line, "the echo server listens")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.line = line
        found = re.search(r", port (\d+),", line)
        assert found is not None, line
        self.address = (LOCALHOST, int(found[1]))

    def _first_line(self) -> str:
        assert self.process.poll() is None, self.errors()
        text = self._out.read_text()
        return text if text.endswith("\n") else ""

    @property
    def uri(self) -> str:
        """Return the address that suites connect to."""
        return f"ws://{LOCALHOST}:{self.address[1]}/"

    def errors(self) -> str:
        """Return what it wrote to standard error."""
        return self._err.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal, and check its exit."""
        self.process.send_signal(number)
        try:
            assert self.process.wait(DEADLINE_S) == 0, self.errors()
        finally:
            self.process.kill()
            self.process.wait()
        assert_clean(self.errors())
        assert self._out.read_text() == self.line


@pytest.fixture(scope="module")
def shared_echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoProcess]:
    """One echo server for all tests of this module."""
    server = EchoProcess(tmp_path_factory.mktemp("echo"))
    yield server
    server.stop()


@pytest.fixture
def echo(shared_echo: EchoProcess) -> Iterator[EchoProcess]:
    """The shared echo server, which must not have written an error."""
    yield shared_echo
    assert_clean(shared_echo.errors())


def client(server: EchoProcess, path: str = "") -> connect:
    """A peer that follows the protocol."""
    return connect(
        server.uri + path, compression=None, proxy=None, open_timeout=DEADLINE_S, ping_interval=None, max_size=None
    )


@contextlib.asynccontextmanager
async def raw_peer(server: EchoProcess, path: str = "/", receive_bytes: int | None = None) -> AsyncIterator[Raw]:
    """A peer that sends arbitrary bytes after its upgrade."""
    async with raw(server.address, receive_bytes=receive_bytes) as peer:
        await peer.send(head(path, *UPGRADE))
        answer = await peer.response()
        assert (answer.status, answer.fields["sec-websocket-accept"]) == (101, SAMPLE_ACCEPT)
        yield peer


async def close_code(server: EchoProcess, data: bytes, chop: int | None = None) -> int:
    """Return the close code for these bytes, sent ``chop`` bytes at a time, and check that the connection ends."""
    async with raw_peer(server) as peer:
        step = chop or max(1, len(data))
        for at in range(0, len(data), step):
            await peer.send(data[at : at + step])
        code = await peer.close_code()
        await peer.gone()
        return code


# Messages


@pytest.mark.parametrize("size", SIZES)
@asynchronous
async def test_messages_come_back(size: int, echo: EchoProcess) -> None:
    """RFC 6455 section 5.6: text stays text, binary stays binary, and every byte is kept, up to the largest size."""
    text = ("Grüße, κόσμε 𐍈 " * (size // 20 + 1)).encode()[:size].decode(errors="ignore")
    text += "." * (size - len(text.encode()))
    octets = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    async with client(echo) as peer:
        for message in (text, octets, text):
            await peer.send(message)
            assert await asyncio.wait_for(peer.recv(), DEADLINE_S) == message


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@asynchronous
async def test_one_byte_too_many(opcode: int, echo: EchoProcess) -> None:
    """A message over the limit is refused by its header with 1009, whatever follows it."""
    assert await close_code(echo, frame(opcode, bytes(LIMIT + 1))[:100_000]) == 1009
    assert await close_code(echo, frame(opcode, bytes(LIMIT), fin=False) + frame(CONTINUATION, b"x")) == 1009


@asynchronous
async def test_order_is_kept(echo: EchoProcess) -> None:
    """Text and binary messages of one chunk are sent back in their order."""
    messages = [(TEXT, b"1"), (TEXT, b"2"), (BINARY, b"3"), (TEXT, b""), (BINARY, b""), (BINARY, b"6")]
    async with raw_peer(echo) as peer:
        await peer.send(b"".join(frame(opcode, payload) for opcode, payload in messages))
        assert [await peer.message() for _ in messages] == messages


@asynchronous
async def test_every_path(echo: EchoProcess) -> None:
    """Every path is upgraded, since suites connect to their own."""
    for path in ("/", "/echo", "/a/b?case=1&agent=x", "//"):
        async with raw_peer(echo, path) as peer:
            await peer.send(frame(TEXT, b"here"))
            assert await peer.message() == (TEXT, b"here")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@asynchronous
async def test_many_fragments_with_pings_between(opcode: int, echo: EchoProcess) -> None:
    """RFC 6455 section 5.4: control frames between fragments are answered first, and the message is whole."""
    payload = "fünfzig Stückchen ".encode() * 50
    pieces = [payload[at : at + 1] for at in range(len(payload))]
    data = frame(opcode, b"", fin=False)
    for number, piece in enumerate(pieces):
        data += frame(CONTINUATION, piece, fin=False) + frame(PING, b"%d" % number)
    async with raw_peer(echo) as peer:
        await peer.send(data + frame(CONTINUATION))
        assert [await peer.message() for _ in pieces] == [(PONG, b"%d" % number) for number in range(len(pieces))]
        assert await peer.message() == (opcode, payload)


@asynchronous
async def test_hundred_thousand_fragments(echo: EchoProcess) -> None:
    """A message of 4 MiB in very small frames is sent back like any other."""
    count = 100_000
    piece = bytes(40)
    data = frame(CONTINUATION, piece, fin=False) * (count - 2)
    async with raw_peer(echo) as peer:
        await peer.send(frame(BINARY, piece, fin=False) + data + frame(CONTINUATION, piece))
        assert await peer.message() == (BINARY, bytes(40 * count))


@asynchronous
async def test_endless_fragments(echo: EchoProcess) -> None:
    """One frame more than the limit closes the sender with 1008."""
    assert await close_code(echo, frame(BINARY, fin=False) + frame(CONTINUATION, fin=False) * FRAGMENTS) == 1008


@pytest.mark.parametrize("chop", [1, 2, 7, 1000])
@asynchronous
async def test_chops(chop: int, echo: EchoProcess) -> None:
    """The echo is the same wherever the network cuts the stream."""
    data = frame(TEXT, "ä".encode()) + frame(BINARY, bytes(126)) + frame(PING, b"p")
    data += frame(TEXT, b"\xc3", fin=False) + frame(PING) + frame(CONTINUATION, b"\xa4") + close_frame(1000)
    echoes = [(TEXT, "ä".encode()), (BINARY, bytes(126)), (TEXT, "ä".encode())]
    async with raw_peer(echo) as peer:
        for at in range(0, len(data), chop):
            await peer.send(data[at : at + chop])
        found = [await peer.message() for _ in range(6)]
        # A pong may overtake the messages before it.
        assert [each for each in found if each[0] == PONG] == [(PONG, b"p"), (PONG, b"")]
        assert [each for each in found if each[0] in (TEXT, BINARY)] == echoes
        assert found[-1][0] == CLOSE


FRAGMENTED = {
    "5.3": [frame(TEXT, b"1", fin=False), frame(CONTINUATION, b"2")],
    "5.6": [frame(TEXT, b"1", fin=False), frame(PING, b"ping"), frame(CONTINUATION, b"2")],
    "5.19": [
        *(frame(TEXT, b"1", fin=False), frame(CONTINUATION, b"2", fin=False), frame(PING, b"ping")),
        *(frame(CONTINUATION, b"3", fin=False), frame(CONTINUATION, b"4", fin=False), frame(PING, b"ping")),
        frame(CONTINUATION, b"5"),
    ],
    "6.1.3": [frame(TEXT, fin=False), frame(CONTINUATION, b"middle", fin=False), frame(CONTINUATION)],
    "10.1.1": [
        frame(TEXT, b"*" * 1300, fin=False),
        *[frame(CONTINUATION, b"*" * 1300, fin=False)] * 49,
        frame(CONTINUATION, b"*" * 536),
    ],
}
"""Messages in frames, by their numbers in the Autobahn testsuite."""


@pytest.mark.parametrize("chop", [None, 1, 997])
@pytest.mark.parametrize("case", FRAGMENTED)
@asynchronous
async def test_messages_in_frames(case: str, chop: int | None, echo: EchoProcess) -> None:
    """Messages are whole and pings are answered, however frames and chunks are cut."""
    data = b"".join(FRAGMENTED[case])
    if case == "10.1.1" and chop == 1:
        chop = 7
    async with raw_peer(echo) as peer:
        step = chop or len(data)
        for at in range(0, len(data), step):
            await peer.send(data[at : at + step])
        found = [await peer.message() for _ in range(1 + data.count(frame(PING, b"ping")))]
        assert [each for each in found if each[0] == PONG] == [(PONG, b"ping")] * (len(found) - 1)
        ((opcode, payload),) = [each for each in found if each[0] != PONG]
    whole = {"5.3": b"12", "5.6": b"12", "5.19": b"12345", "6.1.3": b"middle", "10.1.1": b"*" * (1300 * 50 + 536)}
    assert (opcode, payload) == (TEXT, whole[case])


RIGHT_TEXTS = [
    *(
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\0",
        "\x80",
        "\u0800",
        "\U00010000",
        "\x7f",
        "\u07ff",
        "\uffff",
        "\U0010ffff",
    ),
    *("\ud7ff", "\ue000", "\ufffd", "\ufffe", "\ufdd0", *(chr(plane << 16 | 0xFFFE) for plane in range(1, 17))),
]
"""Cases 6.2 to 6.23: first and last of each length, the neighbours of surrogates, and noncharacters."""
WRONG_TEXTS = [
    *(b"\x80", b"\xbf", b"\x80\xbf", bytes(range(0x80, 0xC0)), *(bytes((first, 0x20)) for first in range(0xC0, 0x100))),
    *(b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfe\xfe"),
    *(
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
    ),
    *(b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf"),
    *(b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
]
"""Cases 6.3 to 6.22: stray and missing bytes, overlong forms, surrogates, and values beyond Unicode."""


@asynchronous
async def test_valid_texts(echo: EchoProcess) -> None:
    """Every valid UTF-8 text is sent back: whole, in fragments of one byte, and in chunks of one byte."""
    async with raw_peer(echo) as peer:
        for text in map(str.encode, RIGHT_TEXTS):
            first, *others = [text[at : at + 1] for at in range(len(text))]
            pieces = [frame(CONTINUATION, other, fin=False) for other in others]
            await peer.send(frame(TEXT, text) + frame(TEXT, first, fin=False) + b"".join(pieces) + frame(CONTINUATION))
            for byte in frame(TEXT, text):
                await peer.send(bytes((byte,)))
            assert [await peer.message() for _ in range(3)] == [(TEXT, text)] * 3


@pytest.mark.parametrize("wrong", WRONG_TEXTS, ids=bytes.hex)
@asynchronous
async def test_invalid_texts(wrong: bytes, echo: EchoProcess) -> None:
    """Invalid UTF-8 closes with 1007, in one frame and in fragments of one byte."""
    pieces = [frame(CONTINUATION, wrong[at : at + 1], fin=False) for at in range(len(wrong))]
    assert await close_code(echo, frame(TEXT, "κόσμε".encode() + wrong)) == 1007
    assert await close_code(echo, frame(TEXT, fin=False) + b"".join(pieces) + frame(CONTINUATION)) == 1007


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, "κόσμε".encode(), fin=False) + frame(CONTINUATION, b"\xf4\x90\x80\x80", fin=False),
        frame(TEXT, "κόσμε".encode() + b"\xf4", fin=False) + frame(CONTINUATION, b"\x90", fin=False),
        frame(TEXT, "κόσμε".encode() + b"\xf4\x90\x80\x80" + b"edited")[: 6 + 11 + 4],
        frame(TEXT, "κόσμε".encode() + b"\xf4\x90\x80\x80" + b"edited")[: 6 + 11 + 2],
    ],
    ids=["6.4.1", "6.4.2", "6.4.3", "6.4.4"],
)
@asynchronous
async def test_invalid_text_that_has_not_ended(data: bytes, echo: EchoProcess) -> None:
    """Invalid UTF-8 is found at its first wrong byte, before the message or frame is complete."""
    assert await close_code(echo, data) == 1007
    assert await close_code(echo, data, 1) == 1007


# Pings


@asynchronous
async def test_pings_of_every_size(echo: EchoProcess) -> None:
    """RFC 6455 section 5.5.3: a pong holds the payload of its ping, up to 125 bytes."""
    payloads = [bytes(range(255, 255 - size, -1)) for size in range(126)]
    async with raw_peer(echo) as peer:
        for payload in payloads:
            await peer.send(frame(PING, payload))
            assert await peer.message() == (PONG, payload)
        await peer.send(b"".join(frame(PING, payload) for payload in payloads))
        assert [await peer.message() for _ in payloads] == [(PONG, payload) for payload in payloads]


@asynchronous
async def test_pongs_are_not_answered(echo: EchoProcess) -> None:
    """RFC 6455 section 5.5.3: an unsolicited pong expects no response."""
    async with raw_peer(echo) as peer:
        await peer.send(frame(PONG) + frame(PONG, bytes(125)) + frame(TEXT, b"next"))
        assert await peer.message() == (TEXT, b"next")


# Closing


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
@asynchronous
async def test_valid_close_codes(code: int, echo: EchoProcess) -> None:
    """RFC 6455 section 7.4 and the IANA registry: every code that may be sent is answered with 1000."""
    assert await close_code(echo, close_frame(code)) == 1000
    assert await close_code(echo, close_frame(code, "Grüße".encode()), chop=1) == 1000
    assert await close_code(echo, close_frame(code, b"x" * 123)) == 1000


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
@asynchronous
async def test_invalid_close_codes(code: int, echo: EchoProcess) -> None:
    """RFC 6455 section 7.4.2: a code that must not be sent is a protocol error."""
    assert await close_code(echo, close_frame(code)) == 1002
    assert await close_code(echo, close_frame(code, b"why"), chop=1) == 1002


@asynchronous
async def test_close_without_a_code(echo: EchoProcess) -> None:
    """RFC 6455 section 5.5.1: the body of a close frame is optional, and data after the frame is ignored."""
    assert await close_code(echo, frame(CLOSE)) == 1000
    async with raw_peer(echo) as peer:
        await peer.send(frame(TEXT, b"1") + frame(CLOSE) + frame(TEXT, b"2") + frame(PING))
        assert [(await peer.message())[0] for _ in range(2)] == [TEXT, CLOSE]
        assert await peer.rest() == b""


@pytest.mark.parametrize(
    "data",
    [
        frame(CLOSE) + frame(CLOSE),
        close_frame(1000) + frame(PING),
        close_frame(1000) + frame(TEXT, b"Hello"),
        frame(TEXT, b"1", fin=False) + close_frame(1000) + frame(CONTINUATION, b"2"),
        frame(TEXT, b"BAsd7&jh23" * 26214) + frame(TEXT, b"Hello") + close_frame(1000) + frame(PING),
    ],
    ids=["7.1.2", "7.1.3", "7.1.4", "7.1.5", "7.1.6"],
)
@asynchronous
async def test_what_follows_a_close_frame(data: bytes, echo: EchoProcess) -> None:
    """Data after a close frame is not answered, and large echoes before it are still delivered."""
    async with raw_peer(echo) as peer:
        await peer.send(data)
        while (answer := await peer.message())[0] == TEXT:
            assert len(answer[1]) in (5, 262_140)
        assert answer == (CLOSE, (1000).to_bytes(2, "big"))
        assert await peer.rest() == b""


CLOSES = WRONG_CLOSES | {
    "code 1014, reason that is no UTF-8": (1007, close_frame(1014, b"\xff")),
    "reason cut inside a character": (1007, close_frame(1000, "ä".encode()[:1])),
    "reason of 124 bytes": (1002, close_frame(1000, b"x" * 124)),
    "fragmented": (1002, frame(CLOSE, b"\x03\xe8", fin=False)),
}


@pytest.mark.parametrize("chop", [None, 1])
@pytest.mark.parametrize("name", CLOSES)
@asynchronous
async def test_wrong_close_frame(name: str, chop: int | None, echo: EchoProcess) -> None:
    """An invalid close frame is answered with 1002, or with 1007 for its reason."""
    code, data = CLOSES[name]
    assert await close_code(echo, data, chop) == code
    async with raw_peer(echo) as peer:
        await peer.send(data)
        assert await peer.close_code() == code
        assert await peer.rest() == b"", "it is the server that ends the connection, and in order"


# Broken frames

FRAMES = {name: each for name, each in WRONG_FRAMES.items() if each[0] != 1009 and name != "too many fragments"} | {
    **{f"reserved bits {rsv}": (1002, frame(TEXT, b"x", rsv=rsv)) for rsv in range(1, 8)},
    **{f"reserved bits {rsv} on a close frame": (1002, frame(CLOSE, b"\x03\xe8", rsv=rsv)) for rsv in (1, 2, 4)},
    **{f"opcode {opcode:X}": (1002, frame(opcode, b"x")) for opcode in (*range(3, 8), *range(11, 16))},
    "unmasked binary": (1002, frame(BINARY, bytes(1000), mask=False)),
    "unmasked close": (1002, frame(CLOSE, b"\x03\xe8", mask=False)),
    "unmasked continuation": (1002, frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", mask=False)),
    "continuation after a whole message": (1002, frame(TEXT, b"x", fin=False) + frame(CONTINUATION) * 2),
    "invalid UTF-8 by a later fragment": (1007, frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"(")),
    "UTF-8 cut short by the last fragment": (1007, frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82")),
    "a surrogate in two fragments": (1007, frame(TEXT, b"\xed", fin=False) + frame(CONTINUATION, b"\xa0\x80")),
    "beyond Unicode": (1007, frame(TEXT, b"\xf4\x90\x80\x80")),
    "invalid UTF-8 at the end of 64 KiB": (1007, frame(TEXT, bytes(65536) + b"\x80")),
}


@pytest.mark.parametrize("chop", [None, 1])
@pytest.mark.parametrize("name", FRAMES)
@asynchronous
async def test_wrong_frame(name: str, chop: int | None, echo: EchoProcess) -> None:
    """Messages before an invalid frame are echoed, and the frame closes its sender with the right code."""
    code, data = FRAMES[name]
    if chop and len(data) > 1000:
        chop = 1000
    assert await close_code(echo, data, chop) == code
    async with raw_peer(echo) as peer:
        await peer.send(frame(TEXT, b"before") + data)
        assert await peer.message() == (TEXT, b"before")
        assert await peer.close_code() == code


# Backpressure


def upgraded(message_bytes: int) -> Transport:
    """Return an upgraded connection in memory whose peer reads nothing."""
    entrances, _ = echo_server(Clock(), message_bytes)
    transport = Transport(tcp_address(ALICE))
    transport.connect(entrances.buildProtocol(None))
    feed(transport, request_head("/"))
    assert transport.taken.startswith(b"HTTP/1.1 101 ")
    transport.taken.clear()
    transport.peer_reads = False
    return transport


def feed(transport: Transport, data: bytes) -> None:
    """Receive bytes from the peer."""
    assert transport.protocol is not None
    transport.protocol.dataReceived(data)


def is_read(transport: Transport) -> bool:
    """Tell whether the peer is read from."""
    return transport.reading


def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    """A message that the transport cannot take stops reading until the peer has taken all of it."""
    transport = upgraded(LIMIT)
    message = bytes(HIGH_WATER_BYTES + 1)
    feed(transport, client_frame(message, 2))
    assert not is_read(transport)
    transport.read(1000)
    assert not is_read(transport)
    transport.read_all()
    assert is_read(transport)
    assert [bytes(each.data) for each in decode(bytes(transport.taken))] == [message]


def test_what_arrived_nevertheless_waits() -> None:
    """Data that arrived after reading stopped is echoed later, in order, and stops reading again."""
    transport = upgraded(LIMIT)
    messages = [bytes((number,)) * (HIGH_WATER_BYTES + 1) for number in range(3)]
    for message in messages:
        feed(transport, client_frame(message, 2))
    assert len(transport.waiting) < 2 * HIGH_WATER_BYTES
    transport.read()
    assert not is_read(transport)
    transport.read_all()
    assert is_read(transport)
    assert [bytes(each.data) for each in decode(bytes(transport.taken))] == messages


@asynchronous
async def test_backpressure_reaches_the_sender(echo: EchoProcess) -> None:
    """A peer that does not read can send only what kernel buffers hold; once it reads, all echoes arrive in order."""
    block, count, sent = bytes(1 << 20), 64, 0
    async with raw_peer(echo, receive_bytes=65536) as peer:
        peer.writer.transport.set_write_buffer_limits(0)
        with contextlib.suppress(TimeoutError):
            while sent < count:
                peer.writer.write(frame(TEXT, b"%d" % sent) + frame(BINARY, block))
                sent += 1
                # After so long without progress, the server has stopped reading, or the machine is slow.
                await asyncio.wait_for(peer.writer.drain(), 1.0)
        assert sent < count
        for number in range(sent):
            assert await peer.message() == (TEXT, b"%d" % number)
            assert await peer.message() == (BINARY, block)


# The process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@asynchronous
async def test_signals_end_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    """SIGTERM and SIGINT close every connection with 1001, and the exit code is 0."""
    server = EchoProcess(tmp_path)
    try:
        async with client(server) as peer:
            await peer.send("hello")
            assert await asyncio.wait_for(peer.recv(), DEADLINE_S) == "hello"
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, number))
            await asyncio.wait_for(peer.wait_closed(), DEADLINE_S)
            assert peer.close_code == 1001
            await stopping
    finally:
        server.process.kill()
        server.process.wait()


@asynchronous
async def test_limit_of_ones_own(tmp_path: Path) -> None:
    """--max-message-bytes sets the size of the largest message."""
    server = EchoProcess(tmp_path, "--max-message-bytes", "100")
    try:
        assert "100 bytes" in server.line
        async with raw_peer(server) as peer:
            await peer.send(frame(TEXT, b"x" * 100))
            assert await peer.message() == (TEXT, b"x" * 100)
        assert await close_code(server, frame(TEXT, b"x" * 101)) == 1009
    finally:
        server.stop()


@asynchronous
async def test_refused_requests_are_told(tmp_path: Path) -> None:
    """The reason of a refused handshake is on standard error."""
    server = EchoProcess(tmp_path)
    try:
        async with raw(server.address) as peer:
            await peer.send(head("/", ("Host", "echo")))
            assert (await peer.response()).status == 426
        until(lambda: server.errors() == "refused a request: 426 no_upgrade\n", "the refusal is told")
    finally:
        server.stop()


def test_help_has_examples() -> None:
    """--help says how to point a suite at the server, and which limits it has."""
    done = run(sys.executable, SCRIPT, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("tcp:9001:interface=127.0.0.1", "--max-message-bytes", str(LIMIT), "1009", "ws://", "SIGTERM"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--listen", "9001"), "tcp:PORT"),
        (("--listen", "unix:/nowhere"), "tcp:PORT"),
        (("--listen", "tcp:1:interface=nowhere"), "cannot listen"),
        (("--max-message-bytes", "0"), "from 1 on"),
        (("--max-message-bytes", "16M"), "whole number"),
    ],
)
def test_wrong_arguments(arguments: Sequence[str], word: str) -> None:
    """A wrong argument ends with exit code 2 and a line with the fix."""
    done = run(sys.executable, SCRIPT, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr
    assert_clean(done.stderr)


def test_port_that_is_taken(echo: EchoProcess) -> None:
    """A port that is taken is named, with exit code 2."""
    endpoint = f"tcp:{echo.address[1]}:interface={LOCALHOST}"
    done = run(sys.executable, SCRIPT, "--listen", endpoint)
    assert done.returncode == 2
    assert endpoint in done.stderr
    assert_clean(done.stderr)
