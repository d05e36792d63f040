"""What a binary sends: envelopes to its own phones, and push wakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.pyry import A, B, Link, World, assert_closed, assert_open, envelope

from pyryrelay.guard import Quota
from pyryrelay.pyry.envelope import PushWake
from pyryrelay.pyry.sessions import LATE_S, MAX_DEPARTED

TOKEN = b"a-token-that-must-stay-secret"


def dropped(world: World) -> dict[str, int]:
    """Return the envelopes that were dropped, by kind."""
    return {str(kind): count for kind, count in world.counters.envelopes_dropped.items() if count}


@pytest.mark.parametrize("frame", [b'{ "a" : [1,\n2] }', b"1.50", b"false", b'"null"', b'"\\ud83d"', '"é"'.encode()])
def test_an_envelope_is_unwrapped_verbatim(world: World, binary: Link, phone: Link, frame: bytes) -> None:
    """Only the addressed phone gets the frame's bytes, as one message."""
    others = [world.phone(), world.binary(B), world.phone(B)]
    binary.says(envelope(phone.conn_id, frame))
    assert phone.peer.batches == [[frame]]
    assert [other.peer.sent for other in [binary, *others]] == [[], [], [], []]
    assert world.counters.binary_to_phone == 1
    assert dropped(world) == {}


def test_a_close_code_comes_after_its_frame(world: World, binary: Link, phone: Link) -> None:
    """The frame is sent before the close, and the phone is unregistered by then."""
    binary.says(envelope(phone.conn_id, b"1", 4401))
    assert phone.peer.done == ["send", "close"]
    assert phone.peer.sent == [b"1"]
    assert_closed(phone.peer, 4401)
    assert world.registry.phone_count == 0
    phone.drops(4401)
    assert world.events.named("unregistered") == [("unregistered", A, phone.conn_id, 4401)]


@pytest.mark.parametrize("frame", [None, b"null"])
def test_a_close_code_alone(world: World, binary: Link, phone: Link, frame: bytes | None) -> None:
    """Without a frame, or with null, nothing is sent before the close."""
    binary.says(envelope(phone.conn_id, frame, 1000))
    assert phone.peer.done == ["close"]
    assert_closed(phone.peer, 1000)
    assert world.counters.binary_to_phone == 0


def test_envelopes_of_one_chunk_are_one_send_for_each_phone(world: World, binary: Link, phone: Link) -> None:
    """Frames of one chunk for one phone are sent at once, in order, whatever is between them."""
    sibling = world.phone()
    binary.says(
        envelope(phone.conn_id, b"1"),
        envelope(sibling.conn_id, b"2"),
        b"nope",
        envelope(phone.conn_id, b"3"),
        envelope("unknown", b"4"),
        envelope(phone.conn_id, b"5"),
    )
    assert phone.peer.batches == [[b"1", b"3", b"5"]]
    assert sibling.peer.batches == [[b"2"]]
    assert world.counters.binary_to_phone == 4
    assert dropped(world) == {"malformed": 1, "unknown_conn_id": 1}


def test_what_was_delivered_is_not_delivered_again(world: World, binary: Link, phone: Link) -> None:
    """Each chunk delivers its own frames only, however short later envelopes are."""
    binary.says(envelope(phone.conn_id, b"1"), envelope(phone.conn_id, b"2"))
    binary.says(envelope(phone.conn_id, b"3"))
    binary.says(envelope(phone.conn_id, b"4"), envelope(phone.conn_id, b"5", close_code=1000))
    assert phone.peer.batches == [[b"1", b"2"], [b"3"], [b"4", b"5"]]
    assert world.counters.binary_to_phone == 5


def test_a_close_code_takes_along_what_was_sent_before(world: World, binary: Link, phone: Link) -> None:
    """Frames of the same chunk before a close are delivered in the same write."""
    binary.says(envelope(phone.conn_id, b"1"), envelope(phone.conn_id, b"2", 4000))
    assert phone.peer.batches == [[b"1", b"2"]]
    assert phone.peer.done == ["send", "close"]


