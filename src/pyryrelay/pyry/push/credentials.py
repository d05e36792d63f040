"""A service-account key of Google, as its JSON file has it. PURE.

No error and no `repr` quotes anything of the key: an operator who names the wrong file must not find a secret in a log.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Final

from pyryrelay.pyry.push.urls import url_problem

TOKEN_URI: Final = "https://oauth2.googleapis.com/token"
"""Where access tokens come from, if the key does not say it."""
MAX_KEY_BYTES: Final = 65_536

_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}")
_EMAIL: Final = re.compile(r"[!-~]{1,256}")
_KEY_ID: Final = re.compile(r"[!-~]{1,256}")
_PEM: Final = re.compile(r"\s*-----BEGIN (?:RSA )?PRIVATE KEY-----\r?\n")


class CredentialsError(ValueError):
    """The credentials cannot be used. `str` of it is a phrase with the fix, and quotes nothing of them."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What is needed of a service-account key. The secret parts are left out of its `repr`."""

    project: str
    email: str = field(repr=False)
    key_pem: str = field(repr=False)
    key_id: str = field(repr=False)
    token_uri: str


def read_account(text: str) -> ServiceAccount:
    """Return the service account whose key file has this content. Raises `CredentialsError`."""
    fields = _fields(text)
    if fields.get("type") != "service_account":
        raise CredentialsError(
            "is no key of a service account; make one in the Firebase console, under Project settings, Service accounts"
        )
    token_uri = fields.get("token_uri", TOKEN_URI)
    if not isinstance(token_uri, str) or (problem := url_problem(token_uri)) is not None:
        described = "is no text" if not isinstance(token_uri, str) else problem
        raise CredentialsError(f"has a token_uri that {described}; download the key again")
    return ServiceAccount(
        project=_matching(fields, "project_id", _PROJECT),
        email=_matching(fields, "client_email", _EMAIL),
        key_pem=_key(fields),
        key_id=_matching(fields, "private_key_id", _KEY_ID),
        token_uri=token_uri,
    )


def _fields(text: str) -> dict[str, object]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        # The error of the parser quotes the text.
        fields = None
    if not isinstance(fields, dict):
        raise CredentialsError("is no JSON object; give the key file of a service account")
    return fields


def _matching(fields: dict[str, object], name: str, pattern: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise CredentialsError(f"has no usable {name}; download the key again")
    return value


def _key(fields: dict[str, object]) -> str:
    value = fields.get("private_key")
    if not isinstance(value, str) or _PEM.match(value) is None or not value.isascii():
        raise CredentialsError("has no usable private_key; download the key again")
    return value
