"""The registry: which binary holds a server-id, which ones wait, and which peers are closed with what."""

from __future__ import annotations

import pytest

from pyryrelay.pyry.registry import (
    CLOSES,
    TRANSITIONS,
    Claimed,
    Close,
    CloseCause,
    Effect,
    Probe,
    Registered,
    Registry,
    RegistryError,
    SlotEvent,
    State,
    Vacated,
    conn_id_for,
)

A = "server-a"
B = "server-b"
BINARY, CHALLENGER, THIRD = 1, 2, 3
PHONE, OTHER_PHONE = 11, 12


def closed(peer: int, cause: CloseCause) -> Close:
    return Close(peer, *CLOSES[cause], cause)


CONFLICT = Close(CHALLENGER, 4409, "server-id already claimed", CloseCause.CONFLICT)
EVICTED = Close(PHONE, 4404, "binary reclaimed server-id", CloseCause.RECLAIMED)
TAKEN_OVER = Close(BINARY, 1011, "heartbeat timeout", CloseCause.TAKEN_OVER)
LEFT_OVER = Close(PHONE, 1000, "", CloseCause.GRACE_EXPIRED)
VACATED = Vacated(A)


@pytest.fixture
def registry() -> Registry:
    """One server-id, held by BINARY since 0.0 and with PHONE registered."""
    registry = Registry()
    assert registry.claim(A, BINARY, 0.0) == [Claimed(BINARY)]
    assert registry.join(A, PHONE, "p", 0.0) == [Registered(PHONE, "p")]
    return registry


@pytest.fixture
def probed(registry: Registry) -> Registry:
    """The same, with a challenger waiting since 1.0 while BINARY is probed."""
    assert registry.claim(A, CHALLENGER, 1.0) == [Probe(BINARY, A)]
    return registry


@pytest.fixture
def in_grace(registry: Registry) -> Registry:
    """The same, with BINARY lost at 1.0."""
    assert registry.binary_lost(A, BINARY, 1.0) == []
    return registry


# Claims


def test_the_first_claim_wins(registry: Registry) -> None:
    """The first claim of a vacant server-id holds it at once."""
    assert registry.state(A) is State.HELD
    assert registry.holder(A) == BINARY
    assert registry.next_deadline() is None


def test_server_ids_do_not_know_each_other(registry: Registry) -> None:
    """Claims and phones of one server-id do not affect another."""
    assert registry.claim(B, CHALLENGER, 1.0) == [Claimed(CHALLENGER)]
    assert registry.phone(B, "p") is None
    assert registry.join(B, OTHER_PHONE, "p", 1.0) == [Registered(OTHER_PHONE, "p")]
    assert (registry.phone(A, "p"), registry.phone(B, "p")) == (PHONE, OTHER_PHONE)
    assert (registry.binaries, registry.phone_count, len(registry)) == (2, 2, 2)


def test_a_second_claim_probes_the_incumbent(probed: Registry) -> None:
    """The incumbent has 10 s to answer, and keeps the server-id and its phones meanwhile."""
    assert probed.state(A) is State.PROBED
    assert probed.holder(A) == BINARY
    assert probed.next_deadline() == 11.0
    assert probed.tick(10.9) == []
    assert probed.phone(A, "p") == PHONE
    assert probed.binaries == 1


def test_an_incumbent_that_answers_keeps_the_slot(probed: Registry) -> None:
    """If the incumbent answers, the challenger is closed with 4409 and the probe is over."""
    assert probed.answered(A, BINARY, 2.0) == [CONFLICT]
    assert probed.state(A) is State.HELD
    assert probed.holder(A) == BINARY
    assert probed.next_deadline() is None
    assert probed.phone(A, "p") == PHONE


def test_an_answer_that_is_late_but_first_counts(probed: Registry) -> None:
    """A late answer counts if it is reported before the tick, since a busy relay may read it late."""
    assert probed.answered(A, BINARY, 99.0) == [CONFLICT]
    assert probed.tick(99.0) == []


