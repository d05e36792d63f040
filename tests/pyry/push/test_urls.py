"""URLs that secrets are sent to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.config.endpoints import is_this_machine
from pyryrelay.config.types import InvalidValueError
from pyryrelay.pyry.push.urls import MAX_URL_CHARS, URL, url_problem


@pytest.mark.parametrize(
    "text",
    [
        "https://fcm.googleapis.com",
        "https://192.0.2.1:8443/base",
        "http://127.0.0.1:8081",
        "http://localhost:1/x",
        "http://[::1]:9",
        "http://127.9.9.9",
    ],
)
def test_https_or_this_machine(text: str) -> None:
    """HTTPS may go anywhere, and plain HTTP to a loopback address."""
    assert url_problem(text) is None
    assert URL.read((text + "/",)) == text
    assert URL.write(URL.read((text,))) == (text,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://fcm.googleapis.com", "is not encrypted"),
        ("http://127.0.0.1.example.com", "is not encrypted"),
        ("http://10.0.0.1", "is not encrypted"),
        ("http://localhost.example.com", "is not encrypted"),
        ("ftp://127.0.0.1", "begins with https"),
        ("https://", "begins with https"),
        ("fcm.googleapis.com", "begins with https"),
        ("https://host:0", "begins with https"),
        ("https://host:99999", "no URL"),
        ("https://[::1", "no URL"),
        ("https://user@host", "user name"),
        ("https://:secret@host", "user name"),
        ("http://127.0.0.1@evil.example", "user name"),
        ("https://host/?x", "query"),
        ("https://host/#x", "query"),
        ("https://h\u00f6st", "no URL"),
        ("https://a b", "no URL"),
        ("https://a\r\nb", "no URL"),
        ("https://" + "a" * MAX_URL_CHARS, "no URL"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    """Secrets never leave the machine in plain text, and the URL holds none."""
    assert problem in (url_problem(text) or "")
    with pytest.raises(InvalidValueError):
        URL.read((text,))


@given(st.text(max_size=40).map("http://".__add__) | st.text(max_size=40))
def test_any_text_is_judged(text: str) -> None:
    """No text raises anything, and plain HTTP is only accepted to a host that is this machine."""
    if url_problem(text) is None and text.startswith("http://"):
        host = text.removeprefix("http://").partition("/")[0].rpartition("]")[0].lstrip("[")
        host = host or text.removeprefix("http://").partition("/")[0].partition(":")[0]
        assert is_this_machine(host.lower())
