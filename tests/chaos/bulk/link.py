"""A connection of a peer that sends prepared frames and counts what comes back. Times are seconds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, cast

from tests.chaos.bulk.stream import Inbox, OutOfStep
from tests.end_to_end.raw import upgrade
from tests.support.frames import PONG, close_frame, frame

__all__ = ["TROUBLES", "Address", "Link", "Refused", "opened"]

Address = tuple[str, int]

OPEN_S: Final = 8.0
_HEAD_END: Final = b"\r\n\r\n"


class Refused(Exception):
    """An upgrade was answered with another status than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


TROUBLES: Final = (Refused, OSError, TimeoutError, asyncio.TimeoutError, EOFError)


class Link(asyncio.Protocol):
    """See the module's docstring. The first ``wanted`` texts are kept."""

    def __init__(self, head: bytes, wanted: int = 0) -> None:
        self.inbox = Inbox(self._pong, wanted)
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.is_over = asyncio.Event()
        self.arrived = asyncio.Event()
        """Set whenever something arrives."""
        self.may_send = False
        self.wrong = ""
        self._head = head
        self._answer: bytes | None = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1 << 18)
        self._transport.write(self._head)
        self.may_send = True

    def data_received(self, data: bytes) -> None:
        """Take the answer, and then frames."""
        if self._answer is not None:
            self._answer += data
            if _HEAD_END not in self._answer:
                return
            head, _, data = self._answer.partition(_HEAD_END)
            self._answer = None
            words = head.split(None, 2)
            if not self.status.done():
                self.status.set_result(int(words[1]) if len(words) > 1 and words[1].isdigit() else 0)
        if self.status.result() != 101:
            return
        try:
            self.inbox.feed(data)
        except OutOfStep as error:
            self.wrong = str(error)
            self.abort()
        self.arrived.set()

    def pause_writing(self) -> None:
        """Send nothing for now."""
        self.may_send = False

    def resume_writing(self) -> None:
        """Send again."""
        self.may_send = True

    def connection_lost(self, error: Exception | None) -> None:
        """Note the end."""
        self.may_send = False
        if not self.status.done():
            self.status.set_exception(EOFError())
            self.status.exception()  # whoever waits gets it; nobody may
        self.is_over.set()
        self.arrived.set()

    def write(self, data: bytes | memoryview) -> None:
        """Send frames."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _pong(self, data: bytes) -> None:
        self.write(frame(data, PONG))

    async def leave(self) -> None:
        """Say goodbye, and end the connection when the server has, or after a moment."""
        self.write(close_frame())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.is_over.wait(), 2.0)
        self.abort()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()


async def opened(address: Address, path: str, server_id: str, *, wanted: int = 0, source: str | None = None) -> Link:
    """Return an upgraded connection, from ``source`` if that is given. Raises one of `TROUBLES`."""
    link = Link(upgrade(path, server_id), wanted)
    local = None if source is None else (source, 0)
    try:
        async with asyncio.timeout(OPEN_S):
            await asyncio.get_running_loop().create_connection(lambda: link, *address, local_addr=local)
            status = await asyncio.shield(link.status)
        if status != 101:
            raise Refused(status)
    except BaseException:
        link.abort()
        raise
    return link
