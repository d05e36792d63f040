"""The stream of one subject on one server: the keys of its scripts, and how its entries are sealed."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyryrelay.cluster.broadcast.figures import Figures
from pyryrelay.cluster.broadcast.seals import Opened, Seals
from pyryrelay.cluster.keys import Keys

__all__ = ["Stream", "stream_of"]


@dataclass(eq=False, slots=True)
class Stream:
    """A stream; ``names`` are the keys of its scripts, and ``source`` is what listeners call it."""

    source: str
    names: tuple[bytes, bytes, bytes]
    seals: Seals
    figures: Figures = field(default_factory=Figures)

    @property
    def bell(self) -> bytes:
        """The key of what readers wait for."""
        return self.names[2]

    def sealed(self, body: bytes, sent_at: float) -> bytes:
        """Return an entry that was sent at a time of the server's clock."""
        return self.seals.sealed(body, sent_at, self.names[0])

    def opened(self, raw: bytes) -> Opened | None:
        """Return what a member has sealed; None for anything else."""
        return self.seals.opened(raw, self.names[0])


def stream_of(keys: Keys, subject: str, number: int, seals: Seals) -> Stream:
    """Return the stream of a subject on the server that has the partition ``number``."""
    stream, state, bell = (keys.key(number, f"{kind}:{subject}") for kind in ("told", "told-state", "told-bell"))
    return Stream(str(number), (stream, state, bell), seals)
