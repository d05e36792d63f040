"""Instances of a cluster without connections: what they hold is a dict, and their Redis is a real one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.support.directory_redis import START_US, TestRedis
from tests.support.resp import RespClient
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pyryrelay.cluster.directory.directory import LOOK_AFTER_S, Answer, Directory
from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.directory.scripts import Names
from pyryrelay.cluster.keys import Keys

SECRET = b"secret"
NAMES = Names(Keys("test", SECRET))


class Held:
    """What one instance holds."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.evicted: list[str] = []

    def held_keys(self) -> Collection[str]:
        """See `Holder`."""
        return tuple(self.keys)

    def holds(self, key: str) -> bool:
        """See `Holder`."""
        return key in self.keys

    def evict(self, key: str) -> None:
        """See `Holder`."""
        del self.keys[key]
        self.evicted.append(key)


class Instance:
    """One instance, which seats every claim that is granted."""

    def __init__(self, world: World, name: str, boot: str = "boot1") -> None:
        self.world = world
        self.held = Held()
        self.redis = TestRedis(world.client)
        self.member = Member(name, boot, name)
        self.directory = Directory(
            [self.redis], self.member, NAMES, SECRET, self.held, world.clock.seconds, world.clock.callLater
        )
        self.is_stopped = False

    def claim(self, key: str) -> Deferred[Answer]:
        """Claim a key, without a client that takes it."""
        return self.directory.claim(key)

    def seat(self, key: str) -> list[Any]:
        """Claim a key for a client that takes it; return a list that the answer is added to."""
        answers: list[Any] = []

        def take(answer: Answer) -> None:
            answers.append(answer)
            if not isinstance(answer, Member) and answer.value == "here":
                self.held.keys[key] = None

        self.directory.claim(key).addCallback(take)
        return answers

    def vacate(self, key: str) -> None:
        """Hold a key no more."""
        del self.held.keys[key]
        self.directory.vacated(key)


class World:
    """A Redis, and instances that follow one clock, which is the server's as well."""

    def __init__(self, client: RespClient) -> None:
        self.client = client
        self.clock = Clock()
        self.instances: dict[str, Instance] = {}
        client("FLUSHALL")
        self._set_clock()

    def _set_clock(self) -> None:
        self.client("SET", "clock", START_US + round(self.clock.seconds() * 1e6))

    def start(self, name: str, boot: str = "boot1") -> Instance:
        """Start an instance."""
        instance = self.instances[name] = Instance(self, name, boot)
        return instance

    def restart_empty(self) -> None:
        """Lose what Redis has."""
        self.client("FLUSHALL")
        self._set_clock()

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what runs looks after its leases."""
        until = self.clock.seconds() + seconds
        while self.clock.seconds() < until:
            self.clock.advance(min(LOOK_AFTER_S, until - self.clock.seconds()))
            self._set_clock()
            for instance in self.instances.values():
                if not instance.is_stopped:
                    instance.directory.look_after()

    def jump(self, seconds: float) -> None:
        """Let time pass in which this process was stopped."""
        self.clock.rightNow += seconds
        self._set_clock()

    def settle(self) -> None:
        """Let every instance renew, and the warm-up pass."""
        self.pass_time(4.0)

    def entry(self, key: str) -> str | None:
        """Return the name of the instance in the entry of a key."""
        value = self.client("GET", NAMES.of(key)[1])
        return None if value is None else value.split()[0]
