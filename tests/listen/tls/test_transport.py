"""TLS below HTTP connections: handshakes, records, turns and endings, with clients in memory."""

from __future__ import annotations

import gc
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.frames import CLOSE, close_frame, frame
from tests.support.harness import PATH, World, request_head
from tests.support.tls_peers import TLS_1_2, TLS_1_3, KeyUpdates, TlsPeer, Turns, client_context
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from pyryrelay.guard import CidrSet, GateConfig, Quota, ThrottlePolicy
from pyryrelay.http.connection import MAX_BELOW_BYTES
from pyryrelay.listen.tls import transport as tls
from pyryrelay.listen.tls.records import MAX_RECORD_BYTES

both_versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


def texts(session: Any) -> list[bytes]:
    """Return the payloads of the messages that the application got."""
    return [data for data, _ in session.received]


def chunks(peer: TlsPeer) -> list[bytes]:
    """Record what the protocol above gets from now on."""
    seen: list[bytes] = []
    protocol, received = peer.protocol.wrappedProtocol, peer.protocol.wrappedProtocol.dataReceived

    def note(data: bytes) -> None:
        seen.append(data)
        received(data)

    protocol.dataReceived = note
    return seen


def is_stopped(peer: TlsPeer) -> bool:
    """Tell whether the socket is not read from."""
    return not peer.transport.reading


# Handshakes


@both_versions
def test_an_upgrade_and_frames(version: ssl.TLSVersion) -> None:
    """Data passes unchanged in both directions, in any number of records."""
    world = World()
    peer = TlsPeer(world, client_context(version))
    session = peer.upgrade()
    assert peer.tls.version() == {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}[version]
    big = b'"' + b"x" * 100_000 + b'"'
    peer.feed(peer.encrypted(frame(b"1"), frame(big)))
    assert texts(session) == [b"1", big]
    session.peer.send([big, b"2"])
    answer = peer.read()
    assert big in answer
    assert answer.endswith(b"\x81\x012")
    peer.protocol.connectionLost()
    world.assert_empty()


@settings(max_examples=50, deadline=None)
@given(data=st.data(), version=st.sampled_from([TLS_1_2, TLS_1_3]))
def test_any_split(data: st.DataObject, version: ssl.TLSVersion) -> None:
    """The outcome is the same however the bytes of a connection are cut."""
    world = World()
    peer = TlsPeer(world, client_context(version))

    def feed(flight: bytes) -> None:
        cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(flight) - 1)), max_size=8)))
        for start, end in zip([0, *cuts], [*cuts, len(flight)], strict=True):
            peer.feed(flight[start:end])

    for flight in peer.flights():
        feed(flight)
    feed(peer.encrypted(request_head(), frame(b"1"), frame(b"2")))
    feed(peer.encrypted(frame(b"3")) + peer.encrypted(close_frame(1000)) + peer.close_notify())
    (session,) = world.application.sessions
    assert texts(session) == [b"1", b"2", b"3"]
    assert session.closes == [(1000, "")]
    assert peer.read().endswith(b"\x88\x02\x03\xe8")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"x" * 20,
        b"\x16\x03\x01\x00\x00",
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        bytes(range(256)),
        b"\x80\x2e\x01\x00\x02",
    ],
)
def test_what_is_no_handshake(data: bytes) -> None:
    """A peer that does not speak TLS is closed, at once or at its deadline, without an HTTP answer."""
    world = World()
    peer = TlsPeer(world)
    peer.feed(data)
    world.pass_time(6.0)
    assert b"HTTP" not in peer.transport.taken
    assert peer.transport.disconnecting or peer.transport.aborted
    peer.transport.settle()
    world.assert_empty()


