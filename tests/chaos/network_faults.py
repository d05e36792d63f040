"""What is done to the network between machines. Each act lasts as long as it is told to. Times are seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tests.chaos.network.machines import CLIENTS
from tests.chaos.network.rules import CUT, WELL, State
from tests.chaos.stage import Kind, Stage, Target
from tests.chaos.world import REDIS

__all__ = ["KINDS"]

DELAY_S: Final = 0.2
LOSS: Final = 0.2

_Paths = Iterable[tuple[str, str]]


async def _during(stage: Stage, paths: _Paths, state: State, lasts_s: float) -> None:
    paths = list(paths)
    for path in paths:
        stage.machines.set(*path, state)
    await stage.pause(lasts_s)
    for path in paths:
        stage.machines.set(*path, WELL)


def _between(one: str, other: str) -> _Paths:
    return (one, other), (other, one)


def _others(stage: Stage, name: str) -> list[str]:
    return [other for other in (*stage.names, REDIS, CLIENTS) if other != name]


async def cut_redis(stage: Stage, target: Target, lasts_s: float) -> None:
    """Let an instance and Redis not reach each other."""
    await _during(stage, _between(target.name, REDIS), CUT, lasts_s)


async def cut_instances(stage: Stage, target: Target, lasts_s: float) -> None:
    """Let two instances not reach each other."""
    await _during(stage, _between(target.name, target.other), CUT, lasts_s)


async def cut_clients(stage: Stage, target: Target, lasts_s: float) -> None:
    """Let an instance and its clients not reach each other."""
    await _during(stage, _between(target.name, CLIENTS), CUT, lasts_s)


async def _one_way(stage: Stage, one: str, other: str, lasts_s: float) -> None:
    path = stage.random.choice(list(_between(one, other)))
    await _during(stage, [path], CUT, lasts_s)


async def one_way_redis(stage: Stage, target: Target, lasts_s: float) -> None:
    """Lose what an instance sends to Redis, or what Redis sends to it."""
    await _one_way(stage, target.name, REDIS, lasts_s)


async def one_way_instances(stage: Stage, target: Target, lasts_s: float) -> None:
    """Lose what an instance sends to another one."""
    await _one_way(stage, target.name, target.other, lasts_s)


async def one_way_clients(stage: Stage, target: Target, lasts_s: float) -> None:
    """Lose what an instance sends to its clients, or what these send to it."""
    await _one_way(stage, target.name, CLIENTS, lasts_s)


async def delay(stage: Stage, target: Target, lasts_s: float) -> None:
    """Have all that an instance sends come late."""
    paths = ((target.name, other) for other in _others(stage, target.name))
    await _during(stage, paths, State(delay_s=DELAY_S), lasts_s)


async def loss(stage: Stage, target: Target, lasts_s: float) -> None:
    """Lose a part of all that an instance sends and of all that is sent to it."""
    paths = [path for other in _others(stage, target.name) for path in _between(target.name, other)]
    await _during(stage, paths, State(loss=LOSS), lasts_s)


KINDS: Final = {
    "cut-redis": Kind("network", cut_redis),
    "cut-instances": Kind("network", cut_instances, takes_other=True),
    "cut-clients": Kind("network", cut_clients),
    "one-way-redis": Kind("network", one_way_redis),
    "one-way-instances": Kind("network", one_way_instances, takes_other=True),
    "one-way-clients": Kind("network", one_way_clients),
    "delay": Kind("network", delay),
    "loss": Kind("network", loss),
}
