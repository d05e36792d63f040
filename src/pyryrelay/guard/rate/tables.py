"""Mappings that grow in small steps, however many keys there are.

A dict of a million keys is copied when it grows, which holds the reactor for 50 ms. The tables here consist of small
pieces, of which one at a time grows:

* `ShardedDict` holds any value by a whole number. It is nearly as fast as a dict, at about 95 bytes for a key and a
  float.
* `SortedTable` holds floats by a whole number in 17 to 20 bytes with their key. With a million keys a look-up takes
  about half a microsecond, a new key a microsecond.
* `HashedDict` holds any value by any key that can be hashed, such as a public key of 32 bytes.

Whole numbers are 0 or more. No value is None, which stands for a missing key.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["HashedDict", "ShardedDict", "SortedTable", "Table"]

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)
V = TypeVar("V")

# Of a million keys each dict has 10,000 and is copied in half a millisecond. A prime, so that addresses which follow a
# pattern (every 256th, say) use all of them.
_SHARDS: Final = 101

# Python salts the hash of texts in each process, so a peer cannot know which keys share a dict and aim at one. A peer
# that knows PYTHONHASHSEED can; then that dict takes as long to grow as one that is not sharded.
_SALT: Final = (hash("high") << 64 ^ hash("low")) % (1 << 128)
_HASH_SALT: Final = _SALT >> 68

# A full chunk is split: 4 KiB are moved, or fewer where a key is inserted. Smaller ones would cost more memory.
_CHUNK_KEYS: Final = 512


class Table(Protocol[K_contra, V]):
    """The parts of a dict that `Generations` needs, and a way to free it in slices."""

    def __len__(self) -> int: ...

    def __setitem__(self, key: K_contra, value: V, /) -> None: ...

    def get(self, key: K_contra, /) -> V | None:
        """Return the value of a key, or None."""

    def pop(self, key: K_contra, /) -> V | None:
        """Remove a key; return the value it had, or None."""

    def drop(self, count: int, /) -> None:
        """Remove ``count`` keys, whichever is cheapest, or all if there are no more."""


class _Shards(Generic[K, V]):
    """Many small dicts, among which the keys are spread evenly."""

    __slots__ = ("_dropping", "_len", "_shards")

    def __init__(self) -> None:
        """Start empty."""
        self._shards: list[dict[K, V]] = [{} for _ in range(_SHARDS)]
        self._dropping = 0
        self._len = 0

    def __len__(self) -> int:
        return self._len

    def drop(self, count: int) -> None:
        """Remove ``count`` keys, or all if there are no more. Continues with the dict at which it stopped last."""
        left = min(count, self._len)
        self._len -= left
        while left:
            shard = self._shards[self._dropping]
            taken = min(left, len(shard))
            for _ in range(taken):
                shard.popitem()
            left -= taken
            if not shard:
                shard.clear()  # an emptied dict keeps its memory, a cleared one does not
                self._dropping = (self._dropping + 1) % _SHARDS


# Both classes write the same three methods out: a method that finds the dict would double the time of a look-up.


class ShardedDict(_Shards[int, V]):
    """Many small dicts, among which whole numbers are spread evenly."""

    __slots__ = ()

    def __setitem__(self, key: int, value: V) -> None:
        shard = self._shards[(key ^ _SALT) % _SHARDS]
        before = len(shard)
        shard[key] = value
        self._len += len(shard) - before

    def get(self, key: int) -> V | None:
        """Return the value of a key, or None."""
        return self._shards[(key ^ _SALT) % _SHARDS].get(key)

    def pop(self, key: int) -> V | None:
        """Remove a key; return the value it had, or None."""
        value = self._shards[(key ^ _SALT) % _SHARDS].pop(key, None)
        if value is not None:
            self._len -= 1
        return value


class HashedDict(_Shards[K, V]):
    """Many small dicts, among which keys of any type are spread by their hash."""

    __slots__ = ()

    def __setitem__(self, key: K, value: V) -> None:
        shard = self._shards[(hash(key) ^ _HASH_SALT) % _SHARDS]
        before = len(shard)
        shard[key] = value
        self._len += len(shard) - before

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        return self._shards[(hash(key) ^ _HASH_SALT) % _SHARDS].get(key)

    def pop(self, key: K) -> V | None:
        """Remove a key; return the value it had, or None."""
        value = self._shards[(hash(key) ^ _HASH_SALT) % _SHARDS].pop(key, None)
        if value is not None:
            self._len -= 1
        return value


class SortedTable:
    """Floats by key, both in arrays that are sorted by key, in chunks: a B+ tree of two levels.

    ``_bounds[n]`` is above all keys of chunk n and above none of chunk n + 1; every chunk but the lowest holds a key.
    No chunk has more than `_CHUNK_KEYS` keys, whatever they are, so a peer has nothing to aim at.
    """

    __slots__ = ("_bounds", "_keys", "_len", "_values")

    def __init__(self) -> None:
        """Start empty."""
        self._bounds: list[int] = []
        # A chunk that was given a key of more than 64 bits is a list. A prefix of up to 62 bits has none.
        self._keys: list[array[int] | list[int]] = [array("Q")]
        self._values = [array("d")]
        self._len = 0

    def __len__(self) -> int:
        return self._len

    def __setitem__(self, key: int, value: float) -> None:
        chunk, place, is_there = self._find(key)
        if is_there:
            self._values[chunk][place] = value
            return
        try:
            self._keys[chunk].insert(place, key)
        except OverflowError:
            self._keys[chunk] = [*self._keys[chunk]]
            self._keys[chunk].insert(place, key)
        self._values[chunk].insert(place, value)
        self._len += 1
        if len(self._keys[chunk]) > _CHUNK_KEYS:
            self._split(chunk)

    def get(self, key: int) -> float | None:
        """Return the value of a key, or None."""
        # `_find`, whose call and answer would take a quarter of the time.
        chunk = bisect_right(self._bounds, key)
        keys = self._keys[chunk]
        place = bisect_left(keys, key)
        return self._values[chunk][place] if place < len(keys) and keys[place] == key else None

    def pop(self, key: int) -> float | None:
        """Remove a key; return the value it had, or None."""
        chunk, place, is_there = self._find(key)
        if not is_there:
            return None
        del self._keys[chunk][place]
        value = self._values[chunk].pop(place)
        self._len -= 1
        self._forget_if_empty(chunk)
        return value

    def drop(self, count: int) -> None:
        """Remove the ``count`` highest keys, or all if there are no more."""
        left = min(count, self._len)
        self._len -= left
        while left:
            kept = max(0, len(self._keys[-1]) - left)
            left -= len(self._keys[-1]) - kept
            del self._keys[-1][kept:], self._values[-1][kept:]
            self._forget_if_empty(len(self._keys) - 1)

    def _find(self, key: int) -> tuple[int, int, bool]:
        """Return the chunk of a key, its place there, and whether it is there."""
        chunk = bisect_right(self._bounds, key)
        keys = self._keys[chunk]
        place = bisect_left(keys, key)
        return chunk, place, place < len(keys) and keys[place] == key

    def _split(self, chunk: int) -> None:
        """Make two chunks of the halves of one. Both are new: what a shrinking array leaves fits nothing."""
        keys, values, half = self._keys[chunk], self._values[chunk], _CHUNK_KEYS // 2
        self._bounds.insert(chunk, keys[half])
        self._keys[chunk : chunk + 1] = keys[:half], keys[half:]
        self._values[chunk : chunk + 1] = values[:half], values[half:]

    def _forget_if_empty(self, chunk: int) -> None:
        if chunk and not self._keys[chunk]:
            del self._bounds[chunk - 1], self._keys[chunk], self._values[chunk]
