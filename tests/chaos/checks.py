"""What must hold after the faults of a run, while its clients are still there, and when they have gone.

Each check notes what does not hold; see `report.INVARIANTS`. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.chaos import health, memory
from tests.chaos.admission import bound
from tests.chaos.cast import QUOTA, Cast
from tests.chaos.lateness.late import Interval
from tests.chaos.memory import descriptors
from tests.chaos.notes import missing_at
from tests.chaos.orphans import entries, lease_problems
from tests.chaos.stage import GRACE_S
from tests.chaos.timeline import Fault
from tests.chaos.traffic import TROUBLES, asked

__all__ = ["SPARE_DESCRIPTORS", "admission", "events", "figures", "orphans", "reach", "settled"]

SPARE_DESCRIPTORS = 3
"""What a process may have open for a moment: it is being asked while its files are counted."""


async def reach(cast: Cast) -> None:
    """Check that a phone at every instance reaches the same binary, for every key, twice."""
    end, right, left = time.monotonic() + cast.plan.quiet_s, 0, dict[str, list[str]]()
    while right < 2 and (time.monotonic() < end or right):
        found = await asyncio.gather(*(_reached(cast, key) for key in cast.keys))
        left = {key: sorted(map(str, who)) for key, who in zip(cast.keys, found, strict=True) if not _is_one(who)}
        right = 0 if left else right + 1
        await asyncio.sleep(1.0)
    for key, who in left.items():
        cast.problem("reach", f"phones for {key} reach {who}")


async def _reached(cast: Cast, key: str) -> set[int | None]:
    return set(await asyncio.gather(*(asked(cast.relay(name).uri, key, 3.0) for name in cast.names)))


async def settled(cast: Cast) -> None:
    """Check that all instances use Redis, and that pairs talk."""
    since = time.time()
    for name in cast.names:
        relay = cast.relay(name)
        if not await _becomes(partial(health.is_settled, relay), cast.plan.quiet_s):
            cast.problem("outages", f"instance {name}: {health.figures_of(relay)}")
    await _becomes(lambda: all(pair.answered_at > since for pair in cast.pairs), cast.plan.quiet_s)
    for pair in cast.pairs:
        for problem in pair.problems(cast.faults, since):
            cast.problem("pairs", problem)


async def orphans(cast: Cast) -> None:
    """Check what is left when all clients have gone."""
    redis, members = cast.world.redis, {member for name in cast.names for member in cast.world.members(name)}
    if not await _becomes(lambda: not entries(redis), GRACE_S + 12.0):
        left = entries(redis)
        cast.problem("orphans", f"{len(left)} entries, such as {left[:3]}")
    for problem in lease_problems(redis, members)[:3]:
        cast.problem("orphans", problem)
    for name in cast.names:
        pid = cast.relay(name).process.pid
        if not await _becomes(partial(_has_few_descriptors, cast, pid), 8.0):
            cast.problem("orphans", f"instance {name} has {descriptors(pid)} descriptors, not {cast.descriptors}")
    opened = {name: descriptors(cast.relay(name).process.pid) for name in cast.names}
    cast.notes["left"] = (
        f"{len(entries(redis))} entries, descriptors {opened} (at the start {cast.descriptors} or fewer)"
    )


async def events(cast: Cast) -> None:
    """Check that each event that was accepted is at all instances, unless one says that it missed some."""
    if not cast.plan.nostr:
        return
    ids, notes = list(cast.published.accepted), cast.published
    for name in cast.names:
        end, missing = time.monotonic() + cast.plan.quiet_s, ids
        while missing and time.monotonic() < end:
            with contextlib.suppress(*TROUBLES):
                missing = await missing_at(cast.relay(name).uri, missing)
            await asyncio.sleep(0.5)
        if missing and not await asyncio.to_thread(health.missed, cast.relay(name)):
            where = sorted({notes.accepted[id_] for id_ in missing})
            cast.problem("events", f"instance {name} lacks {len(missing)} of {len(ids)}, accepted at {where}")
    for problem in notes.problems:
        cast.problem("events", problem)
    cast.notes["events"] = f"{len(ids)} accepted, {notes.heard} heard by {len(cast.names)} subscriptions"


def figures(cast: Cast) -> None:
    """Check that the instances that lived all the time have not grown, and note what they took of the processor."""
    for name, samples in cast.memory.items():
        early, late, problem = memory.growth(samples)
        share = memory.cpu_s(cast.relay(name).process.pid) / (time.time() - cast.began)
        cast.notes[f"instance {name}"] = f"{early / 1e6:.1f} MB, {late / 1e6:.1f} MB later, {share:.0%} of a core"
        if cast.load is not None:
            cast.notes[f"course of {name}"] = memory.course(samples)
        if problem:
            cast.problem("memory", f"instance {name}: {problem}")
    if cast.load is not None:
        cast.notes["load"] = str(cast.load)
        for problem in cast.load.told["problems"]:
            cast.problem("pairs", f"bulk load: {problem}")


def admission(cast: Cast, window_s: float, alone: Sequence[Interval]) -> None:
    """Check what was admitted of the address that asks for too much, if instances were ``alone`` beside the faults."""
    faults = [*cast.faults, *(Fault("late", "redis", one.since, one.until) for one in alone)]
    most = bound(QUOTA, len(cast.names), cast.hammer.attempts_per_s, window_s, faults)
    cast.notes["admitted"] = f"{cast.hammer.admitted}, bound {most:.0f}, refused {cast.hammer.refused}"
    if cast.hammer.admitted > most:
        cast.problem("admission", f"{cast.hammer.admitted} were admitted, but at most {most:.0f} may be")


def _has_few_descriptors(cast: Cast, pid: int) -> bool:
    return descriptors(pid) <= cast.descriptors


def _is_one(who: set[int | None]) -> bool:
    return len(who) == 1 and None not in who


async def _becomes(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until a condition holds; return False if it does not in this time."""
    end = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(0.2)
    return True
