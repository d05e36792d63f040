"""Pairs of a binary and a phone that talk all the time, and that no fault may close but the end of their instances.

They use the `websockets` library. Frames are numbered, so one that is lost, repeated or overtaken is found, although
the sockets stay open. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.chaos.timeline import Fault
from tests.chaos.traffic import PEER_OPTIONS, TROUBLES
from tests.end_to_end.peers import binary, phone
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

__all__ = ["ENDING", "Closed", "Pair", "Talk"]

ENDING: Final = frozenset({"kill", "end", "kill-worker"})
"""Kinds of faults that close connections of the instance they are done to."""
LATE_S: Final = 25.0
"""How long after its instance has ended a peer may hear of it, if the network was cut meanwhile."""
WINDOW: Final = 20
"""Frames that may be under way."""


class Closed(NamedTuple):
    """A pair that talked was closed at ``at``. ``who`` was closed first."""

    key: str
    instances: tuple[str, str]
    who: str
    code: int | None
    at: float

    def is_excused(self, faults: Iterable[Fault]) -> bool:
        """Tell whether one of its instances was ended."""
        return any(
            fault.kind in ENDING and fault.what in self.instances and fault.since <= self.at <= fault.until + LATE_S
            for fault in faults
        )


class Talk:
    """The numbered frames of one phone and its binary, which sends each of them back. PURE."""

    def __init__(self) -> None:
        self.sent = 0
        self.at_binary = 0
        self.answered = 0

    def next(self) -> int:
        """Return the number of the next frame of the phone."""
        self.sent += 1
        return self.sent

    def received(self, number: int, *, by_binary: bool) -> str:
        """Note a frame that has arrived; return what is wrong with it, or ""."""
        due = (self.at_binary if by_binary else self.answered) + 1
        if by_binary:
            self.at_binary = number
        else:
            self.answered = number
        return "" if number == due else f"frame {number} came where {due} was due"


@dataclass
class Pair:
    """A pair whose binary comes to ``instances[0]`` and whose phone comes to ``instances[1]``."""

    key: str
    instances: tuple[str, str]
    uri: Callable[[str], str | None]
    """The address of an instance; None while it is not healthy."""
    frame_s: float = 0.1
    is_over: bool = False
    frames: int = 0
    answered_at: float = 0.0
    closed: list[Closed] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    async def keep(self) -> None:
        """Talk, and begin again if that ends."""
        while not self.is_over:
            with contextlib.suppress(*TROUBLES):
                await self._attempt()
            await asyncio.sleep(0.3)

    async def _attempt(self) -> None:
        home, away = map(self.uri, self.instances)
        if home is None or away is None:
            return
        async with binary(home, self.key, **PEER_OPTIONS) as daemon, phone(away, self.key, **PEER_OPTIONS) as visitor:
            talk = Talk()
            tasks = [
                asyncio.create_task(self._echo(daemon, talk)),
                asyncio.create_task(self._hear(visitor, talk)),
                asyncio.create_task(self._speak(visitor, talk)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                self._note_close(talk, daemon, visitor)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for peer in (daemon, visitor):
                    peer.transport.abort()

    def _note_close(self, talk: Talk, daemon: ClientConnection, visitor: ClientConnection) -> None:
        """Note that a pair was closed which had talked: the phone's first frame is only sure to be answered then."""
        if not talk.answered or self.is_over:
            return
        first = (daemon, "binary") if daemon.close_code is not None else (visitor, "phone")
        self.closed.append(Closed(self.key, self.instances, first[1], first[0].close_code, time.time()))

    async def _echo(self, daemon: ClientConnection, talk: Talk) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in daemon:
                envelope = json.loads(message)
                if "frame" in envelope:
                    self._note(talk.received(envelope["frame"]["n"], by_binary=True))
                    await daemon.send(json.dumps({"conn_id": envelope["conn_id"], "frame": envelope["frame"]}))

    async def _hear(self, visitor: ClientConnection, talk: Talk) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in visitor:
                self._note(talk.received(json.loads(message)["n"], by_binary=False))
                self.frames += 1
                self.answered_at = time.time()

    async def _speak(self, visitor: ClientConnection, talk: Talk) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                if talk.sent - talk.answered < WINDOW:
                    await visitor.send(json.dumps({"n": talk.next()}))
                await asyncio.sleep(self.frame_s)

    def _note(self, problem: str) -> None:
        if problem:
            self.wrong.append(f"{self.key}: {problem}")

    def problems(self, faults: Sequence[Fault], quiet_since: float) -> list[str]:
        """Return what did not hold in the end."""
        found = [f"{closed} is not excused" for closed in self.closed if not closed.is_excused(faults)]
        if self.answered_at <= quiet_since:
            found.append(f"{self.key} ({' and '.join(self.instances)}) does not talk after the faults")
        return [*found, *self.wrong]
