"""A real Redis behind the interface of the cluster's client, with a clock that tests set, and troubles on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.resp import RespClient
from twisted.internet.defer import Deferred, fail, succeed

from pyryrelay.cluster.directory.scripts import NOW
from pyryrelay.cluster.redis.interface import Argument, DownError, Script

TEST_NOW = "local now = tonumber(redis.call('GET', 'clock'))\n"
START_US = 1_790_000_000_000_000


def clocked(source: str) -> str:
    """Return a script that reads the test's clock."""
    return source.replace(NOW, TEST_NOW)


class TestRedis:
    """One client of a real server. ``is_up`` is what the client believes; while ``is_held``, answers wait."""

    __test__ = False

    def __init__(self, client: RespClient) -> None:
        self.client = client
        self.is_up = True
        self.is_held = False
        self.connections = 1
        self.ahead_s: float | None = 0.0
        self.calls: list[Script] = []
        self._waiting: list[tuple[Deferred[Any], Any]] = []

    def call(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> Deferred[Any]:
        """Run a script at once; the answer may come later."""
        if not self.is_up:
            return fail(DownError("it is down"))
        self.calls.append(script)
        answer = _as_bytes(self.client.script(clocked(script.source), list(keys), list(args)))
        if not self.is_held:
            return succeed(answer)
        waiting = Deferred[Any]()
        self._waiting.append((waiting, answer))
        return waiting

    def command(self, *words: Argument) -> Deferred[Any]:
        """Run a command at once."""
        return succeed(_as_bytes(self.client(*words)))

    def let_go(self) -> None:
        """Give the answers that were held, and those to the calls that they lead to."""
        self.is_held = False
        while self._waiting:
            waiting, answer = self._waiting.pop(0)
            waiting.callback(answer)

    def fail_held(self) -> None:
        """Lose the connection before the answers came, although the calls were executed."""
        self.is_held = self.is_up = False
        waiting, self._waiting = self._waiting, []
        for deferred, _ in waiting:
            deferred.errback(DownError("the connection ended"))


def _as_bytes(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_as_bytes(each) for each in answer]
    return answer.encode() if isinstance(answer, str) else answer
