"""What a connection sends: the messages of its application, pongs, and what Autobahn has made."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from pyryrelay.close_codes import CloseCode
from pyryrelay.websocket.frames.writer import encode, pongs
from pyryrelay.websocket.lifecycle import Lifecycle
from pyryrelay.websocket.outbox.outbox import Outbox
from pyryrelay.websocket.states import Event, State

__all__ = ["Sending"]

_OPEN, _FLUSHING = State.OPEN, State.FLUSHING


class Sending(Lifecycle):
    """The layer that sends; half of `pyryrelay.protocol.Peer`."""

    on_drain: Callable[[], None] | None = None
    on_source_drain: Callable[[Hashable], None] | None = None
    _owed_pong: bytes | None = None
    _encode = staticmethod(encode)

    @property
    def buffered_bytes(self) -> int:
        """See `pyryrelay.protocol.Peer`."""
        return 0 if self._outbox is None else self._outbox.buffered_bytes

    def waiting_bytes(self, source: Hashable) -> int:
        """See `pyryrelay.protocol.Peer`."""
        return 0 if self._outbox is None else self._outbox.waiting_of(source)

    def send(
        self,
        batch: Sequence[bytes],
        *,
        binary: bool = False,
        before: bytes = b"",
        after: bytes = b"",
        source: Hashable = None,
    ) -> None:
        """See `pyryrelay.protocol.Peer`."""
        outbox = self._outbox
        if outbox is None or self._state is not _OPEN:
            return
        slices = self._encode(batch, binary=binary, before=before, after=after)
        traffic = self.context.traffic
        traffic.messages_out += len(batch)
        for data, _ in slices:
            traffic.bytes_out += len(data)
        if not outbox.write(slices, source):
            self._fail(CloseCode.INTERNAL_ERROR, self.context.application.policy.outbox_reason)
        else:
            self._watch(outbox)

    def write_control(self, data: bytes) -> None:
        """Send a ping, a close frame, or the answer to an upgrade that was denied."""
        if self._outbox is None:
            self.transport.write(data)
        else:
            self._outbox.write_now(data)

    def flush(self) -> None:
        """Send the answer to the opening handshake if that is still to be sent, and what comes behind it."""
        if self._outbox is not None:
            self._outbox.flush()

    def send_unsolicited_pong(self) -> None:
        """Send a pong, which needs no answer (RFC 6455 section 5.5.3). For a peer that is gone, a reset comes back."""
        if self._state <= _FLUSHING and self._outbox is not None and not self._outbox.blocked:
            self._outbox.write_now(pongs([b""]))

    def _answer(self, pings: Sequence[bytes]) -> None:
        """Answer pings; if the peer does not read, only the latest, once it does (RFC 6455 section 5.5.3)."""
        if self._outbox is None or self._state > _FLUSHING:
            return
        if self._outbox.blocked:
            self._owed_pong = pings[-1]
        else:
            self._outbox.write_now(pongs(pings))
            self._watch(self._outbox)

    def _watch(self, outbox: Outbox) -> None:
        """Something was written: a peer that does not read has a deadline from now on."""
        if outbox.blocked:
            self.context.wide_slot.narrow()
            self._arm()

    def _drained(self) -> None:
        """Everything that had to wait has been handed over."""
        owed_pong, self._owed_pong = self._owed_pong, None
        if owed_pong is not None:
            self._answer([owed_pong])
        if self._state is _FLUSHING:
            self._fire(Event.FLUSHED)
        elif self._state is _OPEN and self.on_drain is not None:
            self._ask_application(self.on_drain)

    def _source_drained(self, source: Hashable) -> None:
        """Nothing of a source waits any more."""
        if self._state is _OPEN and self.on_source_drain is not None:
            self._ask_application(self.on_source_drain, source)

    def _release_all(self) -> None:
        super()._release_all()
        self.on_drain = self.on_source_drain = None
