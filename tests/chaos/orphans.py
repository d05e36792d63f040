"""What must not be left in Redis when all clients have gone: entries and leases."""

from __future__ import annotations

from typing import Protocol

__all__ = ["entries", "lease_problems"]

PREFIX = "pyry:relay:"


class Asked(Protocol):
    """A Redis."""

    def ask(self, *words: str | bytes) -> bytes: ...


def _words(answer: bytes) -> list[str]:
    """Return the strings of a list that Redis answered."""
    return [line.decode() for line in answer.split(b"\r\n") if line and line[:1] not in b"*$"]


_HOLDERS = """
local found = {}
for _, slot in ipairs(redis.call('KEYS', ARGV[1])) do found[#found + 1] = redis.call('GET', slot) end
return found
"""


def entries(redis: Asked) -> list[str]:
    """Return the holders of all server-ids in the directory: instance, boot id and epoch.

    Entries of processes that were killed are left out: they are void, and expire within an hour.
    """
    words = _words(redis.ask("HGETALL", f"{PREFIX}{{0}}leases"))
    boots = {(name, value.split()[0]) for name, value in zip(words[::2], words[1::2], strict=True)}
    holders = _words(redis.ask("EVAL", _HOLDERS, "0", f"{PREFIX}*s:*"))
    return [holder for holder in holders if tuple(holder.split()[:2]) in boots]


def lease_problems(redis: Asked, members: set[str]) -> list[str]:
    """Return what is wrong with the leases, if these instances live."""
    seconds, micros = _words(redis.ask("TIME"))
    now_us = int(seconds) * 1_000_000 + int(micros)
    found = []
    for partition in range(64):
        words = _words(redis.ask("HGETALL", f"{PREFIX}{{{partition}}}leases"))
        leases = {name: int(value.split()[1]) for name, value in zip(words[::2], words[1::2], strict=True)}
        lasting = {name for name, until_us in leases.items() if until_us > now_us}
        if lasting != members:
            found.append(f"partition {partition} has leases of {sorted(lasting)}, not of {sorted(members)}")
    return found
