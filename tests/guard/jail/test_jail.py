"""The jail: who is banned, for how long, what is remembered, and what is kept without room."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf, nan, nextafter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyryrelay.guard import AddressError, AddressKey, GuardError, LimitError, address_key
from pyryrelay.guard.jail import MAX_DURATION_S, Jail, JailPolicy, News, Sentence
from pyryrelay.guard.jail import jail as jail_module

POLICY = JailPolicy(refusals=3, within_s=10.0, first_s=100.0, longest_s=350.0)
NETWORKS = st.one_of(
    st.builds(lambda n, bits: IPv4Network((n, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda n, bits: IPv6Network((n, bits), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)),
)


def key_of(text: str) -> AddressKey:
    """Return the key of a network."""
    network = ip_network(text)
    return address_key(network.network_address, network.prefixlen)


ALICE, BOB, CAROL = key_of("192.0.2.1"), key_of("2001:db8::/64"), key_of("192.0.2.3")


def convict(jail: Jail, key: AddressKey, now: float) -> Sentence:
    """Strike until there is a ban, and check that it comes with the strike that the policy says."""
    outcomes = [jail.strike(key, now) for _ in range(jail.policy.refusals)]
    assert outcomes[:-1] == [None] * (jail.policy.refusals - 1)
    assert outcomes[-1] is not None
    return outcomes[-1]


def test_a_jail_without_room_is_refused() -> None:
    """A bound without room for a ban is an error."""
    with pytest.raises(GuardError, match="max_entries 1 "):
        Jail(max_entries=1)


def test_the_policy_of_the_issue() -> None:
    """Sixty refusals within a minute jail for 10 minutes, then for twice as long each time, up to a day."""
    jail = Jail()
    now, lasted = 1_000.0, []
    for _ in range(10):
        sentence = convict(jail, ALICE, now)
        lasted.append(sentence.until_s - now)
        now = sentence.until_s
    assert lasted == [600, 1200, 2400, 4800, 9600, 19200, 38400, 76800, 86400, 86400]


def test_refusals_that_are_spread_out_jail_no_key() -> None:
    """Fifty-nine refusals in a minute never jail, wherever the minute begins."""
    jail = Jail()
    assert all(jail.strike(ALICE, number * 60.1 / 59) is None for number in range(1_000))
    assert len(jail) == 0
    assert jail.tracked == 1


def test_sixty_within_a_minute_jail_even_if_spread_evenly() -> None:
    """The sixtieth refusal less than a minute after the first jails, without any burst."""
    jail = Jail()
    outcomes = [jail.strike(ALICE, number * 59.9 / 59) for number in range(60)]
    assert outcomes[:-1] == [None] * 59
    assert outcomes[-1] == Sentence(ALICE, outcomes[-1].until_s if outcomes[-1] else nan, 1)


def test_jailed_until_the_end() -> None:
    """A ban holds from its first moment to the one before its end, and for no other key."""
    jail = Jail(POLICY)
    assert not jail.is_jailed(ALICE, 0.0)
    assert convict(jail, ALICE, 0.0) == Sentence(ALICE, 100.0, 1)
    assert jail.is_jailed(ALICE, 0.0)
    assert jail.is_jailed(ALICE, 99.9)
    assert not jail.is_jailed(ALICE, 100.0)
    assert not jail.is_jailed(BOB, 50.0)


def test_strikes_of_the_jailed_count_for_nothing() -> None:
    """Strikes of a jailed key do not prolong its ban, and counting starts at zero afterwards."""
    jail = Jail(POLICY)
    convict(jail, ALICE, 0.0)
    assert [jail.strike(ALICE, 99.9) for _ in range(10)] == [None] * 10
    assert not jail.is_jailed(ALICE, 100.0)
    assert convict(jail, ALICE, 100.0) == Sentence(ALICE, 300.0, 2)


def test_a_sentence_is_remembered_as_long_as_it_lasted() -> None:
    """A ban is doubled while the last one is remembered, and is a first one after that."""
    jail = Jail(POLICY)
    convict(jail, ALICE, 0.0)
    assert convict(jail, ALICE, 199.9).times == 2
    assert convict(jail, ALICE, 399.9 + 200.0) == Sentence(ALICE, 399.9 + 300.0, 1)
    convict(jail, BOB, 0.0)
    assert convict(jail, BOB, 200.0) == Sentence(BOB, 300.0, 1)


def test_forgotten_at_that_very_instant() -> None:
    """A ban of 100 s that ended at 100.0 is remembered until just before 200.0."""
    for now, remembered in ((nextafter(200.0, 0.0), True), (200.0, False)):
        jail = Jail(POLICY)
        old = convict(jail, ALICE, 0.0)
        assert old == Sentence(ALICE, 100.0, 1)
        assert jail.entries(now) == ([old] if remembered else [])
        assert Jail(POLICY).restore([old], now) == remembered
        jail.sweep(now)
        assert len(jail) == remembered
        assert jail.add(ALICE, 10.0, now).times == (1 if remembered else 0)
        jail = Jail(POLICY)
        convict(jail, ALICE, 0.0)
        assert convict(jail, ALICE, now).times == (2 if remembered else 1)
        jail = Jail(POLICY)
        convict(jail, ALICE, 0.0)
        assert jail.add(ALICE, 10.0, now).times == (1 if remembered else 0)


def test_jailing_by_hand() -> None:
    """A ban by an operator replaces the current one, shorter or longer, and keeps its count."""
    jail = Jail(POLICY)
    assert jail.add(ALICE, 1_000.0, 0.0) == Sentence(ALICE, 1_000.0, 0)
    assert jail.is_jailed(ALICE, 999.0)
    assert convict(jail, ALICE, 1_000.0).times == 1
    assert jail.add(ALICE, 5.0, 1_000.0) == Sentence(ALICE, 1_005.0, 1)
    assert convict(jail, ALICE, 1_005.0).times == 2
    assert jail.add(ALICE, 5.0, 2_000.0) == Sentence(ALICE, 2_005.0, 0)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, MAX_DURATION_S * 2, nan])
def test_jailing_by_hand_for_no_time_is_refused(duration_s: float) -> None:
    """An impossible duration is an error and jails no key."""
    jail = Jail(POLICY)
    with pytest.raises(LimitError, match="duration"):
        jail.add(ALICE, duration_s, 0.0)
    with pytest.raises(AddressError):
        jail.add(1, 1.0, 0.0)
    assert len(jail) == 0


def test_release_forgets_everything() -> None:
    """A released key is free, and its next ban is a first one."""
    jail = Jail(POLICY)
    convict(jail, ALICE, 0.0)
    assert jail.release(ALICE)
    assert not jail.release(ALICE)
    assert not jail.is_jailed(ALICE, 0.0)
    assert convict(jail, ALICE, 0.0).times == 1


def test_what_is_listed() -> None:
    """Entries are all that is remembered; the numbers of running and longest bans are of current ones."""
    jail = Jail(POLICY)
    jail.add(ALICE, 10.0, 0.0)
    convict(jail, BOB, 0.0)
    jail.add(CAROL, 120.0, 0.0)
    assert {sentence.key for sentence in jail.entries(5.0)} == {ALICE, BOB, CAROL}
    assert {sentence.key for sentence in jail.entries(110.0)} == {BOB, CAROL}
    assert [sentence.key for sentence in jail.longest(5.0, 10)] == [CAROL, BOB, ALICE]
    assert [sentence.key for sentence in jail.longest(10.0, 10)] == [CAROL, BOB]
    assert [sentence.key for sentence in jail.longest(5.0, 1)] == [CAROL]
    assert jail.longest(5.0, 0) == []
    assert [jail.running(now) for now in (0.0, 10.0, 100.0, 120.0)] == [3, 2, 1, 0]


def test_who_ends_first_makes_room() -> None:
    """A full jail forgets the ban that ends first, for a new key but not for a replaced ban."""
    jail = Jail(POLICY, max_entries=2)
    jail.add(ALICE, 20.0, 0.0)
    jail.add(BOB, 10.0, 0.0)
    jail.add(ALICE, 30.0, 0.0)
    assert len(jail) == 2
    convict(jail, CAROL, 0.0)
    assert not jail.is_jailed(BOB, 0.0)
    assert jail.is_jailed(ALICE, 0.0)
    assert len(jail) == 2


def test_a_sweep_forgets_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bans that no longer matter are forgotten, the oldest first, a slice at a time."""
    monkeypatch.setattr(jail_module, "FORGET_SLICE", 2)
    jail = Jail(POLICY)
    for number in range(3):
        jail.add(key_of(f"192.0.2.{number}"), 10.0 + number, 0.0)
    convict(jail, BOB, 0.0)
    sizes = []
    for now in (9.9, 12.0, 12.0, 199.9, 200.0):
        jail.sweep(now)
        sizes.append(len(jail))
    assert sizes == [4, 2, 1, 1, 0]


