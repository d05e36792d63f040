"""The instances of a cluster, and how they prove their addresses. PURE.

A lease in Redis carries a MAC by the cluster's secret. So who can write to Redis, but does not know the secret, cannot
send connections to another address.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

__all__ = ["Listed", "Load", "Member", "left_mac_of", "mac_of", "members_of", "owner_of"]

_MAC_BYTES = 16
_FIRST_FIELDS = 3
_MOST_DIGITS = 20
_REMEMBERED = 256
"""How many instances are remembered; more of them only cost time and memory."""


class Member(NamedTuple):
    """One start of one instance. ``name`` is unique in the cluster, and ``address`` is where it takes connections."""

    name: str
    boot: str
    address: str


class Load(NamedTuple):
    """What an instance has to do. Nothing proves it.

    ``keys`` that it holds, ``spliced`` connections that it passes on, how many have ``arrived`` since its start that
    others passed on, and all ``connections`` that it has.
    """

    keys: int = 0
    spliced: int = 0
    arrived: int = 0
    connections: int = 0

    @property
    def text(self) -> str:
        """The word for it in a lease."""
        return ",".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Load:
        """Read a word; what is none is no load."""
        numbers = text.split(",")
        is_one = len(numbers) >= _FIRST_FIELDS and all(text.isdecimal() and len(text) < 20 for text in numbers)
        # Another version may write fewer or more.
        return cls(*map(int, numbers[: len(cls._fields)])) if is_one else cls()


class Listed(NamedTuple):
    """A lease as it is listed: whose it is, for how many seconds it lasts, whether its MAC is right, and the load.

    ``has_left`` tells whether the instance has deleted it in order, as ended ones do. Then that was when it was over.
    """

    member: Member
    left_s: float
    is_genuine: bool
    load: Load = Load()
    has_left: bool = False


def mac_of(member: Member, secret: bytes) -> str:
    """Return what proves the address of an instance. ``secret`` has at most 64 bytes."""
    return _mac(member, secret, b"pyry-lease")


def left_mac_of(member: Member, secret: bytes) -> str:
    """Return what proves that this start of an instance has left in order."""
    return _mac(member, secret, b"pyry-left")


def _mac(member: Member, secret: bytes, purpose: bytes) -> str:
    text = "\0".join(member).encode()
    return blake2b(text, key=secret, digest_size=_MAC_BYTES, person=purpose).hexdigest()


def owner_of(words: Sequence[str], secret: bytes) -> Member | None:
    """Return the owner that an answer names (see `scripts.Verdict.OWNER`); None if its MAC is wrong."""
    name, boot, address, mac, *_ = words
    return _proven(name, boot, address, mac, secret)


@lru_cache(maxsize=_REMEMBERED)
def _proven(name: str, boot: str, address: str, mac: str, secret: bytes) -> Member | None:
    """Return a member whose MAC is right. It is one object however often it is named: there are thousands of routes."""
    member = Member(name, boot, address)
    return member if _is_mac_of(member, secret, mac) else None


def _is_mac_of(member: Member, secret: bytes, mac: str) -> bool:
    # As bytes, because text of others may be more than ASCII.
    return hmac.compare_digest(mac_of(member, secret).encode(), mac.encode())


def members_of(answer: Sequence[str], secret: bytes) -> list[Listed]:
    """Return the leases that an answer of ``scripts.MEMBERS`` lists, except those that cannot be read."""
    now, *rest = answer
    found = []
    for name, lease in zip(rest[::2], rest[1::2], strict=False):
        words = lease.split(" ")
        if len(words) < 4 or not words[1].isdecimal() or len(words[1]) > _MOST_DIGITS:
            continue
        boot, until, address, mac, *rest_of_words = words
        load = Load.parse("".join(rest_of_words[:1]))
        member = Member(name, boot, address)
        is_genuine = _is_mac_of(member, secret, mac)
        mark = "".join(rest_of_words[1:2])
        has_left = hmac.compare_digest(left_mac_of(member, secret).encode(), mark.encode())
        found.append(Listed(member, (int(until) - int(now)) / 1e6, is_genuine, load, has_left))
    return found
