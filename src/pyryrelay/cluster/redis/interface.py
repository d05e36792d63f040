"""What the rest of the cluster sees of a Redis server.

`Redis.call` runs a script and `Redis.command` a command. Calls are sent in the order in which they are made, on one
connection, and the server executes them in that order. Nobody waits for a server that is down: a call then fails at
once. Every call fires within `CALL_TIMEOUT_S`; if the server takes longer, the connection is cut off and all of its
calls fail, so an answer is never taken for that of another call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Final, Protocol, TypeAlias

from twisted.internet.defer import Deferred

__all__ = ["CALL_TIMEOUT_S", "AnswerError", "Argument", "DownError", "Redis", "RedisError", "Script"]

CALL_TIMEOUT_S: Final = 0.5
"""How long an answer may take."""

Argument: TypeAlias = bytes | str | int | float
"""What a key or an argument may be; texts are sent as UTF-8."""


class RedisError(Exception):
    """A call that brought no answer, or an error."""


class DownError(RedisError):
    """The server is down, or the connection ended before the answer came. Whether the call was executed is unknown."""


_IN_SCRIPT: Final = re.compile(r"ERR Error running script[^-]*-(?=[A-Z]+ )")
"""What Redis 6.2 writes before an error that a script met, if that has a kind."""
_OF_SCRIPT: Final = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.$")
"""What Redis 7 and Valkey write after it."""


class AnswerError(RedisError):
    """The server answered with an error, whose first word is its `code`; if a script failed, the one that it met."""

    def __init__(self, text: str = "") -> None:
        super().__init__(_OF_SCRIPT.sub("", _IN_SCRIPT.sub("", text, count=1)))

    @property
    def code(self) -> str:
        """The kind of the error, such as ``NOPERM``."""
        return str(self).partition(" ")[0]


def _any(answer: Any, keys: int) -> bool:
    return True


@dataclass(frozen=True)
class Script:
    """A Lua script. All keys that it uses are on one server.

    ``fits`` tells whether something can be its answer, given the number of keys. Nobody is given an answer that does
    not fit: the connection ends, as the server, or a proxy, has given the answer to another question.
    """

    source: str
    fits: Callable[[Any, int], bool] = field(default=_any, compare=False)
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the name under which servers keep it."""
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())


class Redis(Protocol):
    """One server, which may come and go. See the module's docstring."""

    @property
    def is_up(self) -> bool:
        """Whether there is a connection that can be used. Calls fail at once while there is none."""

    @property
    def connections(self) -> int:
        """How many connections could be used so far. Each may have led to another server."""

    @property
    def ahead_s(self) -> float | None:
        """What to add to the monotonic clock to get the server's time in seconds since 1970; None if not known yet."""

    def call(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> Deferred[Any]:
        """Run a script. Answers are bytes, numbers, None, or lists of them. Fails with a `RedisError`."""

    def command(self, *words: Argument) -> Deferred[Any]:
        """Run a command, as `call` runs a script."""
