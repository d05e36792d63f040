"""The options of push wakes. PURE.

`PushOptions` is a base of `pyryrelay.pyry.options.PyryOptions`.
"""

# `option` makes a dataclass field, which a linter cannot know.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyryrelay.config.sources import option
from pyryrelay.config.types import SWITCH, InvalidValueError, OptionType, Texts
from pyryrelay.pyry.push.urls import URL

PUSH: Final = "Push wakes"
"""The group of these options."""
MAX_NAME_CHARS: Final = 1024


def _read_name(texts: Texts) -> str:
    (text,) = texts
    if len(text) > MAX_NAME_CHARS or not text.isprintable() or set(text) & set('{}"\\'):
        # It may be the key itself, so the error does not quote it.
        raise InvalidValueError("", "is no name")
    return text


CREDENTIALS: OptionType[str] = OptionType(
    "FILE",
    'write the path of the key file, env:NAME, or "" for none',
    _read_name,
    lambda value: (value,),
    quotes=False,
)
"""The name of a file or of an environment variable with a key."""


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What the relay needs to wake phones for binaries."""

    push_credentials: str = option(
        "",
        CREDENTIALS,
        PUSH,
        help="Wake phones through Firebase Cloud Messaging when binaries ask for it, with the service-account key in "
        "this JSON file, which only its owner may read (mode 600). `env:NAME` takes the key itself from the "
        "environment variable NAME. An empty value sends no wakes. Needs `pip install 'pyryrelay[push]'`.",
        example="/etc/pyryrelay/fcm.json",
        why="Wakes need a Firebase project, and only you have its key.",
    )
    push_url: str = option(
        "https://fcm.googleapis.com",
        URL,
        PUSH,
        help="The base URL of the service that push wakes are sent to. Other machines need HTTPS.",
        example="http://127.0.0.1:8081",
        why="It is the address of Firebase Cloud Messaging. Tests, and proxies of yours, have others.",
    )
    push_feedback: bool = option(
        False,
        SWITCH,
        PUSH,
        help="Tell a binary when the token of a push wake is dead, so that it can forget the token. It gets a message "
        "`push_wake_result`, which [Push wakes](../howto/push.md) describes.",
        example="true",
        why="Daemons of 2026 do not know this message.",
    )
