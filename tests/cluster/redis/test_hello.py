"""Which servers can be used."""

from __future__ import annotations

import pytest

from pyryrelay.cluster.redis.hello import Server, hello_words, problem_of_error, server_of

GOOD = Server("redis", "7.0.15", "standalone", "master")


def answer(server: Server) -> list[object]:
    """Return what such a server answers to HELLO 2."""
    pairs = [b"server", server.program.encode(), b"version", server.version.encode(), b"proto", 2, b"id", 4]
    return [*pairs, b"mode", server.mode.encode(), b"role", server.role.encode(), b"modules", []]


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (GOOD, ""),
        (Server("redis", "6.2.0", "standalone", "master"), ""),
        (Server("valkey", "8.1.1", "standalone", "master"), ""),
        (Server("redis", "6.0.16", "standalone", "master"), "it is redis 6.0.16: 6.2 or newer is needed"),
        (Server("redis", "7.0.15", "standalone", "replica"), "it is a replica, which cannot be written to"),
        (Server("redis", "7.0.15", "sentinel", "sentinel"), "it is a sentinel: write redis+sentinel://HOST:PORT/NAME"),
        (
            Server("redis", "7.0.15", "cluster", "master"),
            "it belongs to a Redis Cluster, which is not supported: use single servers, each with a --cluster",
        ),
    ],
)
def test_a_server_says_what_it_is(server: Server, problem: str) -> None:
    """Only single primaries that are new enough can be used."""
    assert server_of(answer(server)) == server
    assert server.problem == problem


@pytest.mark.parametrize("said", [None, b"OK", 3, [b"server"], [b"a", [b"b"]]])
def test_a_server_that_says_nothing_useful_is_not_used(said: object) -> None:
    """Whatever it answers, it does no harm."""
    assert server_of(said).problem == "it is ? 0: 6.2 or newer is needed"


def test_the_first_command_logs_in() -> None:
    """A password without a user is that of the default user; without either, nobody logs in."""
    assert hello_words("me", "", "") == ("HELLO", "2", "SETNAME", "me")
    assert hello_words("me", "", "pw") == ("HELLO", "2", "AUTH", "default", "pw", "SETNAME", "me")
    assert hello_words("me", "relay", "pw") == ("HELLO", "2", "AUTH", "relay", "pw", "SETNAME", "me")


@pytest.mark.parametrize(
    ("code", "text", "problem"),
    [
        ("LOADING", "LOADING Redis is loading the dataset in memory", "it loads its data"),
        ("MOVED", "MOVED 3999 127.0.0.1:6381", "it belongs to a Redis Cluster"),
        ("WRONGPASS", "WRONGPASS invalid username-password pair", "it refuses the user name or the password"),
        ("NOAUTH", "NOAUTH HELLO must be called", "it wants a password"),
        (
            "DENIED",
            "DENIED Redis is running in protected mode because",
            "it is in protected mode and refuses other machines",
        ),
        ("ERR", "ERR unknown command `HELLO`, with args beginning with: `2`, ", "it is too old"),
        ("ERR", "ERR value is not an integer", ""),
        ("NOPERM", "NOPERM this user has no permissions", ""),
    ],
)
def test_some_errors_say_that_the_server_cannot_be_used(code: str, text: str, problem: str) -> None:
    """Others are about the command alone."""
    assert problem_of_error(code, text).startswith(problem)
    assert bool(problem_of_error(code, text)) is bool(problem)