def test_sweeping_forgets_strikes() -> None:
    """A key that was refused once, long ago, uses no memory."""
    jail = Jail(POLICY)
    jail.strike(ALICE, 0.0)
    for now in (0.0, 10.0, 20.0):
        jail.sweep(now)
    assert jail.tracked == 0


def test_changes_are_told_once() -> None:
    """A copy gets each change once: current bans, and keys without any."""
    jail = Jail(POLICY)
    sentence = convict(jail, ALICE, 0.0)
    jail.add(BOB, 1.0, 0.0)
    jail.release(BOB)
    kept, gone = jail.changes()
    assert (kept, gone) == ([sentence], [BOB])
    assert jail.changes() == ([], [])
    jail.sweep(200.0)
    assert jail.changes() == ([], [ALICE])


def test_releases_are_told_once() -> None:
    """Keys that were released by hand are told, but not those whose sentence is over, or that have one again."""
    jail = Jail(POLICY)
    for key in (ALICE, BOB, CAROL):
        convict(jail, key, 0.0)
    jail.release(ALICE)
    jail.release(BOB)
    jail.add(BOB, 5.0, 0.0)
    jail.sweep(250.0)
    assert jail.released() == [ALICE]
    assert jail.released() == []


def test_releases_are_bounded() -> None:
    """Releases that nobody asks for take no more memory than sentences."""
    jail = Jail(POLICY, max_entries=3)
    for number in range(10):
        jail.add(key_of(f"192.0.2.{number}"), 10.0, 0.0)
        jail.release(key_of(f"192.0.2.{number}"))
    assert len(jail.released()) == 3