RECORDS = st.lists(
    st.builds(
        lambda kind, body, lie: bytes([kind, 3, 3]) + (len(body) + lie).to_bytes(2, "big") + body,
        st.sampled_from([20, 21, 22, 23, 24, 0, 255]),
        st.binary(max_size=40),
        st.sampled_from([0, 0, 0, 1, 20_000]),
    ),
    max_size=6,
).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), RECORDS), size=st.integers(1, 50), is_shaken=st.booleans())
def test_anything(data: bytes, size: int, is_shaken: bool) -> None:
    """Arbitrary bytes in pieces of any size, before a handshake or after it, end the connection or wait for more."""
    world = World()
    peer = TlsPeer(world)
    if is_shaken:
        peer.shake_hands()
    for start in range(0, len(data), size):
        if peer.transport.reading:
            peer.feed(data[start : start + size])
    assert len(peer.protocol._unread) <= MAX_RECORD_BYTES
    world.pass_time(8.0)
    peer.transport.settle()
    peer.transport.lose()
    assert len(peer.turns.queue) == 0
    world.assert_empty()


def test_nothing_is_made_before_anything_has_come() -> None:
    """A connection that is silent, or aborted before its first byte, uses no OpenSSL object."""
    world = World()
    peer = TlsPeer(world)
    assert not peer.transport.taken
    peer.protocol.write(b"too early")
    peer.protocol.loseConnection()
    assert peer.transport.aborted
    assert not peer.transport.taken
    peer.transport.settle()
    assert len(peer.turns.queue) == 0
    world.assert_empty()


def test_work_before_a_request_is_bounded(tmp_path: Path) -> None:
    """The bytes that TLS may need before a request are bounded, and more are a strike."""
    world = World()
    peer = TlsPeer(world, client_context(keys=str(tmp_path / "keys")))
    peer.shake_hands()
    updates = KeyUpdates(tmp_path / "keys", 0)
    sent = 0
    while not peer.transport.aborted:
        block = b"".join(updates.record() for _ in range(100))
        sent += len(block)
        peer.feed(block)
    assert MAX_BELOW_BYTES - 8192 < sent < MAX_BELOW_BYTES + 8192
    assert world.gate.tracked == 1
    peer.transport.settle()
    world.assert_empty()


# Records


def test_the_records_of_one_read_are_handed_on_together() -> None:
    """Bytes of one read are parsed at once, however small the records are."""
    world = World()
    peer = TlsPeer(world)
    session = peer.upgrade()
    seen = chunks(peer)
    data = frame(b"1") * 40
    peer.feed(peer.encrypted(*(bytes([byte]) for byte in data)))
    assert seen == [data]
    assert len(session.batches) == 1
    assert texts(session) == [b"1"] * 40


def test_what_tls_needs_is_charged_too() -> None:
    """The quota of bytes is for those on the wire: a byte in a record of its own counts as 23."""
    world = World(throttle=ThrottlePolicy(bytes=Quota.parse("1/s burst 4000")))
    peer = TlsPeer(world)
    session = peer.upgrade()
    data = frame(b"1") * 20
    peer.feed(peer.encrypted(data))
    assert peer.transport.reading
    peer.feed(peer.encrypted(*(bytes([byte]) for byte in data)))
    assert peer.transport.reading
    peer.feed(peer.encrypted(*(bytes([byte]) for byte in frame(b"1") * 20)))
    assert is_stopped(peer)
    assert texts(session) == [b"1"] * 60


def test_records_that_carry_nothing_count_like_pings(tmp_path: Path) -> None:
    """Key updates count for the quota of pings, although they have no plaintext."""
    world = World(throttle=ThrottlePolicy(pings=Quota.parse("10/minute")))
    peer = TlsPeer(world, client_context(keys=str(tmp_path / "keys")))
    session = peer.upgrade()
    peer.feed(peer.encrypted(frame(b"1")))
    updates = KeyUpdates(tmp_path / "keys", 2)
    for _ in range(10):
        peer.feed(updates.record())
    assert peer.transport.reading
    peer.feed(updates.record())
    assert is_stopped(peer)
    world.pass_time(12.5)
    assert peer.transport.reading
    session.peer.send([b"2"])
    assert b"\x81\x012" in peer.read()