def test_an_incumbent_that_does_not_answer_is_taken_over(probed: Registry) -> None:
    """The incumbent is closed with 1011 and its phones with 4404, then the challenger holds the server-id."""
    assert probed.tick(11.0) == [TAKEN_OVER, EVICTED, Claimed(CHALLENGER)]
    assert probed.state(A) is State.HELD
    assert probed.holder(A) == CHALLENGER
    assert (probed.binaries, probed.phone_count) == (1, 0)


def test_a_busy_relay_gives_the_incumbent_its_time_again(probed: Registry) -> None:
    """If the relay was too busy to read an answer, the probe gets its time again; graces go on."""
    probed.claim(B, THIRD, 1.0)
    probed.binary_lost(B, THIRD, 1.0)
    effects = probed.tick(40.0, restart_probes=True)
    assert effects == [Vacated(B)]
    assert (probed.state(A), probed.state(B)) == (State.PROBED, State.VACANT)
    assert probed.next_deadline() == 50.0
    assert TAKEN_OVER in probed.tick(50.0)


def test_a_binary_that_was_taken_over_arms_no_grace(probed: Registry) -> None:
    """The loss and the late answer of the old binary do not affect the new holder."""
    probed.tick(11.0)
    assert probed.binary_lost(A, BINARY, 12.0) == []
    assert probed.answered(A, BINARY, 12.0) == []
    assert probed.holder(A) == CHALLENGER
    assert probed.next_deadline() is None


def test_a_challenger_that_was_refused_is_forgotten(probed: Registry) -> None:
    """The later loss of a refused challenger changes nothing."""
    probed.answered(A, BINARY, 2.0)
    assert probed.binary_lost(A, CHALLENGER, 3.0) == []
    assert probed.state(A) is State.HELD


def test_challengers_wait_for_one_probe(probed: Registry) -> None:
    """Further challengers neither start nor prolong a probe, and one answer refuses all."""
    assert probed.claim(A, THIRD, 9.0) == []
    assert probed.next_deadline() == 11.0
    assert probed.answered(A, BINARY, 9.5) == [CONFLICT, closed(THIRD, CloseCause.CONFLICT)]


def test_the_first_challenger_takes_over(probed: Registry) -> None:
    """The first challenger takes over, and those behind it are closed with 4409."""
    probed.claim(A, THIRD, 9.0)
    assert probed.tick(11.0) == [TAKEN_OVER, EVICTED, Claimed(CHALLENGER), closed(THIRD, CloseCause.CONFLICT)]


def test_the_first_challenger_reclaims_when_the_incumbent_is_lost(probed: Registry) -> None:
    """If a probed incumbent is lost, its challenger reclaims without a grace."""
    probed.claim(A, THIRD, 9.0)
    assert probed.binary_lost(A, BINARY, 9.5) == [EVICTED, Claimed(CHALLENGER), closed(THIRD, CloseCause.CONFLICT)]
    assert probed.next_deadline() is None
    assert probed.tick(11.0) == []


def test_a_challenger_may_leave(probed: Registry) -> None:
    """If a challenger leaves, the next one is first and the probe goes on."""
    probed.claim(A, THIRD, 9.0)
    assert probed.binary_lost(A, CHALLENGER, 9.5) == []
    assert probed.state(A) is State.PROBED
    assert probed.tick(11.0) == [TAKEN_OVER, EVICTED, Claimed(THIRD)]


def test_a_probe_ends_with_its_last_challenger(probed: Registry) -> None:
    """A probe ends when its last challenger leaves, and the incumbent stays."""
    assert probed.binary_lost(A, CHALLENGER, 2.0) == []
    assert probed.state(A) is State.HELD
    assert probed.next_deadline() is None
    assert probed.claim(A, THIRD, 5.0) == [Probe(BINARY, A)]
    assert probed.next_deadline() == 15.0