def test_following_another_jail() -> None:
    """Its sentences replace those here, what it has released is forgotten, and neither is a change."""
    jail = Jail(POLICY)
    convict(jail, ALICE, 0.0)
    jail.add(BOB, 500.0, 0.0)
    jail.changes()
    jail.adopt([Sentence(ALICE, 300.0, 2), Sentence(CAROL, 50.0, 1), Sentence(BOB, -1.0, 0)], [BOB, CAROL], 0.0)
    assert jail.sentence(ALICE, 0.0) == Sentence(ALICE, 300.0, 2)
    assert {entry.key for entry in jail.entries(0.0)} == {ALICE}
    assert (jail.changes(), jail.released()) == (([], []), [])
    assert convict(jail, ALICE, 310.0).times == 3


def test_following_another_jail_is_no_news() -> None:
    """What another jail has released is not told to other servers, and need not be known here."""
    jail = Jail(POLICY)
    jail.keep_news()
    jail.add(ALICE, 500.0, 0.0)
    assert [news.key for news in jail.news()] == [ALICE]
    jail.adopt([Sentence(CAROL, 50.0, 1)], [ALICE, BOB], 0.0)
    assert jail.news() == []
    assert [entry.key for entry in jail.entries(0.0)] == [CAROL]


def test_a_release_elsewhere_without_news() -> None:
    """A sentence that another server has released is forgotten, whether news are kept or not."""
    jail = Jail(POLICY)
    jail.add(ALICE, 500.0, 0.0)
    jail.discard(ALICE)
    jail.discard(BOB)
    assert jail.entries(0.0) == []