def test_data_and_key_updates_in_one_read(tmp_path: Path) -> None:
    """Only records without data count, and those of a handshake or a ticket never do."""
    world = World(throttle=ThrottlePolicy(pings=Quota.parse("1/hour burst 2")))
    peer = TlsPeer(world, client_context(keys=str(tmp_path / "keys")))
    session = peer.upgrade()
    data = peer.encrypted(*[frame(b"1")] * 50)
    updates = KeyUpdates(tmp_path / "keys", 51)
    peer.feed(data + updates.record() + updates.record())
    assert peer.transport.reading
    assert len(texts(session)) == 50


class Reader(ProtocolWrapper):
    """A layer between TLS and HTTP that records what it gets, such as one that reads PROXY headers."""

    def __init__(self, inner: Any) -> None:
        super().__init__(WrappingFactory(Factory()), inner)
        self.seen: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        """Record it, and pass it on."""
        self.seen.append(data)
        super().dataReceived(data)  # type: ignore[no-untyped-call]


def test_layers_in_between_are_handed_nothing_but_data(tmp_path: Path) -> None:
    """Layers between get data only, and key updates are charged to the innermost protocol all the same."""
    world = World(throttle=ThrottlePolicy(pings=Quota.parse("1/hour burst 2")))
    peer = TlsPeer(world, client_context(keys=str(tmp_path / "keys")))
    reader = Reader(peer.protocol.wrappedProtocol)
    reader.transport = peer.protocol
    peer.protocol.wrappedProtocol = reader
    peer.shake_hands()
    assert reader.seen == []
    peer.feed(peer.encrypted(request_head()))
    # The upgrade has replaced the transport's protocol: put the new one behind the layer again.
    reader.wrappedProtocol, peer.protocol.wrappedProtocol = peer.protocol.wrappedProtocol, reader
    updates = KeyUpdates(tmp_path / "keys", 1)
    peer.feed(b"".join(updates.record() for _ in range(5)))
    assert reader.seen == [request_head()]
    assert is_stopped(peer)


# Turns


@pytest.fixture
def expensive() -> tuple[World, TlsPeer, Any]:
    """An upgraded peer whose records begin to cost a millisecond for each slice."""
    world = World()
    peer = TlsPeer(world)
    session = peer.upgrade()
    peer.turns.step_s = 0.001
    return world, peer, session


def test_what_costs_much_is_decrypted_in_turns(expensive: tuple[World, TlsPeer, Any]) -> None:
    """A turn decrypts a part, reading waits for the rest, and everything arrives in order."""
    _, peer, session = expensive
    payloads = [b"%d" % number for number in range(3000)]
    peer.feed(peer.encrypted(*map(frame, payloads)), turns=False)
    turns = 0
    while peer.turns.jobs:
        assert not peer.transport.reading
        assert len(texts(session)) < len(payloads)
        peer.turns.run()
        turns += 1
    assert turns > 3
    assert peer.transport.reading
    assert texts(session) == payloads


def test_a_peer_is_queued_once_however_often_it_is_resumed(expensive: tuple[World, TlsPeer, Any]) -> None:
    """A peer is queued once, however often it is resumed."""
    world, peer, session = expensive

    def bounce(session: Any, batch: Any) -> None:
        session.peer.pause()
        session.peer.resume()

    world.application.on_messages = bounce
    payloads = [b"%d" % number for number in range(1000)]
    peer.feed(peer.encrypted(*map(frame, payloads)), turns=False)
    while peer.turns.jobs:
        (share,) = peer.turns.queue._shares.values()
        assert len(share._jobs or ()) == 1
        peer.turns.run()
    assert texts(session) == payloads


def test_handshakes_take_turns() -> None:
    """A turn makes as many handshakes as it has time for, and the others wait."""
    world, turns = World(), Turns()
    peers = [TlsPeer(world, turns=turns, host=f"192.0.2.{number}") for number in range(1, 9)]
    turns.step_s = 0.01
    for peer in peers:
        peer.feed(peer.hello(), turns=False)
    answered = [sum(bool(peer.transport.taken) for peer in peers)]
    while turns.jobs:
        turns.run()
        answered.append(sum(bool(peer.transport.taken) for peer in peers))
    assert answered[0] < 3
    assert answered[-1] == len(peers)
    assert len(answered) >= len(peers) // 2
    turns.step_s = 0.0
    peers[-1].read()
    peers[-1].upgrade()


