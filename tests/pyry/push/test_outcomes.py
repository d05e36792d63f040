"""What answers of the services mean, and that nothing of them but known words is passed on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.push import SENT, TOKEN, fcm_error

from pyryrelay.pyry.push.outcomes import (
    MAX_PAUSE_S,
    MAX_REPEAT_S,
    AccessToken,
    Answer,
    Next,
    Outcome,
    Verdict,
    judge,
    read_token,
)
from pyryrelay.pyry.relay import PUSH_OUTCOMES

FAILED = Outcome.SEND_FAILED


def test_the_outcomes_are_those_of_the_metric() -> None:
    """The metric has exactly these label values."""
    assert tuple(Outcome) == PUSH_OUTCOMES


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, SENT, Verdict(Outcome.SENT)),
        (200, b"<html>Sign in</html>", Verdict(FAILED, "malformed")),
        (200, b"{}", Verdict(FAILED, "malformed")),
        (200, b"", Verdict(FAILED, "malformed")),
        (404, fcm_error("NOT_FOUND", "UNREGISTERED"), Verdict(Outcome.UNREGISTERED, "UNREGISTERED")),
        (400, fcm_error("INVALID_ARGUMENT", "UNREGISTERED"), Verdict(Outcome.UNREGISTERED, "UNREGISTERED")),
        (404, fcm_error("NOT_FOUND"), Verdict(Outcome.UNREGISTERED, "NOT_FOUND")),
        (404, b"<html>no such page</html>", Verdict(FAILED, "HTTP 404")),
        (400, fcm_error("INVALID_ARGUMENT", "INVALID_ARGUMENT"), Verdict(FAILED, "INVALID_ARGUMENT")),
        (403, fcm_error("PERMISSION_DENIED", "SENDER_ID_MISMATCH"), Verdict(FAILED, "SENDER_ID_MISMATCH")),
        (403, fcm_error("PERMISSION_DENIED"), Verdict(FAILED, "PERMISSION_DENIED")),
        (401, fcm_error("UNAUTHENTICATED"), Verdict(FAILED, "UNAUTHENTICATED", Next.NEW_TOKEN)),
        (429, fcm_error("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), Verdict(FAILED, "QUOTA_EXCEEDED", Next.PAUSE, 60.0)),
        (503, fcm_error("UNAVAILABLE", "UNAVAILABLE"), Verdict(FAILED, "UNAVAILABLE", Next.REPEAT, 10.0)),
        (500, b"", Verdict(FAILED, "HTTP 500", Next.REPEAT, 10.0)),
        (302, b"", Verdict(FAILED, "HTTP 302")),
        (204, b"", Verdict(FAILED, "HTTP 204")),
    ],
)
def test_answers_of_the_push_service(status: int, body: bytes, verdict: Verdict) -> None:
    """Each answer has an outcome, a word, and what to do next."""
    assert judge(Answer(status, "", body)) == verdict


@pytest.mark.parametrize(
    ("status", "retry_after", "then", "after_s"),
    [
        (429, "5", Next.PAUSE, 5.0),
        (429, "0", Next.PAUSE, 1.0),
        (429, "86400", Next.PAUSE, MAX_PAUSE_S),
        (429, "Wed, 21 Oct 2026 07:28:00 GMT", Next.PAUSE, 60.0),
        (429, "-1", Next.PAUSE, 60.0),
        (429, "9" * 400, Next.PAUSE, 60.0),
        (503, "2", Next.REPEAT, 2.0),
        (503, "30", Next.REPEAT, MAX_REPEAT_S),
        (503, "31", Next.PAUSE, 31.0),
        (503, "99999", Next.PAUSE, MAX_PAUSE_S),
    ],
)
def test_retry_after_is_obeyed(status: int, retry_after: str, then: Next, after_s: float) -> None:
    """The service says when to come back; a long time is a pause for all wakes, and bounded."""
    verdict = judge(Answer(status, retry_after, b""))
    assert (verdict.then, verdict.after_s) == (then, after_s)


@pytest.mark.parametrize("word", [TOKEN, "ABCDEF", "A" * 40, "", 7, None, ["UNREGISTERED"], {"a": 1}])
def test_unknown_error_names_are_not_passed_on(word: object) -> None:
    """A server that answers with what was sent, such as a token, cannot make the relay log it."""
    for body in (
        {"error": {"status": word, "message": TOKEN}},
        {"error": {"status": word, "details": [{"errorCode": word}]}},
        {"error": word},
        {"error": {"details": word}},
        {"error": {"details": [word]}},
    ):
        verdict = judge(Answer(400, "", json.dumps(body).encode()))
        assert verdict == Verdict(FAILED, "HTTP 400")


def test_an_access_token_is_read() -> None:
    """A token lives as long as the service says, within bounds."""
    body = json.dumps({"access_token": "ya29.x", "expires_in": 3599, "token_type": "Bearer"}).encode()
    found = read_token(Answer(200, "", body))
    assert found == AccessToken("ya29.x", 3599.0)
    assert "ya29" not in repr(found)


@pytest.mark.parametrize(("given_s", "used_s"), [(1, 60.0), (59.5, 60.0), (1e9, 3600.0), (1e300, 3600.0)])
def test_lifetimes_are_bounded(given_s: float, used_s: float) -> None:
    """A very short life would cause a fetch for each wake, and a very long one outlive the key."""
    body = json.dumps({"access_token": "x", "expires_in": given_s}).encode()
    assert read_token(Answer(200, "", body)) == AccessToken("x", used_s)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"access_token":"x"}',
        b'{"access_token":"x","expires_in":"3600"}',
        b'{"access_token":"x","expires_in":true}',
        b'{"access_token":"x","expires_in":0}',
        b'{"access_token":"x","expires_in":NaN}',
        b'{"access_token":"","expires_in":60}',
        b'{"access_token":"a\\r\\nX: y","expires_in":60}',
        b'{"access_token":"a b","expires_in":60}',
        b'{"access_token":7,"expires_in":60}',
        b'[{"access_token":"x","expires_in":60}]',
        b"[" * 4000,
        b"\xff\xfe",
    ],
)
def test_malformed_token_answers(body: bytes) -> None:
    """What could not be used in a header, or has no lifetime, is no token."""
    assert read_token(Answer(200, "", body)) == "malformed"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b'{"error":"invalid_grant","error_description":"s3cr3t"}', "invalid_grant"),
        (b'{"error":"s3cr3t"}', "HTTP 400"),
        (b'{"error":["invalid_grant"]}', "HTTP 400"),
        (b"s3cr3t", "HTTP 400"),
    ],
)
def test_errors_of_the_token_service(body: bytes, word: str) -> None:
    """Names of RFC 6749 are passed on, and nothing else."""
    assert read_token(Answer(400, "", body)) == word


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([TOKEN, "UNREGISTERED", "name", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "details", "errorCode", "status", "name", "access_token", "expires_in"]), inner
        )
    ),
    max_leaves=12,
)


@given(
    st.integers(100, 599),
    st.text(max_size=8),
    st.binary(max_size=64) | json_values.map(lambda value: json.dumps(value).encode()),
)
def test_any_answer_is_judged(status: int, retry_after: str, body: bytes) -> None:
    """No answer raises anything or is waited for too long, and no word of it is passed on that is not known."""
    answer = Answer(status, retry_after, body)
    verdict = judge(answer)
    assert TOKEN not in verdict.reason
    assert verdict.after_s <= MAX_PAUSE_S
    assert verdict.outcome in (Outcome.SENT, Outcome.UNREGISTERED, Outcome.SEND_FAILED)
    found = read_token(answer)
    assert found != TOKEN
