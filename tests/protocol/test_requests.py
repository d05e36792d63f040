"""Requests, as applications see them, and their answers in plain HTTP."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from pyryrelay.guard import client_address
from pyryrelay.protocol.requests import (
    Headers,
    HttpRefusal,
    Page,
    RepeatedHeaderError,
    Request,
    only_value,
)

SECRET = "token-of-one-client"


def request(headers: Headers) -> Request:
    """Return a request with some headers."""
    client = client_address("192.0.2.7")
    assert client is not None
    return Request("/path", headers, client)


@pytest.mark.parametrize(
    ("headers", "value"),
    [({"x-name": ["one"]}, "one"), ({"x-name": [""]}, ""), ({"x-name": []}, ""), ({"x-other": ["one"]}, ""), ({}, "")],
)
def test_a_header_has_at_most_one_value(headers: Headers, value: str) -> None:
    """The value of a header is empty without one."""
    assert only_value(headers, "x-name") == value
    assert request(headers).header("x-name") == value


@pytest.mark.parametrize("values", [["one", "two"], ["one", "one"], ["", ""], ["one", "", "two"]])
def test_a_repeated_header_is_an_error(values: list[str]) -> None:
    """A header that was sent more than once is an error, even if all values are equal or empty."""
    with pytest.raises(RepeatedHeaderError):
        only_value({"x-name": values}, "x-name")
    with pytest.raises(RepeatedHeaderError):
        request({"x-name": values}).header("x-name")


def test_other_repeated_headers_are_no_error() -> None:
    """Only the requested header must be unique."""
    assert request({"x-name": ["one"], "x-other": ["a", "b"]}).header("x-name") == "one"


def test_the_error_tells_the_name_and_no_value() -> None:
    """The error carries the name of the header and none of its values, which may be secrets."""
    with pytest.raises(RepeatedHeaderError) as caught:
        only_value({"x-token": [SECRET, f"{SECRET}2"]}, "x-token")
    assert caught.value.args == ("x-token",)
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("value", [HttpRefusal(400, "word"), Page(200)])
def test_answers_cannot_be_changed(value: HttpRefusal | Page) -> None:
    """Answers are immutable, and equal to others of the same content."""
    names = [field.name for field in fields(value)]
    assert value == type(value)(**{name: getattr(value, name) for name in names})
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_answers_have_no_fields_beyond_the_usual() -> None:
    """By default an answer adds no header fields, and a page has no body."""
    assert HttpRefusal(400, "word").fields == ()
    assert (Page(204).fields, Page(204).body) == ((), b"")