def test_a_closed_phone_is_unknown_at_once(world: World, binary: Link, phone: Link) -> None:
    """An envelope to a phone that the same chunk has closed is dropped, and the rest of the chunk is not."""
    sibling = world.phone()
    binary.says(
        envelope(phone.conn_id, b"1", 4000),
        envelope(phone.conn_id, b"2"),
        envelope(phone.conn_id, close_code=4001),
        envelope(sibling.conn_id, b"3"),
    )
    assert phone.peer.sent == [b"1"]
    assert_closed(phone.peer, 4000)
    assert sibling.peer.sent == [b"3"]
    assert dropped(world) == {"unknown_conn_id": 2}


def test_a_server_id_addresses_its_own_phones_only(world: World, binary: Link, phone: Link) -> None:
    """A conn_id of another server-id is unknown, and no envelope can close its phone."""
    other_binary = world.binary(B)
    other_binary.says(envelope(phone.conn_id, b"1"), envelope(phone.conn_id, b"2", 4000))
    assert phone.peer.done == []
    assert dropped(world) == {"unknown_conn_id": 2}
    assert world.events.named("envelope_dropped") == [("envelope_dropped", B, "unknown_conn_id", 2)]
    assert_open(other_binary.peer)


def test_a_phone_that_left_is_unknown(world: World, binary: Link, phone: Link) -> None:
    """The conn_id of a phone that left is unknown."""
    phone.drops()
    binary.says(envelope(phone.conn_id, b"1"))
    assert phone.peer.sent == []
    assert dropped(world) == {"unknown_conn_id": 1}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b'{"conn_id":1,"frame":1}', "malformed"),
        (b'{"conn_id":"CONN","frame":1,"close_code":"4000"}', "malformed"),
        (b'{"frame":1}', "missing_conn_id"),
        (b'{"conn_id":"","frame":1}', "missing_conn_id"),
        (b'{"conn_id":"CONN"}', "nothing_to_do"),
        (b'{"conn_id":"CONN","frame":null,"close_code":0}', "nothing_to_do"),
        (b'{"conn_id":"CONN","frame":1,"close_code":1005}', "bad_close_code"),
        (b'{"conn_id":"CONN","frame":1,"close_code":999}', "bad_close_code"),
        (b'{"conn_id":"CONN ","frame":1}', "unknown_conn_id"),
    ],
)
def test_an_envelope_that_cannot_be_delivered(
    world: World, binary: Link, phone: Link, message: bytes, kind: str
) -> None:
    """It is counted, logged without its content and dropped; both peers stay, and the next one is delivered."""
    binary.says(message.replace(b"CONN", phone.conn_id.encode()), envelope(phone.conn_id, b"1"))
    assert phone.peer.sent == [b"1"]
    assert dropped(world) == {kind: 1}
    assert world.events.named("envelope_dropped") == [("envelope_dropped", A, kind, 1)]
    assert_open(binary.peer)
    assert_open(phone.peer)


def test_unknown_fields_are_ignored(binary: Link, phone: Link) -> None:
    """A token or any other field beside a frame changes nothing."""
    binary.says(b'{"token":"t","x":[1],"frame":7,"conn_id":"%s"}' % phone.conn_id.encode())
    assert phone.peer.sent == [b"7"]


def test_an_envelope_in_a_binary_message(world: World, binary: Link, phone: Link) -> None:
    """An envelope in a binary message is delivered like one in text; bytes that are no UTF-8 are malformed."""
    binary.says(envelope(phone.conn_id, b"1"), envelope(phone.conn_id, b'"\xff"'), binary=True)
    assert phone.peer.sent == [b"1"]
    assert dropped(world) == {"malformed": 1}


def test_a_challenger_addresses_no_phone(world: World, binary: Link, phone: Link) -> None:
    """Envelopes of a challenger are dropped as unknown, counted and logged, until it holds the server-id."""
    challenger = world.binary()
    challenger.says(envelope(phone.conn_id, b"1"), envelope(phone.conn_id, close_code=4000))
    assert phone.peer.done == []
    assert dropped(world) == {"unknown_conn_id": 2}
    assert ("envelope_dropped", A, "unknown_conn_id", 2) in world.events.log
    world.clock.advance(10)
    fresh = world.phone()
    challenger.says(envelope(fresh.conn_id, b"2"))
    assert fresh.peer.sent == [b"2"]


