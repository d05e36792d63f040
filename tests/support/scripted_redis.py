"""A server as the rest of the cluster sees it, whose answers a test gives one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from pyryrelay.cluster.redis.interface import Argument, DownError, Script


class ScriptedRedis:
    """`pyryrelay.cluster.redis.interface.Redis`. ``asked`` has what waits for an answer: the script or None, and words.

    ``count`` is the number of all calls and commands.
    """

    def __init__(self) -> None:
        self.is_up = True
        self.connections = 1
        self.ahead_s: float | None = 1_790_000_000.0
        self.asked: list[tuple[Script | None, tuple[Argument, ...]]] = []
        self.count = 0
        self._waiting: list[Deferred[Any]] = []

    def call(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> Deferred[Any]:
        """Run a script."""
        return self._ask(script, tuple(args))

    def command(self, *words: Argument) -> Deferred[Any]:
        """Run a command."""
        return self._ask(None, words)

    def _ask(self, script: Script | None, words: tuple[Argument, ...]) -> Deferred[Any]:
        self.count += 1
        if not self.is_up:
            return fail(DownError("test"))
        self.asked.append((script, words))
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def answer(self, answer: object) -> None:
        """Answer what has waited longest, perhaps with an exception."""
        self.asked.pop(0)
        waiting = self._waiting.pop(0)
        if isinstance(answer, Exception):
            waiting.errback(Failure(answer))
        else:
            waiting.callback(answer)

    def end(self) -> None:
        """Lose the connection."""
        self.is_up = False
        while self._waiting:
            self.answer(DownError("test"))