def test_an_address_with_many_handshakes_waits_for_one_with_few() -> None:
    """Handshakes take turns by address, so that a single one is served before the rest of many."""
    world, turns = World(), Turns()
    many = [TlsPeer(world, turns=turns, host="192.0.2.1") for _ in range(20)]
    one = TlsPeer(world, turns=turns, host="192.0.2.2")
    turns.step_s = 0.01
    for peer in (*many, one):
        peer.feed(peer.hello(), turns=False)
    while not one.transport.taken:
        turns.run()
    assert sum(bool(peer.transport.taken) for peer in many) < 5


@pytest.mark.parametrize("gone", ["lost", "aborted", "closed"])
def test_a_peer_that_leaves_while_it_waits(expensive: tuple[World, TlsPeer, Any], gone: str) -> None:
    """The turn of a peer that has left does nothing."""
    world, peer, _ = expensive
    peer.feed(peer.encrypted(*[frame(b"1")] * 3000), turns=False)
    assert peer.turns.jobs
    if gone == "lost":
        peer.transport.lose()
    elif gone == "aborted":
        peer.protocol.abortConnection()
    else:
        peer.protocol.loseConnection()
    peer.turns.run_all(world)
    assert not peer.protocol._unread
    peer.transport.lose()
    assert len(peer.turns.queue) == 0
    world.assert_empty()