def test_following_another_jail_as_a_change() -> None:
    """A jail that others follow in turn notes what it adopts, and what is the same is no change."""
    jail = Jail(POLICY)
    own = jail.add(ALICE, 100.0, 0.0)
    jail.add(BOB, 100.0, 0.0)
    jail.changes()
    jail.adopt([own._replace(until_s=own.until_s + 0.1), Sentence(CAROL, 50.0, 1)], [BOB], 0.0, note=True)
    kept, gone = jail.changes()
    assert ([entry.key for entry in kept], gone, jail.released()) == ([CAROL], [BOB], [BOB])
    jail.adopt([Sentence(CAROL, MAX_DURATION_S * 2, 1)], [], 0.0)
    assert jail.entries(0.0)[-1].until_s == MAX_DURATION_S


def test_changes_come_in_slices_and_are_bounded() -> None:
    """A call returns as many changes as asked for, and the list is bounded if none are fetched."""
    jail = Jail(POLICY, max_entries=3)
    for number in range(10):
        jail.add(key_of(f"192.0.2.{number}"), 10.0, 0.0)
    assert [sum(len(part) for part in jail.changes(2)) for _ in range(3)] == [2, 1, 0]


def test_a_restored_jail_is_the_same_jail() -> None:
    """After a restore running bans go on and ended ones still double; neither is a change."""
    jail = Jail(POLICY)
    convict(jail, ALICE, 0.0)
    jail.add(BOB, 500.0, 0.0)
    copy = Jail(POLICY)
    assert copy.restore(jail.entries(150.0), 150.0) == 2
    assert copy.is_jailed(BOB, 499.0)
    assert convict(copy, ALICE, 150.0).times == 2
    assert [sentence.key for sentence in copy.changes().kept] == [ALICE]


def test_restoring_takes_only_what_matters() -> None:
    """Restored entries that are over, invalid or without room are left out and reported; present bans stay."""
    jail = Jail(POLICY, max_entries=3)
    own = jail.add(ALICE, 10.0, 0.0)
    jail.changes()
    dave, erin, frank = (key_of(f"198.51.100.{number}") for number in range(3))
    offered = [
        Sentence(ALICE, 999.0, 5),
        Sentence(BOB, -100.0, 1),
        Sentence(CAROL, nan, 1),
        Sentence(dave, 50.0, 1),
        Sentence(erin, inf, 1),
        Sentence(frank, 60.0, 1),
    ]
    assert jail.restore(offered, 0.0) == 2
    assert sorted(jail.entries(0.0)) == sorted([own, Sentence(erin, MAX_DURATION_S, 1), Sentence(frank, 60.0, 1)])
    changes = [jail.changes() for _ in range(2)]
    assert changes[0].kept == []
    assert sorted(changes[0].gone) == sorted([BOB, CAROL, dave])


@dataclass
class Model:
    """The jail, written simply and without bounds."""

    struck: dict[AddressKey, list[float]] = field(default_factory=dict)
    sentences: dict[AddressKey, tuple[float, int]] = field(default_factory=dict)

    def times(self, key: AddressKey, now: float) -> int:
        """Return how many bans in a row count now."""
        until_s, times = self.sentences.get(key, (-inf, 0))
        return times if now < until_s + (0 if times == 0 else min(350.0, 100.0 * 2 ** (times - 1))) else 0

    def put(self, key: AddressKey, until_s: float, times: int, room: int) -> None:
        """Enter a ban; if there is no room, forget the one that ends first."""
        if key not in self.sentences and len(self.sentences) >= room:
            del self.sentences[min(self.sentences, key=lambda other: (self.sentences[other][0], other))]
        self.sentences[key] = until_s, times

    def strike(self, key: AddressKey, now: float, room: int) -> tuple[float, int] | None:
        """Note a refusal."""
        if now < self.sentences.get(key, (-inf, 0))[0]:
            return None
        self.struck[key] = [at for at in self.struck.get(key, []) if now - at < 10.0] + [now]
        if len(self.struck[key]) < 3:
            return None
        del self.struck[key]
        times = self.times(key, now) + 1
        self.put(key, now + min(350.0, 100.0 * 2 ** (times - 1)), times, room)
        return self.sentences[key]


