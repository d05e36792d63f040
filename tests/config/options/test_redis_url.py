"""URLs of Redis servers."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.config.options.redis_url import RedisHost, RedisUrl, RedisUrlError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://10.0.0.5", {"hosts": (RedisHost("10.0.0.5", 6379),), "name": "10.0.0.5:6379"}),
        ("redis://[fd00::1]:7000/3", {"hosts": (RedisHost("fd00::1", 7000),), "database": 3, "name": "[fd00::1]:7000"}),
        ("rediss://relay@cache.example.org", {"is_tls": True, "user": "relay"}),
        ("rediss://h?cert=c&key=k", {"files": {"cert": "c", "key": "k"}}),
        ("rediss://h?ca=/etc/ca.pem&password-file=pw", {"files": {"ca": "/etc/ca.pem", "password-file": "pw"}}),
        ("redis+unix:///run/redis/redis.sock", {"path": "/run/redis/redis.sock", "name": "/run/redis/redis.sock"}),
        (
            "redis+sentinel://a,b:26380/mymaster/1",
            {
                "hosts": (RedisHost("a", 26379), RedisHost("b", 26380)),
                "service": "mymaster",
                "database": 1,
                "name": "mymaster@a:26379,b:26380",
            },
        ),
    ],
)
def test_urls_say_where_servers_are(text: str, expected: dict[str, object]) -> None:
    """Each part of a URL is where it belongs."""
    url = RedisUrl.parse(text)
    assert {name: getattr(url, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("10.0.0.5:6379", "is no URL", "write redis://HOST:PORT"),
        ("valkeys://h", "is no URL", "write rediss://, which Valkey speaks too"),
        ("redis-sentinel://h/x", "is no URL", "write redis+sentinel://HOST:PORT/NAME"),
        ("unix:///x", "is no URL", "write redis+unix:///PATH"),
        ("redis://", "has a host or a port", "write redis://HOST:PORT"),
        ("redis://h:0", "has a host or a port", ""),
        ("redis://h:65536", "has a host or a port", ""),
        ("redis://a,b", "has several hosts", "give --cluster several times"),
        ("redis://@h", "has an @ without a user name", ""),
        ("redis://h/x", "has a database that is no number", ""),
        ("redis://h?ca=x", "has ca= without TLS", "write rediss://"),
        ("redis+sentinel://h/x?cert=x", "has cert= without TLS", "write rediss+sentinel://"),
        ("redis+unix:///run/x?ca=x", "has ca= without TLS", "leave it out"),
        ("rediss://h?key=x", "has key= without cert=", "write cert=FILE, too"),
        ("redis://h?sentinel-password-file=x", "has sentinel-password-file=", ""),
        ("redis://h?password=x", "has something after the ?", "write password-file="),
        ("redis://h?password-file=", "names no file", ""),
        ("redis://h?x", "has something after the ?", ""),
        ("redis+sentinel://h", "lacks the name", "add /mymaster"),
        ("redis+unix://run/x", "names no socket", ""),
    ],
)
def test_other_texts_are_refused(text: str, problem: str, fix: str) -> None:
    """Each error says what is wrong and what to write."""
    with pytest.raises(RedisUrlError) as refused:
        RedisUrl.parse(text)
    assert str(refused.value).startswith(problem)
    assert refused.value.fix.startswith(fix)


@pytest.mark.parametrize(
    "text", ["redis://u:PASSWORD@h", "redis://:PASS@/WORD@h:1/0", "u:PASSWORD@h", "redis:PASSWORD@h"]
)
def test_passwords_are_refused_and_not_shown(text: str) -> None:
    """Other users of the machine see command lines."""
    with pytest.raises(RedisUrlError) as refused:
        RedisUrl.parse(text)
    assert "PASS" not in refused.value.shown + str(refused.value) + refused.value.fix
    assert "..." in refused.value.shown


@given(st.text(max_size=40) | st.text("redis:/+sentinelux@,.?=&[]0123456789", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text raises anything else."""
    for each in (text, f"redis://{text}", f"rediss+sentinel://{text}"):
        with contextlib.suppress(RedisUrlError):
            assert RedisUrl.parse(each).text == each
