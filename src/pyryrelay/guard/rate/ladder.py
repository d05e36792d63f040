"""Which buckets keys share when there is no room for a bucket of their own.

`Buckets` tracks a bounded number of keys. When the bound comes close, new keys share the bucket of a *coarser* key, and
with less room of a coarser one still. A `Ladder` names these keys. Its last step has few keys, for which room is always
kept, so there is a bucket for every key at any time.

Keys with a structure share by it: neighbours of an address are its prefix. For keys without structure, such as public
keys, there is `HashLadder`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from pyryrelay.guard.errors import LimitError

__all__ = ["MAX_LAST_KEYS", "HashLadder", "Ladder"]

K = TypeVar("K", bound=Hashable)

MAX_LAST_KEYS: Final = 128
"""Most keys of a last step: room for them is never used for anything else."""


class Ladder(Protocol[K]):
    """The coarser keys of a key.

    Every key has ``steps`` coarser ones, and ``last_keys`` is the number of different keys in the last step, at most
    `MAX_LAST_KEYS`. Where a step is no coarser than the key itself, it is the key itself.
    """

    @property
    def steps(self) -> int: ...

    @property
    def last_keys(self) -> int: ...

    def __call__(self, key: K, /) -> Sequence[K]:
        """Return the coarser keys of ``key``, from fine to coarse."""


class HashLadder(Generic[K]):
    """A `Ladder` for keys without structure: one step, in which ``shared`` are the keys, chosen by hash.

    No client may have one of the ``shared`` keys; for keys of 32 bytes take ``[bytes([n]) for n in range(64)]``. One
    shared key puts all newcomers of a full table into one bucket. More of them cost an attacker that invents keys so
    many times as much before no newcomer has a chance, and admit at most so many quotas together. Keys that are tracked
    already keep their own bucket either way.

    ``hash_of`` must not be predictable, so that an attacker cannot share a bucket with a key that it chose. The hash
    of bytes and texts is not, as Python salts it in each process. For other keys, or where several processes must
    choose alike, give a keyed hash.

    Raises `LimitError` for no key at all, for more than `MAX_LAST_KEYS`, and for a key that occurs twice.
    """

    __slots__ = ("_hash_of", "_shared", "last_keys")

    steps = 1

    def __init__(self, shared: Sequence[K], hash_of: Callable[[K], int] = hash) -> None:
        """Share among these."""
        if not 1 <= len(shared) <= MAX_LAST_KEYS:
            raise LimitError(f"{len(shared)!r} shared keys are out of range: use 1 to {MAX_LAST_KEYS}")
        if len(set(shared)) < len(shared):
            raise LimitError(f"shared keys {shared!r} repeat one: give each once")
        self._shared = [(key,) for key in shared]
        self._hash_of = hash_of
        self.last_keys = len(shared)

    def __call__(self, key: K) -> Sequence[K]:
        """Return the one shared key."""
        return self._shared[self._hash_of(key) % self.last_keys]