def test_work_for_a_peer_that_is_gone_is_bounded(
    expensive: tuple[World, TlsPeer, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a peer left behind is given up after some milliseconds of expensive work."""
    world, peer, session = expensive
    peer.feed(peer.encrypted(*[frame(b"1")] * 3000), turns=False)
    monkeypatch.setattr(tls, "has_hung_up", lambda transport: True)
    turns = 0
    while peer.turns.jobs:
        peer.turns.run()
        turns += 1
    assert 2 <= turns < 10
    assert peer.transport.aborted
    assert 0 < len(texts(session)) < 3000
    peer.transport.settle()
    world.assert_empty()


def test_a_peer_that_may_be_gone_is_probed(expensive: tuple[World, TlsPeer, Any]) -> None:
    """An expensive peer gets a pong now and then, which a socket without an owner answers with a reset."""
    world, peer, _ = expensive
    peer.feed(peer.encrypted(*[frame(b"1")] * 3000), turns=False)
    peer.turns.run_all(world)
    assert peer.read().startswith(b"\x8a\0")


# Pausing and ending


def test_a_paused_peer_is_heard_when_it_is_resumed() -> None:
    """Data, close frame and close_notify of one read wait as in a socket, and are processed in that order."""
    world = World()
    peer = TlsPeer(world)
    session = peer.upgrade()
    world.application.on_messages = lambda session, batch: session.peer.pause()
    peer.feed(peer.encrypted(frame(b"1")))
    session.peer.resume()
    peer.turns.run_all(world)
    world.application.on_messages = lambda session, batch: None
    session.peer.pause()
    peer.protocol.dataReceived(peer.encrypted(frame(b"2"), frame(b"3"), close_frame(1000)) + peer.close_notify())
    peer.turns.run_all(world)
    assert texts(session) == [b"1"]
    assert not session.closes
    assert not peer.transport.reading
    session.peer.resume()
    peer.turns.run_all(world)
    assert texts(session) == [b"1", b"2", b"3"]
    assert session.closes == [(1000, "")]
    assert peer.read().endswith(b"\x88\x02\x03\xe8")
    assert peer.has_ended


@both_versions
@pytest.mark.parametrize("notifies", [True, False])
def test_all_that_came_before_the_end_is_delivered(version: ssl.TLSVersion, notifies: bool) -> None:
    """Messages, close frame, close_notify and the end of TCP in one read are processed one after the other."""
    world = World()
    peer = TlsPeer(world, client_context(version))
    session = peer.upgrade()
    data = peer.encrypted(*(frame(b"%d" % number) for number in range(5000)), close_frame(1001, b"bye"))
    peer.feed(data + (peer.close_notify() if notifies else b""))
    assert len(texts(session)) == 5000
    assert session.closes == [(1001, "bye")]
    answer = peer.read()
    assert answer[0] & 0x0F == CLOSE
    assert peer.has_ended
    peer.transport.lose()
    world.assert_empty()


def test_messages_and_a_close_notify_without_a_close_frame() -> None:
    """After messages and close_notify without a close frame, the session ends abnormally and TCP ends."""
    world = World()
    peer = TlsPeer(world)
    session = peer.upgrade()
    peer.feed(peer.encrypted(frame(b"1")) + peer.close_notify())
    assert texts(session) == [b"1"]
    assert peer.transport.disconnecting
    peer.read()
    assert peer.has_ended
    peer.transport.settle()
    assert session.closes == [(1006, "")]
    world.assert_empty()


@pytest.mark.parametrize("size", [1000, 200_000])
@pytest.mark.parametrize("goes_on", [lambda session: None, lambda session: session.peer.pause()])
def test_a_close_notify_of_a_peer_that_takes_nothing(size: int, goes_on: Any) -> None:
    """After a close_notify the session ends at once, as without TLS, and the connection even with unsent data."""
    world = World()
    peer = TlsPeer(world)
    session = peer.upgrade()
    peer.transport.peer_reads = False
    session.peer.send([b"x" * size])
    peer.feed(peer.close_notify())
    assert session.closes == [(1006, "")]
    goes_on(session)
    session.peer.send([b"not taken"])
    world.pass_time(2 * world.factory.context.limits.close_timeout_s)
    assert peer.transport.aborted
    peer.protocol.connectionLost()
    assert len(session.closes) == 1
    world.assert_empty()


@both_versions
def test_a_request_with_a_close_notify_behind_it(version: ssl.TLSVersion) -> None:
    """A request with a close_notify right behind it is answered."""
    world = World()
    peer = TlsPeer(world, client_context(version))
    peer.shake_hands()
    peer.feed(peer.encrypted(request_head("/healthz")) + peer.close_notify())
    assert peer.read().startswith(b"HTTP/1.1 200 ")
    assert peer.has_ended


def test_a_damaged_record() -> None:
    """Data before a damaged record is delivered; then there is an alert, and the end."""
    world = World()
    peer = TlsPeer(world)
    session = peer.upgrade()
    good, damaged = peer.encrypted(frame(b"1")), bytearray(peer.encrypted(frame(b"2")))
    damaged[-1] ^= 1
    peer.feed(good + damaged)
    assert texts(session) == [b"1"]
    assert peer.transport.disconnecting
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        peer.read()
    peer.transport.settle()
    assert session.closes == [(1006, "")]
    world.assert_empty()


def test_a_connection_leaves_nothing_for_the_garbage_collector() -> None:
    """An ended connection has no reference cycles: those of ten thousand would hold up the reactor."""
    world = World()
    peer = TlsPeer(world)
    peer.upgrade()
    peer.transport.lose()
    factory = peer.factory
    world.application.sessions.clear()
    world.accepted.clear()
    del peer
    gc.collect()
    gc.disable()
    try:
        another = TlsPeer(world, factory=factory)
        another.upgrade()
        another.transport.lose()
        world.application.sessions.clear()
        world.accepted.clear()
        another.transport.protocol = None
        del another
        assert not [one for one in gc.get_objects() if isinstance(one, tls.TlsTransport)]
    finally:
        gc.enable()


def test_the_denied_are_answered_behind_a_handshake() -> None:
    """A denied client gets the usual 403."""
    world = World(gate=GateConfig(deny=CidrSet(["0.0.0.0/0"])))
    peer = TlsPeer(world)
    peer.shake_hands()
    peer.feed(peer.encrypted(request_head(PATH)))
    assert peer.read().startswith(b"HTTP/1.1 403 ")