def test_only_the_incumbent_answers(probed: Registry) -> None:
    """A pong of a challenger, of an unknown peer or without a probe is ignored."""
    assert probed.answered(A, CHALLENGER, 2.0) == []
    assert probed.answered(B, BINARY, 2.0) == []
    assert probed.state(A) is State.PROBED
    probed.answered(A, BINARY, 2.0)
    assert probed.answered(A, BINARY, 2.0) == []


def test_a_peer_claims_once(probed: Registry) -> None:
    """A second claim of the same peer is the caller's error, and changes nothing."""
    for peer in (BINARY, CHALLENGER):
        with pytest.raises(RegistryError):
            probed.claim(A, peer, 2.0)
    assert probed.answered(A, BINARY, 2.0) == [CONFLICT]


# Grace


def test_a_lost_binary_leaves_a_grace(in_grace: Registry) -> None:
    """For 30 s the phones stay and new ones may register, although no binary holds the server-id."""
    assert in_grace.state(A) is State.GRACE
    assert in_grace.holder(A) is None
    assert in_grace.next_deadline() == 31.0
    assert in_grace.tick(30.9) == []
    assert in_grace.join(A, OTHER_PHONE, "q", 30.9) == [Registered(OTHER_PHONE, "q")]
    assert (in_grace.binaries, in_grace.phone_count, len(in_grace)) == (0, 2, 1)


def test_a_claim_within_the_grace_reclaims(in_grace: Registry) -> None:
    """A reclaim closes the phones, since a restarted daemon has lost its cipher state."""
    assert in_grace.claim(A, CHALLENGER, 30.0) == [EVICTED, Claimed(CHALLENGER)]
    assert (in_grace.holder(A), in_grace.phone_count, in_grace.binaries) == (CHALLENGER, 0, 1)
    assert in_grace.next_deadline() is None
    assert in_grace.grace_expiries == 0


def test_a_grace_expires(in_grace: Registry) -> None:
    """When the grace expires, phones are closed with 1000 and the slot is gone."""
    assert in_grace.tick(31.0) == [LEFT_OVER, VACATED]
    assert in_grace.state(A) is State.VACANT
    assert (in_grace.grace_expiries, in_grace.phone_count, len(in_grace)) == (1, 0, 0)
    assert in_grace.next_deadline() is None
    assert in_grace.binary_lost(A, BINARY, 32.0) == []
    assert in_grace.phone_lost(A, "p") == []
    assert in_grace.claim(A, CHALLENGER, 32.0) == [Claimed(CHALLENGER)]


def test_a_holder_is_lost_once(in_grace: Registry) -> None:
    """A second report of a loss does not prolong the grace."""
    assert in_grace.binary_lost(A, BINARY, 20.0) == []
    assert in_grace.next_deadline() == 31.0


def test_no_grace_expires_at_once(registry: Registry) -> None:
    """With a grace of 0 the loss of the holder ends the slot in the same call."""
    registry.grace_s = 0.0
    assert registry.binary_lost(A, BINARY, 1.0) == [LEFT_OVER, VACATED]
    assert (registry.binaries, registry.phone_count, len(registry)) == (0, 0, 0)
    assert registry.grace_expiries == 1
    assert registry.next_deadline() is None


def test_a_grace_may_be_shorter_than_a_second(registry: Registry) -> None:
    """A grace below a second is a grace; only 0 is none."""
    registry.grace_s = 0.5
    assert registry.binary_lost(A, BINARY, 1.0) == []
    assert registry.next_deadline() == 1.5
    assert registry.tick(1.25) == []
    assert registry.tick(1.5) == [LEFT_OVER, VACATED]


def test_a_new_grace_length_holds_from_then_on(in_grace: Registry) -> None:
    """A change of ``grace_s`` does not affect a running grace."""
    in_grace.grace_s = 5.0
    assert in_grace.next_deadline() == 31.0
    in_grace.claim(A, CHALLENGER, 2.0)
    in_grace.binary_lost(A, CHALLENGER, 3.0)
    assert in_grace.next_deadline() == 8.0


