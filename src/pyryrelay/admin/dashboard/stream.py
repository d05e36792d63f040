"""``GET /events``: a stream of server-sent events, with the last 15 minutes first and then a sample each second.

There are at most `MAX_LISTENERS`. A listener is given `SLICE` events at a time, and no more until its connection has
taken them, so that it never has more than about 128 KiB in this process. One that takes nothing for `SLOW_S` is
dropped. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from pyryrelay.admin.dashboard.samples import History, encode, event
from pyryrelay.admin.resources import ApiError, RefusalResource

__all__ = ["MAX_LISTENERS", "SLICE", "SLOW_S", "Stream"]

MAX_LISTENERS: Final = 16
SLICE: Final = 32
SLOW_S: Final = 15.0

_FIELDS: Final = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Accel-Buffering", "no"),
)


@implementer(IPushProducer)
class _Listener:
    """One connection that listens."""

    def __init__(self, stream: Stream, request: Request, hello: bytes) -> None:
        self._stream = stream
        self.request = request
        self._next = stream.history.start
        self._paused_at_s: float | None = None
        request.notifyFinish().addBoth(self._ended)
        request.registerProducer(self, True)
        request.write(hello)
        self.pump()

    def pump(self) -> None:
        """Write what is new, unless the connection takes nothing now."""
        history = self._stream.history
        while self._paused_at_s is None and self._next < history.end:
            data, self._next = history.after(self._next, SLICE)
            self.request.write(data)

    def tell(self, data: bytes) -> None:
        """Write an event that is not kept, unless the connection takes nothing now, or is still at earlier ones."""
        if self._paused_at_s is None and self._next == self._stream.history.end:
            self.request.write(data)

    def is_slow(self, now: float) -> bool:
        """Return whether the connection has taken nothing for too long."""
        return self._paused_at_s is not None and now - self._paused_at_s >= SLOW_S

    def drop(self) -> None:
        """Cut the connection off."""
        transport: Any = self.request.transport
        transport.abortConnection()

    def finish(self) -> None:
        """End the answer."""
        self.request.unregisterProducer()
        self.request.finish()

    def _ended(self, reason: Failure | None) -> None:
        self._stream.listeners.pop(self, None)

    # IPushProducer

    def pauseProducing(self) -> None:
        """Write nothing until `resumeProducing`."""
        if self._paused_at_s is None:
            self._paused_at_s = self._stream.now()

    def resumeProducing(self) -> None:
        """Write again."""
        self._paused_at_s = None
        self.pump()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._paused_at_s = self._stream.now()


class Stream(Resource):
    """The resource. ``hello`` returns what each listener is told first: an object that JSON can hold.

    ``may_listen`` tells whether a request may still be answered: its session may have ended.
    """

    isLeaf = True

    def __init__(
        self,
        now: Callable[[], float],
        hello: Callable[[], Mapping[str, Any]],
        may_listen: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = now
        self.history = History()
        self.listeners: dict[_Listener, None] = {}
        self._hello = hello
        self._may_listen = may_listen
        self._is_stopped = False

    def render_GET(self, request: Request) -> int:
        """Begin to send events."""
        if len(self.listeners) >= MAX_LISTENERS or self._is_stopped:
            refusal = ApiError(503, f"{MAX_LISTENERS} pages are open already: close one", **{"Retry-After": "10"})
            return RefusalResource(refusal.response).render(request)
        for name, value in _FIELDS:
            request.setHeader(name, value)
        hello = {**self._hello(), "samples": len(self.history)}
        self.listeners[_Listener(self, request, b"retry: 1000\n" + event("hello", encode(hello)))] = None
        return NOT_DONE_YET

    def add(
        self,
        sample: Mapping[str, Any],
        refusals: Sequence[Mapping[str, Any]] = (),
        workers: Sequence[Mapping[str, Any]] = (),
        cluster: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a sample to all listeners, and keep it; send the rest, and do not keep it."""
        self.history.add(event("sample", encode(sample)))
        if not self.listeners:
            return
        now, passing = self.now(), {"refusals": refusals, "workers": workers, "cluster": cluster}
        news = b"".join(event(name, encode(body)) for name, body in passing.items() if body)
        for listener in list(self.listeners):
            if listener.is_slow(now):
                listener.drop()
                continue
            if not self._may_listen(listener.request):
                listener.finish()
                continue
            listener.pump()
            if news:
                listener.tell(news)

    def stop(self) -> None:
        """End all answers, and begin no other."""
        self._is_stopped = True
        for listener in list(self.listeners):
            listener.finish()
