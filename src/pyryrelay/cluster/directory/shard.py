"""One Redis of the directory: this instance's lease there, the questions in order, and assertions of what it holds.

Questions are sent in the order in which they are asked, one call at a time with all that have gathered, so releases and
claims of one instance never overtake each other.

A lease counts from when its renewal was sent. Once it is over, for instance because the process was stopped, no claim
is served before it is renewed and everything that is held here has been asserted. Times are seconds of a monotonic
clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from math import ceil, inf
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.cluster.directory.claims import Claims
from pyryrelay.cluster.directory.figures import Figures
from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.directory.scripts import (
    ASSERT,
    ENTRY_MS,
    LEASE_US,
    LEAVE,
    RENEW,
    SILENCE_US,
    VISIT,
    WARM_UP_US,
    Kind,
    Names,
    Verdict,
)
from pyryrelay.cluster.keys import PARTITIONS
from pyryrelay.cluster.redis.answers import are_lists_of_words, are_words, is_number
from pyryrelay.cluster.redis.interface import DownError, Redis, RedisError, Script

__all__ = ["ASSERT_S", "BATCH", "RENEW_S", "WARN_S", "Holder", "Shard"]

_log = Logger(namespace="pyryrelay")

RENEW_S: Final = 2.0
ASSERT_S: Final = 60.0
"""How often each key is asserted."""
BATCH: Final = 100
WARN_S: Final = 60.0
"""How often it is told at most that the server answers errors."""
LEASE_S: Final = LEASE_US / 1e6
_NAMESAKE_RENEWALS: Final = 3


def _are_verdicts(answer: Any, count: int) -> bool:
    """Tell whether an answer can be that for so many keys: whoever holds one is told its epoch."""
    if not are_lists_of_words(answer, count):
        return False
    return all(words[0] != b"here" or (len(words) == 2 and is_number(words[1])) for words in answer)


_VISIT = Script(VISIT, lambda answer, keys: _are_verdicts(answer, keys // 3))
_ASSERT = Script(ASSERT, lambda answer, keys: _are_verdicts(answer, keys // 2))
_RENEW = Script(RENEW, lambda answer, keys: are_words(answer, 3 + keys // 2) and is_number(answer[1]))
_LEAVE = Script(LEAVE)


class Holder(Protocol):
    """What is held in this process."""

    def held_keys(self) -> Collection[str]:
        """Return all keys that are held now."""

    def holds(self, key: str) -> bool:
        """Tell whether a key is held."""

    def evict(self, key: str) -> None:
        """Give up a key."""


class _Question(NamedTuple):
    kind: Kind
    key: str
    epoch: int
    answer: Deferred[list[str]]


class Shard:
    """See the module's docstring. It has the partitions ``numbers``. ``load`` is a word for operators."""

    def __init__(
        self,
        redis: Redis,
        numbers: Sequence[int],
        names: Names,
        member: Member,
        mac: str,
        claims: Claims,
        figures: Figures,
        holder: Holder,
        now: Callable[[], float],
        load: Callable[[], str],
    ) -> None:
        self.redis = redis
        self.leased_until = 0.0
        self.renewed_at: float | None = None
        self._names = names
        self._numbers = frozenset(numbers)
        self._partitions = [names.partitions[number] for number in numbers]
        self._member = member
        self._mac = mac
        self._claims = claims
        self._figures = figures
        self._holder = holder
        self._now = now
        self._load = load
        self._began: list[str] | None = None
        self._must_assert = True
        self._was_up = False
        self._warned_at = -inf
        self._connections = 0
        self._is_recovering = False
        self._to_tell: list[Deferred[bool]] = []
        self._waiting: deque[_Question] = deque()
        self._is_asking = False
        self._to_assert: deque[str] = deque()
        self._assert_due = 0.0
        self._namesakes = 0

    # State

    @property
    def is_ready(self) -> bool:
        """Whether claims may be served: the lease lasts, and everything held here is known to the directory."""
        return self.redis.is_up and not self._must_assert and self._now() < self.leased_until

    def _is_mine(self, key: str) -> bool:
        """Tell whether a key is in these partitions."""
        return len(self._numbers) == PARTITIONS or self._names.of(key)[0] in self._numbers

    # Questions

    def ask(self, kind: Kind, key: str, epoch: int = 0) -> Deferred[list[str]]:
        """Ask one question. The answer is one of ``scripts.VISIT``, as text. Fails with a `RedisError`."""
        question = _Question(kind, key, epoch, Deferred())
        self._waiting.append(question)
        if not self._is_asking:
            self._send()
        return question.answer

    def _send(self) -> None:
        questions = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        keys: list[bytes] = []
        args: list[str | int] = [self._member.name, self._member.boot, WARM_UP_US, SILENCE_US, ENTRY_MS]
        for question in questions:
            number, slot = self._names.of(question.key)
            keys += [*self._names.partitions[number], slot]
            args += [question.kind, question.epoch]
        self._is_asking = True
        self.redis.call(_VISIT, keys, args).addBoth(self._answered, questions)

    def _answered(self, outcome: Any, questions: Sequence[_Question]) -> None:
        self._is_asking = False
        if isinstance(outcome, Failure):
            self._lost_connection(outcome)
            for question in questions:
                if question.kind is Kind.CLAIM:
                    self._claims.doubtful(question.key, self._now())
            answers: list[Any] = [outcome] * len(questions)
        else:
            answers = [_texts(answer) for answer in outcome]
            for question, answer in zip(questions, answers, strict=True):
                self._note(question, answer)
        # What was asked meanwhile comes before what the answers lead to.
        if self._waiting:
            self._send()
        for question, answer in zip(questions, answers, strict=True):
            if not question.answer.called:
                question.answer.callback(answer)

    def _note(self, question: _Question, answer: Sequence[str]) -> None:
        """Note what an answer means, even if nobody waits for it any more."""
        if question.kind is Kind.CLAIM and answer[0] == Verdict.HERE:
            self._claims.granted(question.key, int(answer[1]), self._now())
        elif answer[0] == Verdict.UNLEASED:
            self._must_assert = True

    def _lost_connection(self, failure: Failure) -> None:
        self._must_assert = True
        now = self._now()
        if not failure.check(DownError) and now >= self._warned_at + WARN_S:
            self._warned_at = now
            _log.warn("the directory of the cluster cannot be asked: {reason}", reason=failure.getErrorMessage())

    # The lease

    def look_after(self) -> None:
        """Renew and assert what is due; to be called several times a second."""
        now = self._now()
        if not self.redis.is_up:
            if self._was_up:
                self._figures.outages += 1
            self._was_up, self._must_assert = False, True
            return
        if self.redis.connections != self._connections:
            # It may be another server, which does not have what was written last.
            self._connections, self._must_assert = self.redis.connections, True
        if not self._was_up or self._must_assert or self.renewed_at is None or now - self.renewed_at >= RENEW_S:
            self._was_up = True
            self.recover()
        elif now >= self._assert_due:
            self._assert_due = now + 1.0
            self._assert_some()

    def recover(self) -> Deferred[bool]:
        """Renew the lease, and assert everything if that is needed. Fires with whether claims may be served then."""
        waiting = Deferred[bool]()
        self._to_tell.append(waiting)
        if not self._is_recovering:
            self._is_recovering = True
            self._renew_and_assert().addBoth(self._recovered)
        return waiting

    def _recovered(self, outcome: Any) -> None:
        if isinstance(outcome, Failure):
            if outcome.check(RedisError):
                self._lost_connection(outcome)
            else:
                _log.failure("The lease could not be renewed", outcome)
        self._is_recovering = False
        to_tell, self._to_tell = self._to_tell, []
        for waiting in to_tell:
            if not waiting.called:
                waiting.callback(self.is_ready)

    @inlineCallbacks
    def _renew_and_assert(self) -> Generator[Deferred[Any], Any, None]:
        sent_at = self._now()
        was_over = sent_at >= self.leased_until
        keys = [name for partition in self._partitions for name in partition]
        me = self._member
        args = (me.name, me.boot, LEASE_US, me.address, self._mac, self._load(), SILENCE_US)
        answer = _texts((yield self.redis.call(_RENEW, keys, args)))
        lapsed, namesake, began = int(answer[1]), answer[2], answer[3:]
        self._note_namesake(namesake)
        self.renewed_at = sent_at
        if was_over or lapsed or began != self._began or self._must_assert:
            self._must_assert = True
            self.leased_until = sent_at + LEASE_S
            yield self._assert_all()
            self._must_assert = False
            self._claims.repeat_releases(sent_at)
        self._began = began
        self.leased_until = sent_at + LEASE_S

    def _note_namesake(self, boot: str) -> None:
        """Warn if another process goes on renewing the lease of this name."""
        self._namesakes = self._namesakes + 1 if boot else 0
        if self._namesakes == _NAMESAKE_RENEWALS:
            _log.error(
                "another instance of the cluster has the address {endpoint}: give each its own --cluster-advertise",
                endpoint=self._member.name,
            )

    @inlineCallbacks
    def _assert_all(self) -> Generator[Deferred[Any], Any, None]:
        # Hashing all keys at once would hold up the reactor.
        batch: list[str] = []
        for key in list(self._holder.held_keys()):
            if self._is_mine(key):
                batch.append(key)
            if len(batch) == BATCH:
                yield self._assert(batch)
                batch = []
        yield self._assert(batch)

    def _assert_some(self) -> None:
        """Assert as many keys as are due in a second."""
        if not self._to_assert:
            self._to_assert.extend(self._holder.held_keys())
            self._assert_each = ceil(len(self._to_assert) / ASSERT_S)
        due = [self._to_assert.popleft() for _ in range(min(self._assert_each, len(self._to_assert)))]
        keys = [key for key in due if self._is_mine(key)]
        for at in range(0, len(keys), BATCH):
            self._assert(keys[at : at + BATCH]).addErrback(self._lost_connection)

    _assert_each = 1

    @inlineCallbacks
    def _assert(self, keys: Sequence[str]) -> Generator[Deferred[Any], Any, None]:
        held = [key for key in keys if self._holder.holds(key)]
        if not held:
            return
        names: list[bytes] = []
        args: list[str | int] = [self._member.name, self._member.boot, ENTRY_MS]
        for key in held:
            number, slot = self._names.of(key)
            names += [self._names.partitions[number].leases, slot]
            args.append(self._claims.epoch(key))
        answers = yield self.redis.call(_ASSERT, names, args)
        for key, answer in zip(held, map(_texts, answers), strict=True):
            self._asserted(key, answer)

    def _asserted(self, key: str, answer: Sequence[str]) -> None:
        match answer:
            case [Verdict.HERE, epoch]:
                self._figures.asserted += 1
                if self._holder.holds(key):
                    self._claims.confirmed(key, int(epoch))
                else:
                    # It was vacated meanwhile, and somebody may already wait for it again.
                    self._claims.granted(key, int(epoch), self._now())
            case [Verdict.LOST, *_]:
                self._claims.lost(key)
                if self._holder.holds(key):
                    self._figures.lost += 1
                    self._holder.evict(key)
            case _:
                self._must_assert = True

    # Releases and the end

    def release(self, key: str, epoch: int) -> None:
        """Release a key, or keep that for later if the directory is away."""
        if not self.redis.is_up:
            # Whatever its epoch is afterwards: the server may lose the last one.
            self._claims.keep_release(key, 0)
            return
        answer = self.ask(Kind.RELEASE, key, epoch)
        answer.addCallbacks(self._released, lambda failure: self._claims.keep_release(key, 0), callbackArgs=(key,))

    def _released(self, answer: Sequence[str], key: str) -> None:
        self._figures.released += answer[0] == Verdict.RELEASED
        # Also if there was no entry: another server may take over that has it.
        self._claims.released(key, self._now())

    def leave(self, gone: str = "") -> Deferred[Any]:
        """Delete the lease: what this instance held is free at once. Never fails.

        ``gone`` is what others are told of it afterwards, see ``scripts.LEAVE``; it belongs into partition 0.
        """
        keys = [partition.leases for partition in self._partitions]
        args: tuple[str, ...] = (self._member.name, self._member.boot)
        if gone:
            keys, args = [*keys, self._names.gone], (*args, gone)
        left = self.redis.call(_LEAVE, keys, args)
        return left.addErrback(lambda failure: None)


def _texts(answer: Sequence[Any]) -> list[str]:
    """Return the words of an answer as text."""
    return [word.decode("utf-8", "replace") for word in answer]