def test_tick_fires_all_that_is_due() -> None:
    """Due deadlines fire in their order, across server-ids, and later ones stay."""
    registry = Registry(grace_s=4.0, probe_s=2.0)
    for peer, server_id in enumerate((A, B, "server-c"), start=100):
        registry.claim(server_id, peer, 0.0)
    registry.binary_lost(B, 101, 1.0)
    registry.claim(A, CHALLENGER, 2.0)
    registry.binary_lost("server-c", 102, 3.0)
    registry.join(B, PHONE, "p", 3.0)
    assert registry.next_deadline() == 4.0
    assert registry.tick(6.0) == [
        closed(100, CloseCause.TAKEN_OVER),
        Claimed(CHALLENGER),
        LEFT_OVER,
        Vacated(B),
    ]
    assert registry.next_deadline() == 7.0


# Phones


def test_a_phone_needs_a_binary() -> None:
    """A phone without a binary is closed with 4404, even where the cap is reached too."""
    registry = Registry(max_phones=0)
    assert registry.join(A, PHONE, "p", 0.0) == [Close(PHONE, 4404, "no server with that id", CloseCause.NO_SERVER)]
    assert len(registry) == 0


def test_phones_are_capped(registry: Registry) -> None:
    """The 17th phone is closed with 4429; one that leaves makes room; the cap may change at any time."""
    for number in range(1, 16):
        registry.join(A, 100 + number, f"p{number}", 1.0)
    refused = [Close(OTHER_PHONE, 4429, "too many phones for server-id", CloseCause.TOO_MANY_PHONES)]
    assert registry.join(A, OTHER_PHONE, "q", 1.0) == refused
    assert registry.phone_count == 16
    assert not registry.has_conn_id(A, "q")
    registry.phone_lost(A, "p")
    assert registry.join(A, OTHER_PHONE, "q", 1.0) == [Registered(OTHER_PHONE, "q")]
    registry.max_phones = 1
    assert registry.phone_count == 16
    assert registry.join(A, PHONE, "r", 1.0) == [closed(PHONE, CloseCause.TOO_MANY_PHONES)]


def test_one_source_cannot_keep_others_out(registry: Registry) -> None:
    """A source may take all places, and its newest phones give way to other sources until each has its share."""
    registry.phone_lost(A, "p")
    for number in range(16):
        assert len(registry.join(A, 100 + number, f"s{number}", 1.0, "first")) == 1
    assert registry.join(A, 200, "s16", 1.0, "first") == [closed(200, CloseCause.TOO_MANY_PHONES)]
    displaced = Close(115, 4429, "too many phones for server-id", CloseCause.DISPLACED)
    assert registry.join(A, 300, "f0", 2.0, "second") == [displaced, Registered(300, "f0")]
    assert registry.phone_count == len(registry.phones(A)) == 16
    assert not registry.has_conn_id(A, "s15")
    assert registry.join(A, 201, "s17", 2.0, "first") == [closed(201, CloseCause.TOO_MANY_PHONES)]
    for number in range(1, 8):
        effects = registry.join(A, 300 + number, f"f{number}", 2.0, "second")
        assert effects == [closed(115 - number, CloseCause.DISPLACED), Registered(300 + number, f"f{number}")]
    assert registry.join(A, 308, "f8", 2.0, "second") == [closed(308, CloseCause.TOO_MANY_PHONES)]
    # A phone of another source still gets a place: that of the source that was first to hold the most.
    assert registry.join(A, 400, "o", 3.0, "office") == [closed(107, CloseCause.DISPLACED), Registered(400, "o")]
    assert registry.phone_count == 16


