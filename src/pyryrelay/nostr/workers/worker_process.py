"""A child process that is started again when it ends, as its clients on the reactor's side see it.

The clients know a child by the frames that it sends and by its end. A child whose start failed, or that did not live
long, is started again later and later: at once, then after 1, 2, 4 and up to 60 s. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from pyryrelay.nostr.workers.wire import encode

__all__ = ["WATCH_S", "Cancellable", "Child", "ChildServices", "Client", "Role", "Watch", "WorkerProcess"]

MODULE: Final = "pyryrelay.nostr.workers.child"
WRITER: Final = "nostr-writer"
EXCHANGE: Final = "nostr-exchange"
"""The names of the children that all workers of a relay share."""
MAX_DELAY_S: Final = 60.0
WATCH_S: Final = 1.0
"""How often it is looked whether children hang."""
LIVED_S: Final = 60.0
"""A child that lived this long did not fail because of how it was started."""

Role: TypeAlias = Literal["writer", "reader", "verifier", "hub"]


class Child(Protocol):
    """A running child process, at the other end of a stream of frames."""

    def send(self, body: bytes, /) -> None:
        """Send one frame. Does nothing once the child has ended."""

    def close(self) -> None:
        """Close the stream, at which the child ends in its own time."""

    def kill(self) -> None:
        """End the child at once, whatever it does."""


class Cancellable(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancel the call."""


@dataclass(frozen=True, slots=True)
class ChildServices:
    """What clients of children need of the relay.

    ``start_child`` starts Python with arguments, and calls its second argument with each frame that the child sends and
    its third, once, with a text when the child has ended. ``now`` is the monotonic clock, which ``call_later`` follows.
    ``restarting`` is told that a child has ended by itself: its role, the reason, and the time until it starts again.
    """

    start_child: Callable[[Sequence[str], Callable[[bytes], None], Callable[[str], None]], Child]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    now: Callable[[], float]
    restarting: Callable[[Role, str, float], None] = lambda role, reason, delay_s: None


class Client(Protocol):
    """The user of one child process."""

    def started(self) -> None:
        """Take note of a new child: frames may be sent, and wait until it is ready."""

    def received(self, body: bytes) -> None:
        """Process a frame."""

    def lost(self, delay_s: float) -> None:
        """Take note that the child has ended. ``delay_s`` is the time until the next one is started; 0 is at once."""

    def ended(self) -> None:
        """Take note that the child has ended after `WorkerProcess.close`, and that there will be no other."""


class WorkerProcess:
    """One child, and its successors. ``config`` is what each is told first."""

    def __init__(self, services: ChildServices, role: Role, config: object, client: Client) -> None:
        self._services = services
        self._role: Role = role
        self._config = config
        self._client = client
        self._child: Child | None = None
        self._failures = 0
        self._started_s = 0.0
        self._restart: Cancellable | None = None
        self._is_closed = False
        self._is_coming = False
        self._is_current = [False]

    @property
    def is_available(self) -> bool:
        """Whether there is a child, or will be one in the next turn of the reactor."""
        return self._child is not None or self._is_coming

    @property
    def is_running(self) -> bool:
        """Whether there is a child that frames can be sent to."""
        return self._child is not None

    def start(self) -> None:
        """Start the child."""
        self._restart = None
        self._is_coming = False
        self._started_s = self._services.now()
        is_current = self._is_current = [True]  # the frames and the end of a child may not be taken for its successor's

        def received(body: bytes) -> None:
            if is_current[0]:
                self._client.received(body)

        def ended(reason: str) -> None:
            if is_current[0]:
                is_current[0] = False
                self._ended(reason)

        child = self._services.start_child(("-m", MODULE, self._role), received, ended)
        if is_current[0]:
            self._child = child
            child.send(encode(self._config))
            self._client.started()

    def send(self, body: bytes) -> None:
        """Send a frame to the child, if it is running."""
        if self._child is not None:
            self._child.send(body)

    def configure(self, config: object) -> None:
        """Tell this child, and all later ones, another configuration."""
        if config != self._config:
            self._config = config
            self.send(encode(config))

    def close(self) -> None:
        """Let the child end, and start no other. `Client.ended` is called when it has, perhaps before this returns."""
        if self._is_closed:
            return
        self._is_closed = True
        self._is_coming = False
        if self._restart is not None:
            self._restart.cancel()
        if self._child is None:
            self._client.ended()
        else:
            self._child.close()

    def replace(self, reason: str) -> None:
        """Kill a child that is of no use any more, for a reason, and start another as if it had ended by itself.

        Nothing is heard of it any more, also if the system cannot end it now.
        """
        child = self._child
        if child is not None and not self._is_closed:
            self._is_current[0] = False
            child.kill()
            self._ended(reason)

    def _ended(self, reason: str) -> None:
        self._child = None
        if self._is_closed:
            self._client.ended()
            return
        if self._services.now() - self._started_s >= LIVED_S:
            self._failures = 0
        delay_s = min(2.0 ** (self._failures - 1), MAX_DELAY_S) if self._failures else 0.0
        self._failures += 1
        self._is_coming = not delay_s
        self._services.restarting(self._role, reason, delay_s)
        self._restart = self._services.call_later(delay_s, self.start)
        self._client.lost(delay_s)


class Watch:
    """Calls ``look`` with the time, each `WATCH_S`, so that it notices children that hang.

    After the reactor was held up it calls nothing once, so that what the children have sent meanwhile is read first.
    """

    def __init__(self, services: ChildServices, look: Callable[[float], None]) -> None:
        self._services = services
        self._look = look
        self._next_s = 0.0
        self._timer: Cancellable | None = None

    def start(self) -> None:
        """Begin."""
        self._next_s = self._services.now() + WATCH_S
        self._timer = self._services.call_later(WATCH_S, self._tick)

    def stop(self) -> None:
        """End. It can be called again, or without a start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._services.now()
        was_held_up = now - self._next_s > WATCH_S
        self.start()
        if not was_held_up:
            self._look(now)
