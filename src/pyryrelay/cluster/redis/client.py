"""A Redis server as `Redis` describes it: connected again whenever it can be, and never waited for.

While the server is down, calls fail at once, and a connection is tried each `FIRST_RETRY_S` to `LAST_RETRY_S`. A
connection is used when the server has said that it is the right kind of server, is no replica, and answers. What it
says later against that (it became a replica, it loads its data) ends the connection, and so does an answer that does
not fit its question: those that follow would not, either. Once a second the client asks for
the server's time, so a server that has stopped is noticed although nobody calls it. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from pyryrelay.cluster.redis.answers import are_words, is_number
from pyryrelay.cluster.redis.connecting import Connector, login_of
from pyryrelay.cluster.redis.connection import Connection, Surroundings
from pyryrelay.cluster.redis.figures import Figures
from pyryrelay.cluster.redis.hello import Server, problem_of_error, server_of
from pyryrelay.cluster.redis.interface import (
    CALL_TIMEOUT_S,
    AnswerError,
    Argument,
    DownError,
    RedisError,
    Script,
)
from pyryrelay.cluster.redis.sentinels import Sentinels, reason_of
from pyryrelay.config.options.redis_url import RedisUrl

__all__ = ["FIRST_RETRY_S", "LAST_RETRY_S", "LOOK_S", "ReactorSurroundings", "RedisClient", "client_of"]

_MISFIT: Final = "an answer does not fit what was asked"
FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 1.0
LOOK_S: Final = 1.0


class ReactorSurroundings:
    """What a client needs of the process, from its reactor. ``wall`` is the machine's clock, in seconds since 1970."""

    def __init__(self, reactor: Any, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self.now = now
        self.wall = wall
        self.call_later = reactor.callLater


class RedisClient:
    """One server. ``changed`` is called with "" when it can be used, and with the reason each time it cannot.

    `start` begins to connect, `stop` ends for ever. ``login`` returns the first command on a connection, and may raise
    `OSError` if a file cannot be read. ``timeout_s`` is the deadline of each call.
    """

    def __init__(
        self,
        connect: Callable[[Connection], Deferred[str]],
        login: Callable[[], tuple[Argument, ...]],
        surroundings: Surroundings,
        changed: Callable[[str], object],
        name: str = "",
        database: int = 0,
        wall: Callable[[], float] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.name = name
        self.figures = Figures()
        self.server: Server | None = None
        """What the server said of itself on the last connection that could be used."""
        self.problem = "it is not connected yet"
        """Why the server cannot be used; "" if it can."""
        self.place = ""
        """Where the connection leads that could be used last: host and port, which sentinels change, or a path."""
        self.used_since = 0.0
        """When that connection began."""
        self.sentinels: Sentinels | None = None
        """Those that know where the server is, if the URL names some."""
        self.ahead_s: float | None = None
        self.connections = 0
        self._connect = connect
        self._login = login
        self._surroundings = surroundings
        self._changed = changed
        self._database = database
        self._wall = wall or surroundings.now
        self._timeout_s = timeout_s
        self._connection: Connection | None = None
        self._sent: set[str] = set()
        self._retry_s = FIRST_RETRY_S
        self._timer: IDelayedCall | None = None
        self._is_stopped = True

    @property
    def is_up(self) -> bool:
        """Whether there is a connection that can be used."""
        return not self.problem

    # Life

    def start(self) -> None:
        """Begin to connect."""
        self._is_stopped = False
        self._attempt()

    def stop(self) -> None:
        """End the connection, and make no other one. Calls fail from now on."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            self._connection.abort("this relay stops")
        self.problem = "this relay stops"

    def _attempt(self) -> None:
        self._timer = None
        connection = Connection(self._surroundings, self.figures.answered, self._lost, self._timeout_s)
        self._connection = connection
        self._begin(connection).addErrback(self._failed, connection)

    @inlineCallbacks
    def _begin(self, connection: Connection) -> Generator[Deferred[Any], Any, None]:
        """Connect, and see whether the server can be used."""
        login = self._login()
        place = yield self._connect(connection)
        try:
            server = server_of((yield connection.send(login)))
            if server.problem:
                raise DownError(server.problem)
            if self._database:
                yield connection.send(("SELECT", self._database))
            # A server that loads its data greets, but does not serve. The time is asked for its own sake.
            yield self._look_at_time(connection)
        except AnswerError as error:
            raise DownError(problem_of_error(error.code, str(error)) or str(error)) from None
        if self._is_stopped:
            raise DownError("this relay stops")
        self.server = server
        self._is_usable(connection, place)

    def _is_usable(self, connection: Connection, place: str) -> None:
        self._sent = set()
        self._retry_s = FIRST_RETRY_S
        self.connections += 1
        self.problem, self.place, self.used_since = "", place, self._surroundings.now()
        self._timer = self._surroundings.call_later(LOOK_S, self._look)
        self._changed("")

    def _failed(self, failure: Failure, connection: Connection) -> None:
        error = failure.value
        # A reason that is empty would say that the server can be used.
        reason = (str(error) if isinstance(error, RedisError) else reason_of(error)) or "it refused without a word"
        if connection.is_open:
            connection.abort(reason)
        elif self._connection is connection:
            self._lost(reason)

    def _lost(self, reason: str) -> None:
        """Note that a connection has ended, or was never there, and try again soon."""
        self._connection = None
        if self._is_stopped:
            return
        if not self.problem:
            self.figures.outages += 1
        self.problem = reason
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._surroundings.call_later(self._retry_s, self._attempt)
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
        self._changed(reason)

    def _look(self) -> None:
        """Ask for the time, which shows whether the server is there at all."""
        connection = self._connection
        if connection is None:
            return
        self._timer = self._surroundings.call_later(LOOK_S, self._look)
        self._look_at_time(connection).addErrback(lambda failure: failure.trap(RedisError) and None)

    @inlineCallbacks
    def _look_at_time(self, connection: Connection) -> Generator[Deferred[Any], Any, None]:
        asked_at, wall = self._surroundings.now(), self._wall()
        answer = yield self._checked(connection, connection.send(("TIME",)))
        if not (are_words(answer, 2) and all(map(is_number, answer))):
            _end(connection)
        seconds, micros = answer
        half_s = (self._surroundings.now() - asked_at) / 2
        time_s = int(seconds) + int(micros) / 1e6
        self.ahead_s = time_s - half_s - asked_at
        self.figures.skew_s = time_s - half_s - wall

    # Calls

    def call(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> Deferred[Any]:
        """Run a script. See `Redis`."""
        connection = self._connection
        if connection is None or self.problem:
            return self._refuse()
        rest = (len(keys), *keys, *args)
        if script.sha not in self._sent:
            # Sent whole once for each connection: the server may be another one, or have been started again.
            self._sent.add(script.sha)
            answer = connection.send(("EVAL", script.source, *rest))
        else:
            answer = connection.send(("EVALSHA", script.sha, *rest))
            answer.addErrback(self._send_whole, connection, script, rest)
        answer.addCallback(_fitting, connection, script, len(keys))
        return self._checked(connection, answer)

    def _send_whole(
        self, failure: Failure, connection: Connection, script: Script, rest: tuple[Argument, ...]
    ) -> Failure | Deferred[Any]:
        """Send a script that the server has forgotten, because somebody had it forget all scripts."""
        error = failure.value
        if isinstance(error, AnswerError) and error.code == "NOSCRIPT":
            return connection.send(("EVAL", script.source, *rest))
        return failure

    def command(self, *words: Argument) -> Deferred[Any]:
        """Run a command. See `Redis`."""
        connection = self._connection
        if connection is None or self.problem:
            return self._refuse()
        return self._checked(connection, connection.send(words))

    def _refuse(self) -> Deferred[Any]:
        self.figures.refused += 1
        return fail(DownError(self.problem or "it is not connected yet"))

    def _checked(self, connection: Connection, answer: Deferred[Any]) -> Deferred[Any]:
        """End the connection if the answer says that the server cannot be used: it was none to this call."""
        return answer.addErrback(self._check, connection)

    def _check(self, failure: Failure, connection: Connection) -> Failure:
        error = failure.value
        if isinstance(error, AnswerError) and (problem := problem_of_error(error.code, str(error))):
            connection.abort(problem)
            return Failure(DownError(problem))
        return failure


def _fitting(answer: Any, connection: Connection, script: Script, keys: int) -> Any:
    """Return an answer that can be the script's. Raises `DownError` otherwise."""
    if not script.fits(answer, keys):
        _end(connection)
    return answer


def _end(connection: Connection) -> NoReturn:
    """End a connection whose answers do not fit the questions any more. Raises `DownError`."""
    connection.abort(_MISFIT)
    raise DownError(_MISFIT)


def client_of(
    url: RedisUrl,
    base: Path,
    name: str,
    reactor: Any,
    surroundings: ReactorSurroundings,
    changed: Callable[[str], object],
    timeout_s: float = CALL_TIMEOUT_S,
) -> RedisClient:
    """Return the client of the server of a URL, which sees this process as ``name``."""

    def new_connection() -> Connection:
        return Connection(surroundings, lambda took_s: None, lambda reason: None)

    connector = Connector(reactor, url, base, new_connection, surroundings.now)
    client = RedisClient(
        connector.connect,
        lambda: login_of(url, name, base),
        surroundings,
        changed,
        url.name,
        url.database,
        surroundings.wall,
        timeout_s,
    )
    client.sentinels = connector.sentinels
    return client
