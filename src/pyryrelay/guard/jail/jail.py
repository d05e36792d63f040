"""The jail: ban clients that are refused repeatedly, for increasing periods.

A *strike* is one refusal that was given to a key. `JailPolicy.refusals` strikes less than `JailPolicy.within_s` apart,
first to last, make a *sentence*: the key is jailed for ``first_s``. A key that is sentenced again before its sentence
is forgotten is jailed for twice as long as the last time, up to ``longest_s``. A sentence is remembered after its end
for as long as the policy made it last, so for ``first_s`` at least.

Strikes of a jailed key do not count: they prolong no sentence, and after it counting starts at zero. So it makes no
difference whether the refusals of a jailed client are seen or dropped unseen.

Invariants: strikes are counted exactly, at most ``refusals`` times per key; the keys that are counted and those that
are sentenced are bounded by ``max_entries`` each. Under a flood of keys that strike once, those that strike least often
are forgotten first; under a flood of sentences, the one that ends first goes. Every error is made in favour of the
client. Except for `Jail.restore`, `Jail.configure` and `Jail.entries`, which take time in the number of entries, no
call takes longer than a few milliseconds.

A sentence holds for exactly the `AddressKey` that was sentenced, with one exception: an IPv6 subscriber may have a
whole /48, and come from another address in it each time. So strikes of addresses are also strikes of their /48, and
four times as many jail all of it (`Jail.holds`). No address counts for more than a tenth of what jails an address, so
that takes at least forty of them.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pyryrelay.guard.address.keys import AddressKey, covering_prefix, network_of
from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.jail.announcements import Announcements
from pyryrelay.guard.jail.policy import MAX_DURATION_S, JailPolicy
from pyryrelay.guard.jail.sentences import SAME_S, Changes, News, Sentence
from pyryrelay.guard.jail.strikes import Strikes
from pyryrelay.guard.jail.time_order import TimeOrder

__all__ = ["FORGET_SLICE", "MIN_ENTRIES", "PREFIX_FACTOR", "Jail"]

MIN_ENTRIES: Final = 2
"""Smallest bound on keys that are counted, and on sentences."""

FORGET_SLICE: Final = 25
"""Sentences that one sweep forgets. Each moves a few hundred kilobytes when a hundred thousand are kept."""

PREFIX_FACTOR: Final = 4
"""How many times as many strikes jail a /48 of IPv6 as jail an address."""


class Jail:
    """The sentences under ``policy``, and the strikes that lead to them. See the module's docstring.

    Raises `LimitError` if ``max_entries`` is below `MIN_ENTRIES`.
    """

    __slots__ = (
        "_announcements",
        "_ends",
        "_fades",
        "_prefix_count",
        "_prefix_strikes",
        "_sentences",
        "_strikes",
        "max_entries",
        "policy",
    )

    def __init__(self, policy: JailPolicy | None = None, max_entries: int = 100_000) -> None:
        """Start empty."""
        if max_entries < MIN_ENTRIES:
            raise LimitError(f"max_entries {max_entries!r} is too small: use {MIN_ENTRIES} or more")
        self.policy = JailPolicy() if policy is None else policy
        self.max_entries = max_entries
        self._sentences: dict[AddressKey, Sentence] = {}
        self._ends = TimeOrder()
        self._fades = TimeOrder()
        self._prefix_count = 0
        self._announcements = Announcements(max_entries)
        self._start_counting()

    def _start_counting(self) -> None:
        policy = self.policy
        self._strikes = Strikes(policy.refusals, policy.within_s, self.max_entries)
        self._prefix_strikes = Strikes(policy.refusals * PREFIX_FACTOR, policy.within_s, self.max_entries)

    def __len__(self) -> int:
        """Count the sentences that take memory, including ended ones."""
        return len(self._sentences)

    @property
    def tracked(self) -> int:
        """Number of keys whose strikes take memory; a gauge."""
        return len(self._strikes) + len(self._prefix_strikes)

    @property
    def tenth(self) -> int:
        """A tenth of the strikes that jail an address, 1 at least."""
        return max(1, self.policy.refusals // 10)

    def is_jailed(self, key: AddressKey, now: float) -> bool:
        """Tell whether ``key`` itself is jailed at this moment."""
        sentence = self._sentences.get(key)
        return sentence is not None and now < sentence.until_s

    def holds(self, key: AddressKey, now: float) -> bool:
        """Tell whether the client that is counted under ``key`` is jailed, alone or with its /48."""
        if self.is_jailed(key, now):
            return True
        return bool(self._prefix_count and key & 1) and self.is_jailed(covering_prefix(key), now)

    def sentence(self, key: AddressKey, now: float) -> Sentence | None:
        """Return the sentence for which `holds` says that the client is jailed, its own before that of its /48."""
        if self.is_jailed(key, now):
            return self._sentences[key]
        return self._sentences[covering_prefix(key)] if self.holds(key, now) else None

    def strikes(self, key: AddressKey, now: float) -> int:
        """Return how many strikes of ``key`` itself count towards a sentence. Changes nothing."""
        return self._strikes.count(key, now)

    def strike(self, key: AddressKey, now: float, weight: int = 1) -> Sentence | None:
        """Note that ``key`` was refused, which counts as ``weight`` strikes; return the sentence for that, if any.

        It may be one for the /48 around ``key``.
        """
        if self.is_jailed(key, now):
            return None
        count = self._strikes.add(key, now, weight)
        if count >= self.policy.refusals:
            return self._sentence(key, now)
        if key & 1 and (prefix := covering_prefix(key)) != key and not self.is_jailed(prefix, now):
            share = min(weight, self.tenth - (count - weight))
            needed = self.policy.refusals * PREFIX_FACTOR
            if share > 0 and self._prefix_strikes.add(prefix, now, share) >= needed:
                return self._sentence(prefix, now)
        return None

    def _sentence(self, key: AddressKey, now: float) -> Sentence:
        last = self._sentences.get(key)
        times = 1 if last is None or now >= self._forgotten_at(last) else last.times + 1
        return self._pronounce(Sentence(key, now + self.policy.duration_s(times), times))

    def keep_news(self) -> None:
        """Keep what `news` returns from now on."""
        self._announcements.keep_news()

    def news(self, most: int = 200) -> list[News]:
        """Return at most ``most`` sentences and releases that were decided here since the last call, in their order.

        Unlike `changes` these leave out what was learnt by `absorb`, `discard`, `adopt` and `restore`, and what ended.
        """
        return self._announcements.take_news(most)

    @property
    def has_news(self) -> bool:
        """Whether there are news that `news` has not returned."""
        return self._announcements.has_news

    def retell(self, news: Iterable[News]) -> None:
        """Have `news` return what was decided elsewhere, and is in force here already or soon."""
        self._announcements.retell(news)

    def absorb(self, entries: Iterable[Sentence], now: float) -> None:
        """Take sentences that another server has passed, where they end later than those that are known here."""
        for entry in entries:
            until_s = min(entry.until_s, now + MAX_DURATION_S)
            last = self._sentences.get(entry.key)
            if until_s > now and (last is None or until_s > last.until_s + SAME_S or entry.times > last.times):
                self._pronounce(entry._replace(until_s=until_s), is_news=False)

    def discard(self, key: AddressKey) -> None:
        """Forget the sentence of ``key``, because another server has released it; `released` names it."""
        self.release(key, is_news=False)

    def add(self, key: AddressKey, duration_s: float, now: float, *, is_news: bool = True) -> Sentence:
        """Jail ``key`` for ``duration_s`` from now, whatever its sentence was; it keeps the count of that one.

        Without ``is_news`` another process tells other servers.

        Raises `LimitError` for a duration that is not positive or above `MAX_DURATION_S`, and `AddressError` for a
        number that is not a key.
        """
        if not 0 < duration_s <= MAX_DURATION_S:
            raise LimitError(f"jail duration {duration_s!r} s is out of range: use up to {MAX_DURATION_S:.0f}")
        network_of(key)
        last = self._sentences.get(key)
        times = 0 if last is None or now >= self._forgotten_at(last) else last.times
        sentence = Sentence(key, now + duration_s, times)
        if is_news and last is not None and last.until_s > sentence.until_s:
            self._announcements.tell(key, None, last)
        return self._pronounce(sentence, is_news=is_news)

    def release(self, key: AddressKey, *, is_news: bool = True) -> bool:
        """Forget the sentence of ``key``, running or ended; tell whether there was one.

        Without ``is_news`` another process tells other servers, and a sentence that they were not told of is no news.
        """
        if not is_news:
            self._announcements.withdraw(key)
        sentence = self._sentences.get(key)
        if sentence is None:
            return False
        self._forget(key)
        self._announcements.released(key)
        if is_news:
            self._announcements.tell(key, None, sentence)
        return True

    def adopt(
        self, sentences: Iterable[Sentence], released: Iterable[AddressKey], now: float, *, note: bool = False
    ) -> None:
        """Follow another jail of the same clients: take its sentences in place of those here, and forget some keys.

        What would be forgotten by now is left out. `changes` and `released` do not name what was adopted, unless
        ``note``. Use `restore` for all sentences of a jail.
        """
        for sentence in sentences:
            known = self._sentences.get(sentence.key)
            if known is not None and known.times == sentence.times and abs(known.until_s - sentence.until_s) < SAME_S:
                continue
            until_s = min(sentence.until_s, now + MAX_DURATION_S)
            if now < self._forgotten_at(sentence):
                self._pronounce(sentence._replace(until_s=until_s), is_news=False)
                self._note_adopted(sentence.key, note)
        for key in released:
            if self.release(key, is_news=False):
                self._note_adopted(key, note)

    def _note_adopted(self, key: AddressKey, note: bool) -> None:
        if not note:
            self._announcements.forget(key)

    def entries(self, now: float) -> list[Sentence]:
        """Return all sentences that run or are remembered; those whose ``until_s`` is not after ``now`` have ended."""
        return [sentence for sentence in self._sentences.values() if now < self._forgotten_at(sentence)]

    def longest(self, now: float, most: int) -> list[Sentence]:
        """Return at most ``most`` sentences that run, the one that ends last first, in no time for the others."""
        return [self._sentences[key] for key in self._ends.latest(now, most)]

    def running(self, now: float) -> int:
        """Count the keys that are jailed at this moment; a gauge."""
        return len(self._sentences) - self._ends.count_due(now)

    def changes(self, most: int = 200) -> Changes:
        """Return at most ``most`` changes since the last call, for a caller that keeps a copy; `restore` makes none.

        Changes of at most ``max_entries`` keys are kept for that, so ask about once a second.
        """
        keys = self._announcements.take_changed(most)
        known = [key for key in keys if key in self._sentences]
        return Changes([self._sentences[key] for key in known], [key for key in keys if key not in self._sentences])

    def released(self) -> list[AddressKey]:
        """Return the keys that were released since the last call, here or elsewhere, unless they are jailed again."""
        return self._announcements.take_released()

    def configure(self, policy: JailPolicy, now: float) -> None:
        """Sentence by a policy from now on. Sentences that run go on; the new policy says how long to remember them."""
        if policy == self.policy:
            return
        before, self.policy = self.policy, policy
        if (policy.refusals, policy.within_s) != (before.refusals, before.within_s):
            self._start_counting()
        entries = list(self._sentences.values())
        self._sentences = {}
        self.restore(entries, now)

    def restore(self, entries: Iterable[Sentence], now: float) -> int:
        """Add sentences from a copy, for keys that have none; return how many were added.

        Those that would be forgotten by now are left out, and without room those that end first; the next `changes`
        name what was left out. A sentence that ends too late is no error: it ends `MAX_DURATION_S` from now.
        """
        kept = {
            entry.key: entry._replace(until_s=min(entry.until_s, now + MAX_DURATION_S))
            for entry in entries
            if entry.key not in self._sentences
        }
        live = sorted((entry for entry in kept.values() if now < self._forgotten_at(entry)), key=_end, reverse=True)
        taken = {entry.key: entry for entry in live[: self.max_entries - len(self._sentences)]}
        for key in kept.keys() - taken.keys():
            self._announcements.changed(key)
        self._sentences |= taken
        self._prefix_count = sum(map(_is_prefix, self._sentences))
        self._ends = TimeOrder((entry.until_s, entry.key) for entry in self._sentences.values())
        self._fades = TimeOrder((self._forgotten_at(entry), entry.key) for entry in self._sentences.values())
        return len(taken)

    def sweep(self, now: float) -> None:
        """Forget what no longer matters, a slice at a time. Call it several times a second."""
        self._strikes.sweep(now)
        self._prefix_strikes.sweep(now)
        for key in self._fades.due(now, FORGET_SLICE):
            self._forget(key)

    def _forgotten_at(self, sentence: Sentence) -> float:
        return sentence.until_s + self.policy.duration_s(sentence.times)

    def _pronounce(self, sentence: Sentence, *, is_news: bool = True) -> Sentence:
        """Replace the sentence of the key, or without room the one that ends first."""
        if sentence.key in self._sentences:
            self._forget(sentence.key)
        elif len(self._sentences) >= self.max_entries:
            self._forget(self._ends.first())
        self._sentences[sentence.key] = sentence
        self._announcements.jailed_again(sentence.key)
        self._prefix_count += _is_prefix(sentence.key)
        self._ends.add(sentence.until_s, sentence.key)
        self._fades.add(self._forgotten_at(sentence), sentence.key)
        self._announcements.changed(sentence.key)
        if is_news:
            self._announcements.tell(sentence.key, sentence)
        return sentence

    def _forget(self, key: AddressKey) -> None:
        sentence = self._sentences.pop(key)
        self._prefix_count -= _is_prefix(key)
        self._ends.remove(sentence.until_s, key)
        self._fades.remove(self._forgotten_at(sentence), key)
        self._announcements.changed(key)


def _end(sentence: Sentence) -> float:
    return sentence.until_s


def _is_prefix(key: AddressKey) -> bool:
    """Tell whether ``key`` may be the /48 of others."""
    return key & 1 == 1 and covering_prefix(key) == key
