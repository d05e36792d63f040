"""How much bulk load there is, and the process that makes it."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path

import pytest
from tests.chaos.bulk.load import Load, target_share
from tests.end_to_end.harness import GENEROUS, Relay, eventually


def test_half_of_each_core_where_there_are_enough() -> None:
    """Otherwise as much as leaves something for the peers."""
    assert target_share(3, 8) == target_share(2, 2) == 0.5
    assert target_share(3, 2) == pytest.approx(1 / 3)


def _has_counted(load: Load, what: str, least: int) -> bool:
    counts: dict[str, int] = load.told["counts"]
    return counts.get(what, 0) >= least


async def _loaded(relay: Relay) -> Load:
    load = Load(["a"], lambda: {"a": relay}, 1, ["127.0.8.1"], 0.3, lambda name: relay.host)
    task = asyncio.create_task(load.keep())
    try:
        for what, least in (("frames", 500), ("refused 429", 1), ("upgrades", 20)):
            await eventually(partial(_has_counted, load, what, least), what)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await relay.all_leases_end()
    return load


@pytest.mark.thorough
def test_a_relay_is_kept_at_work(tmp_path: Path) -> None:
    """Flows in both directions, peers that come and go, and some that are refused."""
    relay = Relay(tmp_path / "relay", [*GENEROUS, "--upgrade-quota", "6/minute burst 2", "--allow", "127.0.0.1"])
    try:
        assert asyncio.run(_loaded(relay)).told["problems"] == []
        relay.stop()
    finally:
        relay.discard()