@pytest.mark.parametrize("sources", ["aaaa", "aabb", "abcd"])
def test_no_phone_gives_way_to_an_equal(sources: str) -> None:
    """A phone is refused if it would only change places with another."""
    registry = Registry(max_phones=4)
    registry.claim(A, BINARY, 0.0)
    for number, source in enumerate(sources):
        registry.join(A, 100 + number, f"p{number}", 0.0, source)
    assert registry.join(A, 200, "q", 1.0, "a") == [closed(200, CloseCause.TOO_MANY_PHONES)]
    most = max(map(sources.count, sources))
    effects = registry.join(A, 201, "r", 1.0, "z")
    assert len(effects) == (2 if most > 1 else 1)


@pytest.mark.parametrize("max_phones", [0, 1])
def test_a_place_that_cannot_be_shared(max_phones: int) -> None:
    """A single place stays with its phone, and with no place every phone is refused."""
    registry = Registry(max_phones=max_phones)
    registry.claim(A, BINARY, 0.0)
    registry.join(A, PHONE, "p", 0.0, "a")
    assert registry.join(A, OTHER_PHONE, "q", 0.0, "b") == [closed(OTHER_PHONE, CloseCause.TOO_MANY_PHONES)]


def test_a_lowered_cap_displaces_no_phone(registry: Registry) -> None:
    """With more phones than the cap, one that leaves makes no room, and a new one displaces none."""
    for number in range(4):
        registry.join(A, 100 + number, f"s{number}", 1.0, "first")
    registry.max_phones = 2
    assert registry.join(A, 200, "q", 1.0, "second") == [closed(200, CloseCause.TOO_MANY_PHONES)]
    assert registry.phone_count == 5


def test_phones_register_while_the_incumbent_is_probed(probed: Registry) -> None:
    """Phones that join during a probe belong to the incumbent, and are closed with it."""
    assert probed.join(A, OTHER_PHONE, "q", 2.0) == [Registered(OTHER_PHONE, "q")]
    assert probed.tick(11.0) == [TAKEN_OVER, EVICTED, closed(OTHER_PHONE, CloseCause.RECLAIMED), Claimed(CHALLENGER)]


def test_a_conn_id_is_used_once(registry: Registry) -> None:
    """Joining with a conn_id in use is the caller's error; once its phone has left, it is free."""
    assert registry.has_conn_id(A, "p")
    with pytest.raises(RegistryError):
        registry.join(A, OTHER_PHONE, "p", 1.0)
    assert registry.phone(A, "p") == PHONE
    registry.phone_lost(A, "p")
    assert not registry.has_conn_id(A, "p")
    assert registry.join(A, OTHER_PHONE, "p", 1.0) == [Registered(OTHER_PHONE, "p")]


def test_phones_are_listed_by_arrival(registry: Registry) -> None:
    """The list of phones is a copy, which closing phones does not change."""
    registry.join(A, OTHER_PHONE, "q", 1.0)
    phones = registry.phones(A)
    registry.phone_lost(A, "p")
    assert list(phones) == [PHONE, OTHER_PHONE]
    assert list(registry.phones(A)) == [OTHER_PHONE]
    assert list(registry.phones(B)) == []


def test_losing_an_unknown_phone_is_harmless(registry: Registry) -> None:
    """The loss of an unknown conn_id or server-id is no error, and is not counted."""
    assert registry.phone_lost(A, "unknown") == []
    assert registry.phone_lost(B, "p") == []
    assert registry.phone_count == 1
    assert registry.phone_lost(A, "p") == []
    assert registry.phone_lost(A, "p") == []
    assert registry.phone_count == 0


def test_an_unknown_server_id_is_vacant() -> None:
    """Asking about an unknown server-id creates nothing."""
    registry = Registry()
    assert registry.state(A) is State.VACANT
    assert registry.holder(A) is None
    assert registry.phone(A, "p") is None
    assert registry.binary_lost(A, BINARY, 0.0) == []
    assert registry.tick(0.0) == []
    assert len(registry) == 0


