"""A Redis with a primary, two replicas whose clocks are wrong, and three sentinels. Times are seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.clocks import Clock
from tests.end_to_end.harness import until
from tests.support.redis_server import RedisServer, Sentinel

__all__ = ["SHIFTS_S", "RedisGroup"]

SHIFTS_S: Final = (0.0, 3.0, -3.0)
ELECTION_S: Final = 12.0
_NOBODY: Final = ("127.0.0.1", "1")


class RedisGroup:
    """It has the methods of a `RedisServer`, which speak to the primary of the moment."""

    def __init__(self, folder: Path, shifts_s: Sequence[float] = SHIFTS_S) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        clocks = [Clock(folder, f"redis-{number}", shift_s) for number, shift_s in enumerate(shifts_s)]
        first = RedisServer(folder, environment=clocks[0].environment)
        self._servers = [first]
        for clock in clocks[1:]:
            following = ("--replicaof", "127.0.0.1", str(first.port), "--repl-diskless-sync-delay", "0")
            self._servers.append(RedisServer(folder, *following, environment=clock.environment))
        self._sentinels = [Sentinel(folder, first.port, 2) for _ in range(3)]
        self._dead: RedisServer | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in self._sentinels)}/mymaster"

    def start(self) -> None:
        """Start it, and wait until the sentinels know all of it; after `kill_primary`, start that one again."""
        if self._dead is not None:
            self._dead.start()
            self._dead = None
            return
        for server in (*self._servers, *self._sentinels):
            server.start()
        until(self._is_known, "the sentinels know all servers and each other")

    def _is_known(self) -> bool:
        states = [sentinel.ask("SENTINEL", "MASTER", "mymaster") for sentinel in self._sentinels]
        known = (b"num-slaves\r\n$1\r\n2", b"num-other-sentinels\r\n$1\r\n2")
        return all(word in state for word in known for state in states)

    @property
    def servers(self) -> list[RedisServer]:
        """All of its servers, without the sentinels."""
        return list(self._servers)

    def primary(self) -> RedisServer:
        """Return the server that the sentinels name."""
        for sentinel in self._sentinels:
            with contextlib.suppress(OSError, IndexError, ValueError):
                port = int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster").split(b"\r\n")[4])
                return next(server for server in self._servers if server.port == port)
        raise AssertionError("no sentinel knows a primary")

    def fail_over(self, unlinked_s: float) -> None:
        """Have the replicas miss what is written for a while, kill the primary, and wait for the next one.

        On a busy machine sentinels may not agree for long. Then the old primary will be started again, empty.
        """
        old = self.primary()
        for server in self._servers:
            if server is not old:
                server.ask("REPLICAOF", *_NOBODY)
        time.sleep(unlinked_s)
        self.kill_primary()
        end = time.monotonic() + ELECTION_S
        while self.primary() is old and time.monotonic() < end:
            time.sleep(0.05)

    def kill_primary(self) -> None:
        """End the primary without warning; `start` starts it again, as what the sentinels make of it."""
        self._dead = self.primary()
        self._dead.kill()

    def ask(self, *words: str | bytes) -> bytes:
        """Ask the primary."""
        return self.primary().ask(*words)

    def kill(self) -> None:
        """End all of it."""
        for server in (*self._sentinels, *self._servers):
            server.kill()

    def go_on(self) -> None:
        """Do nothing: none of it is ever paused."""
