"""PURE: how fast a peer's line is, and how much may wait below us because of it.

What the transport and the kernel hold cannot be overtaken any more, neither by a ping nor by another source's frame. On
a fast line that is a matter of milliseconds. On a slow one it is kept down to what the line carries in a fraction of a
second: `slice_bytes` in the transport, and `kernel_bytes` in the kernel, sent or not. The second must not be less than
what the line needs to be busy, which its round trip says; so it is limited only where it is more.

The speed is what was taken while more was waiting. Where less than it needs is kept for a line, it only looks slow;
then its next measure is larger, and so is what is kept, until it is the line again that sets the pace.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FAST_BYTES_PER_S", "LinkSpeed"]

FAST_BYTES_PER_S: Final = 1_000_000.0
"""From here on nothing is held back, and no frame is cut: the largest one is through in a quarter of a second."""
_SLICE_S: Final = 1 / 16
_LEAST_SLICE_BYTES: Final = 4096
_LEAST_KERNEL_BYTES: Final = 8192
"""Some segments, so that the loss of one is noticed by those that follow."""
_ROUND_TRIPS: Final = 3
"""One is what a line needs to be busy, if the kernel keeps no books and wakes us at once."""
_WEIGHT: Final = 0.25
"""Of the latest measure in the average."""


class LinkSpeed:
    """The line of a peer that was found to be slow."""

    __slots__ = ("bytes_per_s",)

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s

    def measured(self, size: int, elapsed_s: float) -> None:
        """So much was taken in that time, while more was waiting."""
        latest = min(size / elapsed_s, 16 * FAST_BYTES_PER_S) if elapsed_s > 0 else 16 * FAST_BYTES_PER_S
        self.bytes_per_s += _WEIGHT * (latest - self.bytes_per_s)

    @property
    def is_slow(self) -> bool:
        """Whether anything is to be held back."""
        return self.bytes_per_s < FAST_BYTES_PER_S

    @property
    def slice_bytes(self) -> int:
        """How much to hand over at once."""
        return max(_LEAST_SLICE_BYTES, int(self.bytes_per_s * _SLICE_S))

    def kernel_bytes(self, held_bytes: int, round_trip_s: float, before: int | None) -> int | None:
        """How much the kernel may hold of what was not acknowledged, where it holds ``held_bytes`` now.

        ``before`` is what was said the last time. None: it holds no more than the line needs, and goes on by itself.
        """
        if before is None and held_bytes <= self.bytes_per_s * (2 * _SLICE_S + _ROUND_TRIPS * round_trip_s):
            return None
        return max(_LEAST_KERNEL_BYTES, int(self.bytes_per_s * (_SLICE_S + _ROUND_TRIPS * round_trip_s)))
