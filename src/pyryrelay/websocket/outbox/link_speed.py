"""PURE: how fast the link to a peer is, and how much may be buffered below the outbox because of that.

Neither a ping nor a frame of another source can overtake what the transport and the kernel hold. On a fast link that
takes milliseconds. On a slow link it is limited to what the link carries in a fraction of a second: `slice_bytes` in
the transport, and `kernel_bytes` in the kernel, sent or not. The kernel must hold what keeps the link busy for a round
trip, so its buffer is limited only if it holds more.

The speed is measured while more data waits. If too little is buffered, a link only looks slow. Then the next measure is
larger, and so is the buffer, until the link is the bottleneck again.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FAST_BYTES_PER_S", "LinkSpeed"]

FAST_BYTES_PER_S: Final = 1_000_000.0
"""At this speed nothing is held back, and no frame is cut: the largest one takes a quarter of a second."""
_SLICE_S: Final = 1 / 16
_LEAST_SLICE_BYTES: Final = 4096
_LEAST_KERNEL_BYTES: Final = 8192
"""Several segments, so that the loss of one is noticed when the following ones arrive."""
_ROUND_TRIPS: Final = 3
"""One would keep a link busy if the kernel counted nothing else, and woke this process at once."""
_WEIGHT: Final = 0.25
"""Weight of the latest measure in the average."""


class LinkSpeed:
    """The speed of a link that was found to be slow."""

    __slots__ = ("bytes_per_s",)

    def __init__(self, bytes_per_s: float) -> None:
        """Begin with the first measure."""
        self.bytes_per_s = bytes_per_s

    def record(self, size: int, elapsed_s: float) -> None:
        """Record that ``size`` bytes were taken in that time, while more was waiting."""
        latest = min(size / elapsed_s, 16 * FAST_BYTES_PER_S) if elapsed_s > 0 else 16 * FAST_BYTES_PER_S
        self.bytes_per_s += _WEIGHT * (latest - self.bytes_per_s)

    @property
    def is_slow(self) -> bool:
        """Whether to hold anything back."""
        return self.bytes_per_s < FAST_BYTES_PER_S

    @property
    def slice_bytes(self) -> int:
        """How much to hand over at once."""
        return max(_LEAST_SLICE_BYTES, int(self.bytes_per_s * _SLICE_S))

    def kernel_bytes(self, held_bytes: int, round_trip_s: float, before: int | None) -> int | None:
        """Return how much unacknowledged data the kernel may hold; None leaves that to the kernel.

        It holds ``held_bytes`` now, and ``before`` is what this returned the last time.
        """
        if before is None and held_bytes <= self.bytes_per_s * (2 * _SLICE_S + _ROUND_TRIPS * round_trip_s):
            return None
        return max(_LEAST_KERNEL_BYTES, int(self.bytes_per_s * (_SLICE_S + _ROUND_TRIPS * round_trip_s)))
