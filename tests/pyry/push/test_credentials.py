"""Service-account keys: what is read, and that errors quote nothing of them."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.push import key_fields, key_text, pem

from pyryrelay.pyry.push.credentials import TOKEN_URI, CredentialsError, read_account

SECRET = "s3cr3t-s3cr3t"


def test_a_key_is_read() -> None:
    """What is needed is taken from the fields of Google's file."""
    account = read_account(key_text(token_uri="https://oauth2.example/token"))
    assert account.project == "my-project"
    assert account.email == "relay@my-project.iam.gserviceaccount.com"
    assert account.key_pem == pem()
    assert account.key_id == "key-1"
    assert account.token_uri == "https://oauth2.example/token"


def test_the_token_uri_may_be_missing() -> None:
    """Then tokens come from Google."""
    assert read_account(key_text(token_uri=None)).token_uri == TOKEN_URI


def test_a_repr_has_no_secret() -> None:
    """The key, its id and the account's address are left out of the object's text."""
    shown = repr(read_account(key_text()))
    assert "PRIVATE" not in shown
    assert "key-1" not in shown
    assert "relay@" not in shown


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"type": SECRET}, "no key of a service account"),
        ({"type": None}, "no key of a service account"),
        ({"type": "authorized_user"}, "no key of a service account"),
        ({"project_id": SECRET + "/../x"}, "no usable project_id"),
        ({"project_id": None}, "no usable project_id"),
        ({"project_id": 7}, "no usable project_id"),
        ({"client_email": SECRET + "\n"}, "no usable client_email"),
        ({"client_email": ""}, "no usable client_email"),
        ({"private_key_id": [SECRET]}, "no usable private_key_id"),
        ({"private_key": SECRET}, "no usable private_key"),
        ({"private_key": None}, "no usable private_key"),
        ({"private_key": "-----BEGIN CERTIFICATE-----\n" + SECRET}, "no usable private_key"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\n\u00e9"}, "no usable private_key"),
        ({"token_uri": f"http://{SECRET}.example"}, "token_uri that is not encrypted"),
        ({"token_uri": f"https://user:{SECRET}@x"}, "token_uri that contains a user name"),
        ({"token_uri": 5}, "token_uri that is no text"),
    ],
)
def test_what_is_no_usable_key(changes: dict[str, object], part: str) -> None:
    """The error names the field and the fix, and quotes nothing."""
    with pytest.raises(CredentialsError) as caught:
        read_account(key_text(**changes))
    assert part in str(caught.value)
    assert ";" in str(caught.value)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("text", ["", SECRET, "[]", "7", '"' + SECRET + '"', "{" + SECRET, "[" * 100_000])
def test_what_is_no_json_object(text: str) -> None:
    """The parser's own error quotes the text, so it is neither shown nor kept as a cause."""
    with pytest.raises(CredentialsError) as caught:
        read_account(text)
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(st.dictionaries(st.sampled_from([*key_fields()]), st.none() | st.booleans() | st.integers() | st.text()))
def test_fields_may_have_any_value(changes: dict[str, object]) -> None:
    """Any field may be anything: the key is read, or `CredentialsError` is raised."""
    with contextlib.suppress(CredentialsError):
        assert read_account(json.dumps(key_fields() | changes)).project