class JailMachine(RuleBasedStateMachine):
    """Any operations on a jail, beside the model."""

    ROOM = 6

    def __init__(self) -> None:
        super().__init__()
        self.jail = Jail(POLICY, max_entries=self.ROOM)
        self.model = Model()
        self.copy: dict[AddressKey, Sentence] = {}
        self.now = 0.0

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 10.0, 99.0, 100.0, 350.0, 1_000.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass, and sweep."""
        self.now += seconds
        self.jail.sweep(self.now)
        for key in list(self.model.sentences):
            until_s = self.model.sentences[key][0]
            if self.now >= until_s and not self.model.times(key, self.now):
                del self.model.sentences[key]

    @rule(number=st.integers(0, 2), times=st.integers(1, 4))
    def strike(self, number: int, times: int) -> None:
        """Refuse one of the keys that are counted within the bounds some times."""
        for _ in range(times):
            sentence = self.jail.strike(ALICE + 2 * number, self.now)
            expected = self.model.strike(ALICE + 2 * number, self.now, self.ROOM)
            assert (None if sentence is None else (sentence.until_s, sentence.times)) == expected

    @rule(number=st.integers(0, 9), seconds=st.sampled_from([1.0, 50.0, 500.0]))
    def add(self, number: int, seconds: float) -> None:
        """Jail a key by hand."""
        key = ALICE + 2 * number
        times = self.model.times(key, self.now)
        self.model.put(key, self.now + seconds, times, self.ROOM)
        assert self.jail.add(key, seconds, self.now) == Sentence(key, self.now + seconds, times)

    @rule(number=st.integers(0, 9))
    def release(self, number: int) -> None:
        """Release a key."""
        assert self.jail.release(ALICE + 2 * number) is (self.model.sentences.pop(ALICE + 2 * number, None) is not None)

    @rule()
    def restart(self) -> None:
        """Make the jail anew from the copy that follows its changes; strikes are lost."""
        self.jail = Jail(POLICY, max_entries=self.ROOM)
        self.jail.restore(self.copy.values(), self.now)
        self.model.struck.clear()

    @invariant()
    def same_sentences(self) -> None:
        """The jail, the model and the copy have the same bans."""
        changes = self.jail.changes()
        self.copy |= {sentence.key: sentence for sentence in changes.kept}
        for key in changes.gone:
            self.copy.pop(key, None)
        known = {sentence.key: (sentence.until_s, sentence.times) for sentence in self.copy.values()}
        assert known == self.model.sentences
        assert sorted(self.jail.entries(self.now)) == sorted(self.copy.values())
        jailed = {key for key, (until_s, _) in known.items() if self.now < until_s}
        assert {key for key in known if self.jail.is_jailed(key, self.now)} == jailed
        assert {sentence.key for sentence in self.jail.longest(self.now, self.ROOM)} == jailed
        assert self.jail.running(self.now) == len(jailed)
        assert len(self.jail) == len(known) <= self.ROOM


TestJailMachine = JailMachine.TestCase
TestJailMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# Prefixes

SUBNETS = [key_of(f"2001:db8:1:{number:x}::/64") for number in range(40)]
PREFIX, ELSEWHERE = key_of("2001:db8:1::/48"), key_of("2001:db8:2::/64")


def strike_each(jail: Jail, keys: list[AddressKey], now: float) -> list[Sentence]:
    """Strike once for each, and return the bans that this caused."""
    found = [jail.strike(key, now) for key in keys]
    return [sentence for sentence in found if sentence is not None]


def test_subnets_are_jailed_together() -> None:
    """Four times as many strikes as jail one subnet, each of another one, jail their /48, for longer each time."""
    jail = Jail(POLICY)
    assert strike_each(jail, SUBNETS[:11], 0.0) == []
    assert strike_each(jail, SUBNETS[11:12], 0.0) == [Sentence(PREFIX, 100.0, 1)]
    assert jail.is_jailed(PREFIX, 99.0)
    assert jail.holds(SUBNETS[39], 99.0)
    assert not jail.is_jailed(SUBNETS[39], 99.0)
    assert not jail.holds(ELSEWHERE, 99.0)
    assert not jail.holds(ALICE, 99.0)
    assert strike_each(jail, SUBNETS, 50.0) == []
    assert not jail.holds(SUBNETS[39], 100.0)
    assert strike_each(jail, SUBNETS[:12], 120.0) == [Sentence(PREFIX, 320.0, 2)]
    assert jail.release(PREFIX)
    assert not jail.holds(SUBNETS[39], 121.0)


def test_a_subnet_counts_for_a_tenth_at_most() -> None:
    """Strikes of one subnet count for its /48 up to a tenth of what jails that."""
    jail = Jail(JailPolicy(refusals=40, within_s=10.0, first_s=100.0, longest_s=350.0))
    assert jail.tenth == 4
    for subnet in SUBNETS[:39]:
        assert [jail.strike(subnet, 0.0) for _ in range(39)] == [None] * 39
    assert [jail.strike(SUBNETS[39], 0.0) for _ in range(4)] == [None, None, None, Sentence(PREFIX, 100.0, 1)]


def test_weighty_strikes_of_subnets() -> None:
    """A strike that counts as several does so for the prefix, within that tenth."""
    jail = Jail(JailPolicy(refusals=40, within_s=10.0, first_s=100.0, longest_s=350.0))
    sentences = [sentence for subnet in SUBNETS if (sentence := jail.strike(subnet, 0.0, 9)) is not None]
    assert sentences == [Sentence(PREFIX, 100.0, 1)]
    assert jail.holds(SUBNETS[0], 0.0)


def test_a_strike_that_weighs_more_completes_a_sentence() -> None:
    """Two strikes that count twice jail where three are needed."""
    jail = Jail(POLICY)
    assert jail.strike(ALICE, 0.0, 2) is None
    assert jail.strike(ALICE, 0.0, 2) == Sentence(ALICE, 100.0, 1)


def test_ipv4_neighbours_are_not_jailed_together() -> None:
    """Addresses of a /24 are never jailed together, since they belong to different clients."""
    jail = Jail(POLICY)
    assert strike_each(jail, [key_of(f"192.0.2.{number}/32") for number in range(256)] * 2, 0.0) == []


def test_a_restored_prefix_holds() -> None:
    """After a restart, and under another policy, a jailed /48 is still jailed."""
    jail = Jail(POLICY)
    jail.restore([Sentence(PREFIX, 100.0, 1)], 0.0)
    assert jail.holds(SUBNETS[0], 99.0)
    jail.configure(JailPolicy(refusals=9), 1.0)
    assert jail.holds(SUBNETS[0], 99.0)
    jail.sweep(1_000.0)
    assert len(jail) == 0
    assert not jail.holds(SUBNETS[0], 99.0)


def test_clients_that_are_a_prefix_each() -> None:
    """With --ipv6-prefix 48 or less a client has no prefix around it to be jailed."""
    jail, wide = Jail(POLICY), key_of("2001:db8::/32")
    assert convict(jail, PREFIX, 0.0).key == PREFIX
    assert convict(jail, wide, 0.0).key == wide
    assert not jail.holds(key_of("2001:db8:9::/48"), 0.0)


def test_the_sentence_that_holds_a_client() -> None:
    """It is the client's own, or that of its /48, while it runs; its strikes are counted until there is one."""
    jail = Jail(JailPolicy(refusals=4))
    key, prefix = key_of("2001:db8:1:2::/64"), key_of("2001:db8:1::/48")
    assert jail.sentence(key, 0.0) is None
    jail.strike(key, 0.0)
    assert (jail.strikes(key, 0.0), jail.strikes(prefix, 0.0)) == (1, 0)
    whole = jail.add(prefix, 60.0, 0.0)
    assert jail.sentence(key, 0.0) == whole
    own = jail.add(key, 30.0, 0.0)
    assert jail.sentence(key, 0.0) == own
    assert jail.sentence(key, 30.0) == whole
    assert jail.sentence(key, 60.0) is None


