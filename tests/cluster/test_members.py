"""Who is in the cluster."""

from __future__ import annotations

from tests.support.fake_redis import FakeServer

from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.members import Members
from pyryrelay.cluster.redis.interface import AnswerError

KEYS = Keys("relay", b"0123456789abcdefghij")


def test_the_answer_of_the_server_counts() -> None:
    """A failure changes nothing, and there is always this member itself."""
    server = FakeServer()
    wire = server.begin()
    members = Members(server.client, KEYS, b"me")
    members.meet()
    assert wire.asked[-1][3:7] == [b"pyry:relay:{0}members", b"pyry:relay:{0}mark", b"me", b"10000"]
    wire.answer(b"*2\r\n:3\r\n:0\r\n")
    assert (members.count, members.is_secret_shared) == (3, False)
    failures: list[object] = []
    members.meet().addErrback(failures.append)
    wire.answer(b"-NOPERM no\r\n")
    assert failures[0].check(AnswerError)  # type: ignore[attr-defined]
    assert members.count == 3
    members.meet()
    wire.answer(b"*2\r\n:0\r\n:1\r\n")
    assert (members.count, members.is_secret_shared) == (1, True)
