"""Ask the directory who holds a key, and keep what is held here known to it.

An answer takes at most `WAIT_S`: that covers a new data set that is still being filled, and a lease that must be
renewed first. A directory that is away is not waited for, except in the first moments after the start.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks

from pyryrelay.cluster.directory.claims import Claims
from pyryrelay.cluster.directory.figures import Figures
from pyryrelay.cluster.directory.members import Listed, Load, Member, left_mac_of, mac_of, members_of, owner_of
from pyryrelay.cluster.directory.roster import FORGET_LEFT_S, FORGET_OVER_S
from pyryrelay.cluster.directory.scripts import MEMBERS, Kind, Names, Verdict
from pyryrelay.cluster.directory.shard import Holder, Shard
from pyryrelay.cluster.keys import PARTITIONS
from pyryrelay.cluster.redis.answers import are_words, is_number
from pyryrelay.cluster.redis.interface import Redis, RedisError, Script
from pyryrelay.protocol import Cancellable

__all__ = ["LOOK_AFTER_S", "SWEEP_S", "WAIT_S", "Answer", "Directory", "NoOwner"]

LOOK_AFTER_S: Final = 0.25
"""How often `Directory.look_after` is to be called."""
WAIT_S: Final = 4.0
HOPE_S: Final = 2.0
"""How long after the start a directory that does not answer yet is waited for."""
_RETRY_S: Final = 0.1
SWEEP_S: Final = 60.0
"""How often the leases of one partition are looked at, to delete those that were over long ago."""
_FORGET_US: Final = (round(FORGET_OVER_S * 1e6), round(FORGET_LEFT_S * 1e6))
_MOST_RELEASES: Final = 100
_MEMBERS: Final = Script(MEMBERS, lambda answer, keys: are_words(answer) and is_number(answer[0]))


class NoOwner(Enum):
    """An answer that is no instance; the values are fit for metrics."""

    HERE = "here"
    NOBODY = "nobody"
    WAIT = "wait"
    DOWN = "down"
    FORGED = "forged"


Answer: TypeAlias = Member | NoOwner


class Directory:
    """See the module's docstring. ``servers`` share the partitions; ``load`` is shown to operators."""

    def __init__(
        self,
        servers: Sequence[Redis],
        member: Member,
        names: Names,
        secret: bytes,
        holder: Holder,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        load: Callable[[], Load] = lambda: Load(),
    ) -> None:
        self.member = member
        self.claims = Claims()
        self.figures = Figures()
        self.is_left = False
        """Whether another process keeps this instance's lease from now on, or it has ended."""
        self._secret = secret
        self._names = names
        self._holder = holder
        self._now = now
        self._call_later = call_later
        self._load = load
        self._swept = 0
        self._hopes_until = now() + HOPE_S
        self._looking: dict[str, list[Deferred[Answer]]] = {}
        mac = mac_of(member, secret)
        count = len(servers)
        self.shards = [
            Shard(
                redis,
                range(at, PARTITIONS, count),
                names,
                member,
                mac,
                self.claims,
                self.figures,
                holder,
                now,
                lambda: load().text,
            )
            for at, redis in enumerate(servers)
        ]

    def _shard(self, key: str) -> Shard:
        return self.shards[self._names.of(key)[0] % len(self.shards)]

    # Questions

    def may_serve(self, key: str) -> bool:
        """Tell whether peers with a key that is held here may be served, without asking first.

        While the directory is away, nobody can have taken the key in an orderly way.
        """
        shard = self._shard(key)
        return shard.is_ready or not shard.redis.is_up

    def recover(self, key: str) -> Deferred[bool]:
        """Renew the lease for a key, and assert what is held. Fires with whether claims may be served then."""
        return self._shard(key).recover()

    @inlineCallbacks
    def claim(self, key: str) -> Generator[Deferred[Any], Any, Answer]:
        """Claim a key for a client. Cancel this if the client leaves: unless another one takes it, it is released."""
        self.claims.begin(key)
        try:
            answer: Answer = yield self._ask(Kind.CLAIM, key)
        finally:
            self.claims.end(key)
        self._count("claim", answer)
        return answer

    def look(self, key: str) -> Deferred[Answer]:
        """Ask who holds a key. Only one question about a key is under way at a time."""
        answer = Deferred[Answer]()
        if key in self._looking:
            self._looking[key].append(answer)
            return answer
        self._looking[key] = [answer]
        self._ask(Kind.LOOK, key).addBoth(self._looked, key)
        return answer

    def _looked(self, answer: Any, key: str) -> None:
        for waiting in self._looking.pop(key):
            if waiting.called:
                continue
            if isinstance(answer, NoOwner | Member):
                self._count("look", answer)
            waiting.callback(answer)

    def _count(self, question: str, answer: Answer) -> None:
        self.figures.count(question, "owner" if isinstance(answer, Member) else answer.value)

    @inlineCallbacks
    def _ask(self, kind: Kind, key: str) -> Generator[Deferred[Any], Any, Answer]:
        shard, until = self._shard(key), self._now() + WAIT_S
        while True:
            now = self._now()
            if not shard.redis.is_up:
                if now >= self._hopes_until:
                    return NoOwner.DOWN
                yield self._pause(_RETRY_S)
                continue
            if kind is Kind.CLAIM and not shard.is_ready:
                if now >= until:
                    return NoOwner.DOWN
                is_ready = yield shard.recover()
                if not is_ready:
                    yield self._pause(_RETRY_S)
                continue
            try:
                answer = yield shard.ask(kind, key)
            except RedisError:
                return NoOwner.DOWN
            if answer[0] == Verdict.WAIT and now < until:
                yield self._pause(min(_RETRY_S, int(answer[1]) / 1e6))
            elif answer[0] != Verdict.UNLEASED:
                return self._understood(answer)

    def _understood(self, answer: Sequence[str]) -> Answer:
        if answer[0] != Verdict.OWNER:
            return NoOwner(answer[0])
        owner = owner_of(answer[1:], self._secret)
        # A process with this name, but not this one, cannot be told apart by who connects to its address.
        return NoOwner.FORGED if owner is None or owner.name == self.member.name else owner

    def _pause(self, seconds: float) -> Deferred[None]:
        pause = Deferred[None](lambda _: call.cancel())
        call = self._call_later(seconds, lambda: pause.callback(None))
        return pause

    # What is held here

    def vacated(self, key: str) -> None:
        """Release a key that is not held here any more."""
        if self.is_left:
            return
        epoch = self.claims.vacated(key)
        if epoch is not None:
            self._shard(key).release(key, epoch)

    def look_after(self) -> None:
        """Renew, assert and release what is due; to be called each `LOOK_AFTER_S`."""
        if self.is_left:
            return
        for shard in self.shards:
            shard.look_after()
        unused = self.claims.unused(self._holder.holds, self._now())
        kept = self.claims.take_releases(_MOST_RELEASES, self._holder.holds)
        for key, epoch in (*unused, *kept):
            self._shard(key).release(key, epoch)

    # Operators and the end

    @property
    def lease_age_s(self) -> float:
        """The time since the lease was renewed that was renewed the longest ago; infinite if one never was."""
        renewed = [shard.renewed_at for shard in self.shards]
        return max(float("inf") if at is None else self._now() - at for at in renewed)

    @property
    def unconfirmed(self) -> int:
        """The number of keys held here that the directory has not confirmed."""
        return sum(not self.claims.epoch(key) for key in self._holder.held_keys())

    def members(self) -> Deferred[list[Listed]]:
        """List the instances; fails with a `RedisError`."""
        partition = self._names.partitions[0]
        listed = self.shards[0].redis.call(_MEMBERS, (partition.leases, self._names.gone), _FORGET_US)
        return listed.addCallback(
            lambda answer: members_of([word.decode("utf-8", "replace") for word in answer], self._secret)
        )

    def sweep(self) -> Deferred[Any]:
        """Delete the old leases of the next partition; to be called each `SWEEP_S`. Never fails.

        Each instance has one in all of them, which it does not delete if it dies.
        """
        self._swept = (self._swept + 1) % PARTITIONS
        redis = self.shards[self._swept % len(self.shards)].redis
        swept = redis.call(_MEMBERS, (self._names.partitions[self._swept].leases,), _FORGET_US)
        return swept.addErrback(lambda failure: failure.trap(RedisError) and None)

    def hand_over(self) -> None:
        """Leave the lease to a process that takes over with the same name and boot id."""
        self.is_left = True

    def take_back(self) -> None:
        """Keep the lease again: that process has died."""
        self.is_left = False

    def leave(self, held: int | None = None) -> Deferred[Any]:
        """Delete the lease, if it is this process's: what it held is free at once. Never fails.

        Others are told how many keys it ``held`` before it moved them; by default those that it holds now.
        """
        if self.is_left:
            return DeferredList([])
        self.is_left = True
        load, member, secret = self._load(), self.member, self._secret
        load = load if held is None else load._replace(keys=held)
        words = (member.address, mac_of(member, secret), load.text, left_mac_of(member, secret))
        first, *others = self.shards
        return DeferredList([first.leave(" ".join(words)), *(shard.leave() for shard in others)])