def test_conn_ids_name_their_server_id() -> None:
    """A conn_id is ``client-<server-id>-<8 hex>``, as phones and daemons expect."""
    assert conn_id_for('a"b', "0123abcd") == 'client-a"b-0123abcd'


def test_probes_that_are_called_off_take_no_memory() -> None:
    """However often probes end early, deadlines stay in proportion to live ones."""
    registry = Registry()
    registry.claim(A, BINARY, 0.0)
    for peer in range(1000, 2000):
        registry.claim(A, peer, 0.0)
        registry.binary_lost(A, peer, 0.0)
    assert len(registry._deadlines) <= 20


# The table


def test_every_transition_can_happen() -> None:
    """Each row of the table is reached, leads to its state, and has effects only if it says so."""

    def reach(registry: Registry, state: State) -> None:
        if state is not State.VACANT:
            registry.claim(A, BINARY, 0.0)
        if state is State.PROBED:
            registry.claim(A, CHALLENGER, 0.0)
        if state is State.GRACE:
            registry.binary_lost(A, BINARY, 0.0)

    def cause(registry: Registry, event: SlotEvent) -> list[Effect]:
        if event is SlotEvent.CLAIM:
            return registry.claim(A, THIRD, 1.0)
        if event is SlotEvent.ANSWERED:
            return registry.answered(A, BINARY, 1.0)
        if event in (SlotEvent.UNANSWERED, SlotEvent.EXPIRED):
            return registry.tick(100.0)
        if event is SlotEvent.MOVED:
            return registry.move(A, 1.0)
        if event is SlotEvent.HELD_ELSEWHERE:
            return registry.evict(A, 1.0)
        return registry.binary_lost(A, CHALLENGER if event is SlotEvent.CHALLENGERS_LOST else BINARY, 1.0)

    for (state, event), transition in TRANSITIONS.items():
        registry = Registry()
        reach(registry, state)
        assert registry.state(A) is state
        effects = cause(registry, event)
        assert registry.state(A) is transition.target
        is_silent = transition.action in {"wait", "cancel_probe", "start_grace"}
        assert bool(effects) != is_silent
        assert (effects[-1:] == [VACATED]) is (transition.target is State.VACANT)


def test_a_slot_that_moves() -> None:
    """Moving a slot closes its binaries and its phones with 1001, once, and leaves nothing behind."""
    registry = Registry()
    registry.claim(A, BINARY, 0.0)
    registry.join(A, 7, "conn", 0.0)
    registry.claim(A, CHALLENGER, 0.0)
    assert registry.server_ids() == [A]
    effects = registry.move(A, 1.0)
    assert [(effect.peer, effect.code) for effect in effects if isinstance(effect, Close)] == [
        (BINARY, 1001),
        (CHALLENGER, 1001),
        (7, 1001),
    ]
    assert (registry.binaries, registry.phone_count, len(registry), registry.next_deadline()) == (0, 0, 0, None)
    assert effects[-1] == VACATED
    assert registry.binary_lost(A, BINARY, 2.0) == registry.move(A, 2.0) == []


def test_a_slot_that_is_given_up(probed: Registry) -> None:
    """If another process has the server-id, binaries are closed with 1011 and phones with 4404, once."""
    assert probed.evict(A, 2.0) == [
        closed(BINARY, CloseCause.HELD_ELSEWHERE),
        closed(CHALLENGER, CloseCause.HELD_ELSEWHERE),
        EVICTED,
        VACATED,
    ]
    assert CLOSES[CloseCause.HELD_ELSEWHERE][0] == 1011
    assert (probed.binaries, probed.phone_count, len(probed), probed.next_deadline()) == (0, 0, 0, None)
    assert probed.binary_lost(A, BINARY, 2.0) == probed.evict(A, 2.0) == []
    assert probed.claim(A, THIRD, 3.0) == [Claimed(THIRD)]
