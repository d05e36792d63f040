"""What is left over is found."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.memory import descriptors
from tests.chaos.orphans import entries, lease_problems


class FakeRedis:
    """Answers as Redis does, with one lease in each partition."""

    def __init__(self, until_us: int) -> None:
        self.until_us = until_us

    def ask(self, *words: str | bytes) -> bytes:
        """Answer the three questions."""
        if words[0] == "TIME":
            return b"*2\r\n$3\r\n100\r\n$1\r\n0\r\n"
        if words[0] == "EVAL":
            return b"*2\r\n$11\r\nh:1 boot 77\r\n$12\r\nh:1 before 7\r\n"
        lease = f"boot {self.until_us} address mac 0".encode()
        return b"*2\r\n$3\r\nh:1\r\n$%d\r\n%b\r\n" % (len(lease), lease)


def test_entries_and_leases_are_read() -> None:
    """A lease that is over is none, and one of an instance that does not live is one too many.

    The entry of a process that was there before is void.
    """
    redis = FakeRedis(100_000_001)
    assert entries(redis) == ["h:1 boot 77"]
    assert lease_problems(redis, {"h:1"}) == []
    assert len(lease_problems(redis, set())) == 64
    assert lease_problems(FakeRedis(100_000_000), {"h:1"})[0] == "partition 0 has leases of [], not of ['h:1']"


def test_descriptors_are_counted(tmp_path: Path) -> None:
    """Each file that stays open is one more."""
    before = descriptors(os.getpid())
    with (tmp_path / "file").open("w"):
        assert descriptors(os.getpid()) == before + 1
