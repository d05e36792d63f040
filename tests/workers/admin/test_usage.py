"""What this process has used."""

from __future__ import annotations

from pyryrelay.workers.admin.usage import usage


def test_usage() -> None:
    """Memory of some MiB at least, and processor time that does not fall."""
    before, after = usage(), usage()
    assert before.memory_bytes > 1024 * 1024
    assert 0 < before.cpu_s <= after.cpu_s
