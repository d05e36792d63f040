"""What this process has used of the machine."""

from __future__ import annotations

import time
from typing import NamedTuple

from pyryrelay.observe.sampling import memory_bytes

__all__ = ["Usage", "usage"]


class Usage(NamedTuple):
    """Memory in bytes, and processor time in seconds."""

    memory_bytes: int
    cpu_s: float


def usage() -> Usage:
    """Return it as of now."""
    return Usage(memory_bytes(), time.process_time())