def test_news_are_what_was_passed_here() -> None:
    """What was learnt from others, what was restored, and what has ended is no news."""
    jail = Jail(JailPolicy(refusals=2, first_s=10.0, longest_s=10.0))
    jail.add(100, 5.0, 0.0)
    assert jail.news() == []
    jail.keep_news()
    jail.restore([Sentence(102, 50.0, 1)], 0.0)
    jail.absorb([Sentence(104, 50.0, 1)], 0.0)
    jail.discard(104)
    assert jail.news() == []
    jail.strike(106, 1.0)
    sentence = jail.strike(106, 1.0)
    jail.release(102)
    jail.release(102)
    assert jail.news(1) == [News(106, sentence)]
    assert jail.news() == [News(102, None, Sentence(102, 50.0, 1))]
    for now in (12.0, 30.0):
        jail.sweep(now)
    assert len(jail) == 0
    assert jail.news() == []


def test_a_sentence_of_others_holds_if_it_is_worse() -> None:
    """One that ends earlier changes nothing, a sentence that has ended here does not protect from another."""
    jail = Jail(JailPolicy(first_s=10.0))
    jail.keep_news()
    jail.absorb([Sentence(100, 60.0, 1), Sentence(102, 1.0, 1)], 5.0)
    assert jail.is_jailed(100, 59.0)
    assert not jail.is_jailed(102, 5.0)
    jail.absorb([Sentence(100, 20.0, 1)], 6.0)
    jail.absorb([Sentence(100, 60.5, 1)], 6.0)
    assert jail.entries(6.0) == [Sentence(100, 60.0, 1)]
    jail.absorb([Sentence(100, 80.0, 2)], 65.0)
    assert jail.is_jailed(100, 79.0)
    jail.absorb([Sentence(104, 1e12, 1)], 65.0)
    assert jail.entries(65.0)[-1].until_s == 65.0 + MAX_DURATION_S
    assert {sentence.key for sentence in jail.changes().kept} == {100, 104}
    jail.discard(100)
    jail.discard(100)
    assert not jail.is_jailed(100, 66.0)


