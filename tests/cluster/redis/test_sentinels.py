"""Sentinels: who answers, and what each calls the primary."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pyryrelay.cluster.redis.interface import DownError
from pyryrelay.cluster.redis.sentinels import Sentinels, reason_of
from pyryrelay.config.options.redis_url import RedisHost

HOSTS = (RedisHost("s1", 26379), RedisHost("s2", 26379), RedisHost("s3", 26379))
PRIMARY, OTHER = RedisHost("p", 6379), RedisHost("q", 6379)


class Group:
    """Three sentinels with the answers of a test, and whom they were asked."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.answers: dict[RedisHost, Any] = dict.fromkeys(HOSTS, PRIMARY)
        self.asked: list[str] = []
        self.sentinels = Sentinels(HOSTS, "mymaster", self.ask, self.clock.seconds)

    def ask(self, host: RedisHost) -> Deferred[RedisHost]:
        """Answer, or fail."""
        self.asked.append(host.host)
        answer = self.answers[host]
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def primary(self) -> Any:
        """Return the primary, or the error."""
        found: list[Any] = []
        self.sentinels.primary().addBoth(lambda value: found.append(getattr(value, "value", value)))
        return found[0]

    def states(self) -> list[tuple[str, str, float, int]]:
        """Return problem, primary, beginning and failures of each."""
        return [(each.problem, each.primary, each.since, each.failures) for each in self.sentinels.all]


def test_the_one_that_answered_last_is_asked_first() -> None:
    """One that does not goes to the end, and is known to be away."""
    group = Group()
    group.answers[HOSTS[0]] = DownError("s1:26379: Connection refused")
    group.clock.advance(7.0)
    assert group.primary() == PRIMARY
    assert group.primary() == PRIMARY
    assert group.asked == ["s1", "s2", "s2"]
    assert group.states() == [("Connection refused", "", 7.0, 1), ("", "p:6379", 0.0, 0), ("", "", 0.0, 0)]


def test_nobody_knows_the_primary() -> None:
    """The error has what the last one said."""
    group = Group()
    group.answers = dict.fromkeys(HOSTS, DownError("no such name: mymaster"))
    error = group.primary()
    assert isinstance(error, DownError)
    assert str(error) == "no sentinel knows 'mymaster' (no such name: mymaster)"


def test_a_look_asks_all() -> None:
    """What is wrong with one is nothing to the others, whatever it is; since when is remembered."""
    group = Group()
    group.answers[HOSTS[1]] = ValueError("nonsense")
    group.answers[HOSTS[2]] = OTHER
    for _ in range(3):
        group.clock.advance(10.0)
        group.sentinels.look()
    assert group.states() == [("", "p:6379", 0.0, 0), ("nonsense", "", 10.0, 3), ("", "q:6379", 0.0, 0)]
    group.answers[HOSTS[1]] = PRIMARY
    group.sentinels.look()
    assert group.states()[1] == ("", "p:6379", 10.0, 0)


def test_looks_do_not_pile_up() -> None:
    """One that takes long is waited for."""
    group = Group()
    group.answers[HOSTS[0]] = late = Deferred[Any]()
    group.sentinels.look()
    group.sentinels.look()
    assert group.asked == ["s1", "s2", "s3"]
    late.callback(PRIMARY)
    group.answers[HOSTS[0]] = PRIMARY
    group.sentinels.look()
    assert len(group.asked) == 6


def test_reasons_are_short() -> None:
    """A file is named, and an error without a text is its class."""
    assert reason_of(FileNotFoundError(2, "No such file or directory", "/x")) == "/x: No such file or directory"
    assert reason_of(ValueError()) == "ValueError"
