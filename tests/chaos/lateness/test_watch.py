"""The driver's side: a real watchdog beside a real Redis."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from tests.chaos.lateness.late import REDIS, SWITCH, Late
from tests.chaos.lateness.watch import Watch
from tests.chaos.timeline import Fault
from tests.end_to_end.harness import asynchronous, eventually
from tests.support.redis_server import RedisServer, needs_redis, running

STOPPED_S = 0.3


def _is_late(watch: Watch, faults: list[Fault]) -> bool:
    return any(late.place == REDIS for late in watch.lates(faults))


async def _watched(redis: RedisServer) -> tuple[Watch, Fault]:
    watch = Watch((), [("127.0.0.1", redis.port)], lambda: {REDIS: [redis.pid], "a": [os.getpid()]})
    task = asyncio.create_task(watch.keep())
    try:
        await asyncio.sleep(0)
        began = time.time()
        while not _is_late(watch, []):
            # Until it has begun to ask.
            redis.pause()
            await asyncio.sleep(STOPPED_S)
            redis.go_on()
            await asyncio.sleep(STOPPED_S)
        await eventually(partial(_is_late, watch, []), "it is late")
        return watch, Fault("redis-stop", REDIS, began, time.time())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@needs_redis
@asynchronous
async def test_a_redis_that_does_not_answer_is_late(tmp_path: Path) -> None:
    """Unless that was done on purpose."""
    redis = RedisServer(tmp_path)
    with running(redis):
        watch, fault = await _watched(redis)
    late = next(late for late in watch.lates([]) if late.place == REDIS)
    assert fault.since - 0.1 <= late.since < late.until <= fault.until + 0.1
    assert _is_late(watch, [fault._replace(what="a")])
    assert not _is_late(watch, [fault._replace(since=fault.since - 0.1, until=fault.until + 0.1)])


def test_what_the_switch_tells_is_part_of_it() -> None:
    """In order, and without faults that were made at other places."""
    watch = Watch((), [], dict)
    assert watch.lates([Fault("stop", "a", 0.0, 9.0)], [Late(SWITCH, 3.0, 4.0), Late(SWITCH, 1.0, 1.5)]) == [
        Late(SWITCH, 1.0, 1.5),
        Late(SWITCH, 3.0, 4.0),
    ]
