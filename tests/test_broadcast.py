"""What a protocol can rely on when it tells other relays something, on servers in memory."""

from __future__ import annotations

import pytest
from tests.support.broadcasts import PAGE, FakeBroadcast, FakeServers, NotingListener
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from pyryrelay.broadcast import MAX_BODY_BYTES, Broadcast, BroadcastError
from pyryrelay.protocol import Services


def followed(servers: FakeServers, positions: dict[str, str] | None = None) -> tuple[FakeBroadcast, NotingListener]:
    """Return a member, and what it hears."""
    member, listener = servers.member(), NotingListener()
    member.follow(positions or {}, listener)
    servers.settle()
    return member, listener


def test_the_fake_is_a_broadcast() -> None:
    """Protocols get it as they get the real one; by default there is none."""
    made: Broadcast = FakeServers(Clock()).member()
    assert made is not None
    assert Services.__dataclass_fields__["broadcast"].default is None


def test_others_get_each_entry_in_order_and_the_sender_none() -> None:
    """All entries of one server arrive in order, and own ones only move the position."""
    servers = FakeServers(Clock())
    (a, heard_by_a), (_, heard_by_b) = followed(servers), followed(servers)
    done = [a.add(b"key", b"%d" % number) for number in range(2 * PAGE + 1)]
    servers.settle()
    assert all(each.called for each in done)
    assert heard_by_b.bodies == a.added
    assert heard_by_a.bodies == []
    assert heard_by_a.positions == heard_by_b.positions != {}


def test_a_new_reader_begins_with_the_oldest_entry_and_an_old_one_where_it_stopped() -> None:
    """A position is good for another start."""
    servers = FakeServers(Clock())
    a, _ = followed(servers)
    a.add(b"key", b"1")
    (b, heard) = followed(servers)
    b.stop()
    a.add(b"key", b"2")
    servers.settle()
    assert heard.bodies == [b"1"]
    assert followed(servers)[1].bodies == [b"1", b"2"]
    assert followed(servers, heard.positions)[1].bodies == [b"2"]


def test_nothing_more_is_read_until_the_listener_is_ready() -> None:
    """This is how a slow disk slows reading down; a failure brings the same entries again."""
    clock = Clock()
    servers = FakeServers(clock)
    (a, _), (_, heard) = followed(servers), followed(servers)
    heard.answer = Deferred()
    for body in (b"1", b"2"):
        a.add(b"key", body)
        servers.settle()
    assert heard.bodies == [b"1"]
    waiting, heard.answer = heard.answer, None
    waiting.callback(None)
    servers.settle()
    assert heard.bodies == [b"1", b"2"]
    heard.answer = fail(BroadcastError("test"))
    a.add(b"key", b"3")
    servers.settle()
    heard.answer = None
    clock.advance(1.0)
    servers.settle()
    assert heard.bodies == [b"1", b"2", b"3", b"3"]


def test_a_server_that_is_down_refuses_and_tells_when_it_is_back() -> None:
    """Nothing is tried again: the protocol adds it anew."""
    servers = FakeServers(Clock())
    (a, heard_by_a), (_, heard) = followed(servers), followed(servers)
    a.add(b"key", b"1")
    servers.down()
    late, refused = a.add(b"key", b"2"), a.add(b"key", b"x" * (MAX_BODY_BYTES + 1))
    servers.settle()
    for failed in (late, refused):
        assert failed.result.check(BroadcastError)  # type: ignore[attr-defined]
        failed.addErrback(lambda failure: None)
    servers.up()
    a.add(b"key", b"2")
    servers.settle()
    assert heard.bodies == [b"2"]
    assert heard_by_a.told == ["connected"] * 2


@pytest.mark.parametrize(("fault", "again", "times"), [("restart_empty", [b"2"], 2), ("lose_newest", [b"1", b"2"], 1)])
def test_a_server_that_lost_entries_is_read_from_the_oldest(fault: str, again: list[bytes], times: int) -> None:
    """Whatever it has is new, or does no harm. One that is empty is told of again when it has entries."""
    servers = FakeServers(Clock())
    (a, _), (_, heard) = followed(servers), followed(servers)
    for body in (b"1", b"2"):
        a.add(b"key", body)
        servers.settle()
    if fault == "restart_empty":
        servers.restart_empty()
    else:
        servers.lose_newest(1)
    a.add(b"key", b"2")
    servers.settle()
    assert heard.bodies == [b"1", b"2", *again]
    assert heard.told == ["connected", "connected", *["lost 0 0"] * times]


def test_entries_that_were_trimmed_unread_are_missed() -> None:
    """A member that was cut off for too long is told, and goes on."""
    servers = FakeServers(Clock())
    (a, _), (b, heard) = followed(servers), followed(servers)
    a.add(b"key", b"0")
    servers.settle()
    b.cut()
    for body in (b"1", b"2", b"3"):
        servers.clock.advance(10.0)
        a.add(b"key", body)
        servers.settle()
    servers.trim(2)
    b.heal()
    servers.settle()
    assert heard.bodies == [b"0", b"2", b"3"]
    assert heard.told == ["connected", "connected", "missed 0 30 10"]


def test_forged_entries_are_passed_and_repeated_ones_have_their_age() -> None:
    """The sender vouches for the time at which an entry was made."""
    clock = Clock()
    servers = FakeServers(clock)
    (a, _), (_, heard) = followed(servers), followed(servers)
    a.add(b"key", b"1")
    servers.settle()
    before = heard.positions["0"]
    servers.forge()
    servers.settle()
    assert heard.positions["0"] != before
    clock.advance(60.0)
    servers.repeat()
    servers.settle()
    assert (heard.bodies, heard.ages) == ([b"1", b"1"], [0.0, 60.0])


def test_keys_choose_among_servers() -> None:
    """Each server is a source of its own, and one that is down does not stop the others."""
    servers = FakeServers(Clock(), 2)
    (a, _), (_, heard) = followed(servers), followed(servers)
    servers.down(1)
    done = [a.add(bytes([number]), b"%d" % number) for number in (0, 1)]
    servers.settle()
    assert heard.bodies == [b"0"]
    assert done[1].result.check(BroadcastError)  # type: ignore[attr-defined]
    done[1].addErrback(lambda failure: None)
    assert set(heard.positions) == {"0"}


def test_after_the_end_nothing_is_heard_or_added() -> None:
    """`stop` is final."""
    servers = FakeServers(Clock())
    (a, _), (b, heard) = followed(servers), followed(servers)
    a.add(b"key", b"1")
    b.stop()
    servers.settle()
    assert (heard.bodies, heard.told) == ([], ["connected"])
    refused = b.add(b"key", b"2")
    assert refused.result.check(BroadcastError)  # type: ignore[attr-defined]
    refused.addErrback(lambda failure: None)