def test_a_shorter_sentence_releases_the_longer_one_first() -> None:
    """Others follow a later end only, so they are told of both, whether they have heard of the longer one or not."""
    for is_told in (True, False):
        jail = Jail(JailPolicy())
        jail.keep_news()
        longer = jail.add(100, 500.0, 0.0)
        if is_told:
            jail.news()
        shorter = jail.add(100, 50.0, 0.0)
        assert jail.news() == [News(100, shorter, longer)]
    jail.release(100)
    again = jail.add(100, 60.0, 0.0)
    assert jail.news() == [News(100, again, shorter)]


def test_what_another_process_tells_is_no_news() -> None:
    """A worker does what its supervisor says, and does not tell what it had decided before."""
    jail = Jail(JailPolicy(refusals=2))
    jail.keep_news()
    jail.strike(100, 0.0)
    jail.strike(100, 0.0)
    assert jail.release(100, is_news=False)
    jail.add(102, 60.0, 0.0, is_news=False)
    assert jail.news() == []
    assert jail.released() == [100]
    released = News(104, None, Sentence(104, 60.0, 1))
    jail.retell([released])
    assert not jail.release(104, is_news=False)
    assert jail.news() == [released]


def test_a_release_elsewhere_is_named() -> None:
    """So those who keep a copy of this jail follow."""
    jail = Jail(POLICY)
    jail.add(ALICE, 500.0, 0.0)
    jail.discard(ALICE)
    assert jail.released() == [ALICE]
