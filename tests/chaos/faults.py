"""What is done to processes and to Redis. Each act lasts about as long as it is told to. Times are seconds."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Final

from tests.chaos import network_faults
from tests.chaos.clocks import DAY_S
from tests.chaos.failover import RedisGroup
from tests.chaos.stage import Kind, Stage, Target
from tests.end_to_end.processes import workers_of
from tests.support.redis_server import RedisServer

__all__ = ["KINDS", "workers_of"]


async def kill(stage: Stage, target: Target, lasts_s: float) -> None:
    """End an instance without warning, and start it again."""
    relay = stage.relay(target.name)
    relay.process.kill()
    await asyncio.to_thread(relay.process.wait)
    stage.ended(relay)
    await _again(stage, target.name, lasts_s)


async def end(stage: Stage, target: Target, lasts_s: float) -> None:
    """End an instance in order, and start it again."""
    relay = stage.relay(target.name)
    relay.signal(signal.SIGTERM)
    code = await asyncio.to_thread(relay.process.wait, 60)
    if code != 0:
        stage.problem("processes", f"instance {target.name} ended with code {code}")
    stage.ended(relay)
    await _again(stage, target.name, lasts_s)


async def _again(stage: Stage, name: str, lasts_s: float) -> None:
    await stage.pause(lasts_s / 3)
    await asyncio.to_thread(stage.start, name)


async def stop(stage: Stage, target: Target, lasts_s: float) -> None:
    """Stop all processes of an instance for a while, as a machine does that hangs."""
    relay = stage.relay(target.name)
    pids = [relay.process.pid, *workers_of(relay.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await stage.pause(lasts_s)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


async def kill_worker(stage: Stage, target: Target, lasts_s: float) -> None:
    """End a worker without warning; its supervisor starts it again."""
    workers = workers_of(stage.relay(target.name).process.pid)
    if workers:
        os.kill(stage.random.choice(workers), signal.SIGKILL)
    await stage.pause(1.0)


async def redis_kill(stage: Stage, target: Target, lasts_s: float) -> None:
    """End Redis without warning, and start it again, empty. If there are replicas, one takes over meanwhile."""
    redis = stage.world.redis
    await asyncio.to_thread(redis.kill_primary if isinstance(redis, RedisGroup) else redis.kill)
    await stage.pause(lasts_s / 3)
    await asyncio.to_thread(redis.start)


async def redis_stop(stage: Stage, target: Target, lasts_s: float) -> None:
    """Stop Redis for a while."""
    redis = stage.world.redis
    assert isinstance(redis, RedisServer)
    redis.pause()
    await stage.pause(lasts_s)
    redis.go_on()


async def failover(stage: Stage, target: Target, lasts_s: float) -> None:
    """Kill the primary after its replicas have missed what was written for a while."""
    group = stage.world.redis
    assert isinstance(group, RedisGroup)
    await asyncio.to_thread(group.fail_over, min(lasts_s / 3, 2.0))
    await stage.pause(lasts_s / 3)
    await asyncio.to_thread(group.start)


async def clock(stage: Stage, target: Target, lasts_s: float) -> None:
    """Set the wall clock of an instance by a day, and back."""
    shifted = stage.world.clocks[target.name]
    shifted.shift(stage.random.choice((DAY_S, -DAY_S)))
    await stage.pause(lasts_s)
    shifted.shift(0.0)


KINDS: Final = {
    "kill": Kind("process", kill),
    "end": Kind("process", end),
    "stop": Kind("process", stop),
    "kill-worker": Kind("process", kill_worker),
    "redis-kill": Kind("redis", redis_kill),
    "redis-stop": Kind("redis", redis_stop),
    "failover": Kind("redis", failover),
    "clock": Kind("clock", clock),
    **network_faults.KINDS,
}
"""All kinds of faults, by name."""