def test_a_binary_that_was_taken_over_addresses_no_phone(world: World, binary: Link, phone: Link) -> None:
    """A binary that was taken over reaches no phone of its successor, whose conn_id it might know."""
    world.binary()
    world.clock.advance(10)
    fresh = world.phone()
    binary.says(envelope(fresh.conn_id, b"1", 4000))
    assert fresh.peer.done == []


# The quota of dropped envelopes

QUOTA = Quota(60, 60.0, 5)
BAD = b"{}"


@pytest.fixture
def strict() -> World:
    """A world with a quota of five at once, then one a second."""
    world = World()
    world.relay.dropped_envelope_quota = QUOTA
    return world


def test_a_binary_that_sends_too_many_bad_envelopes_is_closed(strict: World) -> None:
    """The binary is closed by the first bad envelope over its quota; deliverable ones are free."""
    binary, phone = strict.binary(), strict.phone()
    binary.says(*[BAD] * 3)
    binary.says(envelope("unknown", b"1"), envelope(phone.conn_id, b"1"), BAD)
    assert_open(binary.peer)
    strict.clock.advance(2)
    binary.says(BAD, b"", envelope(phone.conn_id, b"2"))
    assert_open(binary.peer)
    binary.says(envelope(phone.conn_id, b"3"), BAD)
    assert_closed(binary.peer, 1008, "too many undeliverable envelopes")
    assert phone.peer.sent == [b"1", b"2", b"3"]


def test_a_challenger_pays_too(strict: World) -> None:
    """A challenger pays for all its envelopes, which are dropped."""
    strict.binary()
    challenger = strict.binary()
    challenger.says(*[BAD] * 6)
    assert_closed(challenger.peer, 1008, "too many undeliverable envelopes")


def test_each_connection_has_a_quota_of_its_own(strict: World) -> None:
    """The quota of one connection does not affect another."""
    first, second = strict.binary(A), strict.binary(B)
    first.says(*[BAD] * 5)
    second.says(*[BAD] * 5)
    assert_open(first.peer)
    assert_open(second.peer)


def test_envelopes_that_were_on_their_way_cost_nothing(strict: World) -> None:
    """Envelopes to a phone that has just left cost nothing, and count after a while."""
    binary, phone = strict.binary(), strict.phone()
    phone.drops()
    binary.says(*[envelope(phone.conn_id, b"1")] * 100)
    assert dropped(strict) == {"unknown_conn_id": 100}
    strict.clock.advance(LATE_S)
    binary.says(*[envelope(phone.conn_id, b"1")] * 100)
    assert_open(binary.peer)
    strict.clock.advance(0.1)
    binary.says(*[envelope(phone.conn_id, b"1")] * 6)
    assert_closed(binary.peer, 1008, "too many undeliverable envelopes")
    assert dropped(strict) == {"unknown_conn_id": 206}


def test_as_many_phones_as_a_binary_can_have_are_remembered(strict: World) -> None:
    """The number of remembered phones is bounded, and the oldest are forgotten first."""
    binary, left = strict.binary(), []
    for _ in range(MAX_DEPARTED + 1):
        left.append(strict.phone())
        left[-1].drops()
    binary.says(*[envelope(phone.conn_id, b"1") for phone in left[1:]])
    assert_open(binary.peer)
    binary.says(*[envelope(left[0].conn_id, b"1")] * 6)
    assert_closed(binary.peer, 1008, "too many undeliverable envelopes")


def test_push_wakes_are_no_bad_envelopes(strict: World) -> None:
    """Push wakes do not count for the quota of bad envelopes."""
    binary = strict.binary()
    binary.says(*[b'{"push_wake":{"platform":"fcm","token":"t"}}'] * 100)
    assert_open(binary.peer)
    assert strict.events.named("push_wake_dropped") == [("push_wake_dropped", A, 100)]


