"""Access tokens: fetched once for all that wait, kept until shortly before they expire, and not fetched too often."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from tests.support.push import TOKEN_PORT, TOKEN_URI, WALL, PushServices, private_key
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError as RefusedError

from pyryrelay.pyry.push.access_tokens import EARLY_S, MIN_AGE_S, AccessTokens, TokenError
from pyryrelay.pyry.push.requests import ANSWER_S


@pytest.fixture
def services() -> PushServices:
    """The services, to which nobody has connected."""
    return PushServices()


@pytest.fixture
def tokens(services: PushServices) -> AccessTokens:
    """The access tokens, none of which has been fetched."""
    return services.tokens()


def ask(tokens: AccessTokens) -> list[Any]:
    """Return a list that gets a token, or the word that says why there is none."""
    results: list[Any] = []

    def failed(failure: Any) -> None:
        assert isinstance(failure.value, TokenError), failure
        results.append(("failed", failure.value.word))

    tokens.get().addCallbacks(results.append, failed)
    return results


def test_what_is_sent(services: PushServices, tokens: AccessTokens) -> None:
    """The request is RFC 7523's, with an assertion of the service account for this moment."""
    services.clock.advance(7)
    results = ask(tokens)
    received = services.grant("at-1")
    assert received.target == "/token"
    assert received.fields["content-type"] == "application/x-www-form-urlencoded"
    form = parse_qs(received.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    claims = jwt.decode(
        form["assertion"][0],
        private_key(2048).public_key(),
        algorithms=["RS256"],
        audience=TOKEN_URI,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["iat"] == WALL + 7
    assert results == ["at-1"]


def test_one_fetch_serves_all(services: PushServices, tokens: AccessTokens) -> None:
    """While a token is fetched, others wait for the same one."""
    asked = [ask(tokens) for _ in range(50)]
    services.grant("at-1")
    assert asked == [["at-1"]] * 50
    assert services.is_quiet()


def test_a_token_is_kept_until_shortly_before_its_end(services: PushServices, tokens: AccessTokens) -> None:
    """Five minutes before its end, another one is fetched."""
    ask(tokens)
    services.grant("at-1", 3600)
    services.clock.advance(3600 - EARLY_S - 1)
    assert ask(tokens) == ["at-1"]
    services.clock.advance(1)
    results = ask(tokens)
    assert results == []
    services.grant("at-2")
    assert results == ["at-2"]


def test_a_short_life(services: PushServices, tokens: AccessTokens) -> None:
    """Of a token that lives for a minute, three quarters are used."""
    ask(tokens)
    services.grant("at-1", 60)
    services.clock.advance(44)
    assert ask(tokens) == ["at-1"]
    services.clock.advance(1)
    assert ask(tokens) == []


def test_failures_are_not_repeated_at_once(services: PushServices, tokens: AccessTokens) -> None:
    """After a failure nothing is fetched for 5 s, then 10 s, up to 5 minutes; a success begins anew."""
    waits = []
    for _ in range(9):
        first = ask(tokens)
        line, _ = services.next(TOKEN_PORT)
        line.answer(400, b'{"error":"invalid_grant"}')
        assert first == ask(tokens) == [("failed", "invalid_grant")]
        assert services.is_quiet()
        waits.append(services.failures[-1][1])
        services.clock.advance(waits[-1] - 0.01)
        assert ask(tokens) == [("failed", "invalid_grant")]
        services.clock.advance(0.02)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    ask(tokens)
    services.grant("at-1", 60)
    services.clock.advance(60)
    ask(tokens)
    line, _ = services.next(TOKEN_PORT)
    line.answer(500)
    assert services.failures[-1] == ("HTTP 500", 5.0)


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (200, b"{", "malformed"),
        (200, b'{"access_token":"a\\nb","expires_in":60}', "malformed"),
        (307, b"{}", "HTTP 307"),
        (401, b'{"error":"invalid_client","x":"s3cr3t"}', "invalid_client"),
        (200, b"x" * 5000, "too_large"),
    ],
)
def test_bad_answers(services: PushServices, tokens: AccessTokens, status: int, body: bytes, word: str) -> None:
    """Each is a failure with a word that says nothing of the answer."""
    results = ask(tokens)
    line, _ = services.next(TOKEN_PORT)
    line.answer(status, body, "Location: http://127.0.0.1:1/\r\n")
    assert results == [("failed", word)]
    assert services.failures == [(word, 5.0)]


def test_no_answer(services: PushServices, tokens: AccessTokens) -> None:
    """A service that cannot be reached, and one that does not answer."""
    refused = ask(tokens)
    services.accept()
    services.clock.advance(ANSWER_S)
    assert refused == [("failed", "timeout")]
    services.clock.advance(5)
    again = ask(tokens)
    services.refuse(RefusedError())
    services.clock.advance(1)
    assert again == [("failed", "refused")]


def test_a_key_that_fails_to_sign(services: PushServices) -> None:
    """The error of the library is neither logged nor passed on."""
    services.in_thread = lambda call: fail(RuntimeError("s3cr3t"))  # type: ignore[method-assign]
    tokens = services.tokens()
    assert ask(tokens) == [("failed", "failed")]
    assert services.failures == [("failed", 5.0)]


def test_a_refused_token_is_replaced_once_a_minute(services: PushServices, tokens: AccessTokens) -> None:
    """A service that refuses every token does not cause a fetch for each wake."""
    ask(tokens)
    services.grant("at-1")
    assert tokens.forget("at-0")
    assert not tokens.forget("at-1")
    assert ask(tokens) == ["at-1"]
    services.clock.advance(MIN_AGE_S)
    assert tokens.forget("at-1")
    results = ask(tokens)
    services.grant("at-2")
    assert results == ["at-2"]


def test_one_that_waits_may_leave(services: PushServices, tokens: AccessTokens) -> None:
    """Others still get the token."""
    waiting: Deferred[str] = tokens.get()
    errors: list[Any] = []
    waiting.addErrback(errors.append)
    other = ask(tokens)
    waiting.cancel()
    services.grant("at-1")
    assert other == ["at-1"]
    assert len(errors) == 1


def test_the_end(services: PushServices, tokens: AccessTokens) -> None:
    """A fetch that runs is cancelled, those that wait fail, and nothing is fetched any more."""
    results = ask(tokens)
    (line,) = services.accept()
    tokens.stop()
    assert results == ask(tokens) == [("failed", "stopping")]
    assert line.was_aborted
    services.clock.advance(0)
    assert services.accept() == []
    assert not services.clock.getDelayedCalls()
    assert services.failures == []