def test_without_a_quota_no_binary_is_closed(world: World, binary: Link) -> None:
    """Without a quota no binary is closed, and drops are counted and logged once for each batch and kind."""
    binary.says(*[BAD, b"nope"] * 2000)
    assert_open(binary.peer)
    assert dropped(world) == {"missing_conn_id": 2000, "malformed": 2000}
    assert len(world.events.named("envelope_dropped")) == 2


# Push wakes


def test_a_push_wake_is_dropped_and_logged(world: World, binary: Link) -> None:
    """Without a sender, a push wake is counted apart and logged without its token."""
    binary.says(b'{"push_wake":{"platform":"fcm","token":"%s"}}' % TOKEN)
    assert world.counters.push_wakes["dropped"] == 1
    assert world.events.named("push_wake_dropped") == [("push_wake_dropped", A, 1)]
    assert dropped(world) == {}
    assert_open(binary.peer)
    assert TOKEN.decode() not in repr((world.events.log, world.counters))


class Sender:
    """Records the wakes that it is to send, and how to report that their tokens are dead."""

    def __init__(self) -> None:
        self.wakes: list[tuple[str, str, str, int]] = []
        self.reports: list[Callable[[], None]] = []

    def wake(self, server_id: str, wake: PushWake, connection: int, report_dead: Callable[[], None]) -> None:
        self.wakes.append((server_id, wake.platform, wake.token, connection))
        self.reports.append(report_dead)


def test_a_push_wake_is_sent(world: World, binary: Link) -> None:
    """With a sender, it gets the wakes of the binary that holds the server-id, in order, and none is dropped."""
    world.relay.wakes = sender = Sender()
    challenger = world.binary()
    challenger.says(b'{"push_wake":{"platform":"fcm","token":"stolen"}}')
    binary.says(b'{"push_wake":{"platform":"fcm","token":"a"}}', b'{"push_wake":{"platform":"x","token":""}}')
    assert sender.wakes == [(A, "fcm", "a", 1), (A, "x", "", 1)]
    assert world.counters.push_wakes["dropped"] == 0


def test_a_dead_token_is_reported_to_its_binary(world: World, binary: Link) -> None:
    """The binary that asked is told, in the documented form, and nobody else."""
    world.relay.wakes = sender = Sender()
    phone = world.phone()
    binary.says(b'{"push_wake":{"platform":"fcm","token":"\\u00e9\\""}}')
    sender.reports[0]()
    assert binary.peer.sent == [
        '{"push_wake_result":{"platform":"fcm","token":"é\\"","outcome":"unregistered"}}'.encode()
    ]
    assert phone.peer.sent == []


def test_a_dead_token_is_not_reported_to_others(world: World, binary: Link) -> None:
    """A binary that takes the server-id over meanwhile did not ask, and is told nothing of another's tokens."""
    world.relay.wakes = sender = Sender()
    binary.says(b'{"push_wake":{"platform":"fcm","token":"a"}}')
    binary.drops()
    sender.reports[0]()
    follower = world.binary()
    sender.reports[0]()
    assert binary.peer.sent == follower.peer.sent == []


@pytest.mark.parametrize("wake", [b"1", b"{}", b'{"platform":"fcm"}', b'{"platform":"fcm","token":1}'])
def test_a_malformed_push_wake(world: World, binary: Link, wake: bytes) -> None:
    """A malformed push wake is a malformed envelope."""
    binary.says(b'{"push_wake":%s}' % wake)
    assert dropped(world) == {"malformed": 1}
    assert world.counters.push_wakes["dropped"] == 0


# Whatever is sent


@given(
    st.lists(st.binary() | st.sampled_from([b"{}", b"1", b'{"conn_id":"x","frame":1}', b'"\\ud800"'])), st.booleans()
)
def test_a_binary_may_send_anything(messages: list[bytes], binary_messages: bool) -> None:
    """Whatever a binary sends, nothing raises, no peer is closed, and every message is counted as something."""
    world = World()
    binary, phone = world.binary(), world.phone()
    binary.says(*messages, binary=binary_messages)
    assert_open(binary.peer)
    assert_open(phone.peer)
    assert world.counters.push_wakes["dropped"] + sum(dropped(world).values()) == len(messages)
