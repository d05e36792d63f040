"""The options of the admin listener: where it listens, and who may use it. PURE."""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pyryrelay.config.endpoints import OPTIONAL_ENDPOINT, Endpoint, is_haproxy, unix_mode
from pyryrelay.config.groups import ADMIN
from pyryrelay.config.sources import option
from pyryrelay.config.types import OPTIONAL_FILE, InvalidValueError, OptionType, Texts

__all__ = ["AdminSettings", "admin_problem", "is_private"]

_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*")


_KNOWN: Final = frozenset({"tcp", "tcp6", "ssl", "unix", "systemd", "fd"})
"""Types of endpoints that come with Twisted."""


def _read_names(texts: Texts) -> Texts:
    for text in texts:
        if not _HOST_NAME.fullmatch(text.lower()):
            raise InvalidValueError(text, "is not a host name")
    return tuple(text.lower() for text in texts)


_NAMES: Final[OptionType[Texts]] = OptionType(
    "NAME", "write a host name without a port", _read_names, lambda value: value, repeatable=True
)


@dataclass(frozen=True, kw_only=True)
class AdminSettings:
    """The options of the admin listener."""

    admin_listen: str = option(
        "tcp:9090:interface=127.0.0.1",
        OPTIONAL_ENDPOINT,
        ADMIN,
        help="The endpoint for the dashboard, metrics, health and the admin API (`pyryrelay jail`, `reload` and "
        "`whoami`); an empty value turns them off. On loopback, and on a `unix:` socket, which is accessible to this "
        "user only (mode 600) unless you give it another mode, there is no password. Anywhere else it needs "
        "`--admin-token-file`.",
        restart=True,
        example="unix:/run/pyryrelay/admin.sock",
        why="They are for the operator, so only this machine can reach them unless you change it.",
    )
    admin_token_file: str = option(
        "",
        OPTIONAL_FILE,
        ADMIN,
        help="A file with the token that clients of the admin listener must send, as `Authorization: Bearer TOKEN`, "
        "or enter on the login page of the dashboard. It is one line of 20 to 1024 visible ASCII characters, and no "
        "other user may have access to the file (mode 600). `/healthz` needs no token. A reload reads the file again.",
        example="/etc/pyryrelay/admin-token",
        why="On loopback, users of this machine alone can connect. Set a token if you do not trust all of them.",
    )
    admin_host: Texts = option(
        (),
        _NAMES,
        ADMIN,
        help="A name under which the admin listener may be asked for, besides the one that it listens on, `localhost` "
        "and IP addresses: that of a proxy in front of it, for example. Requests for other names are refused, because "
        "any web page can point a name of its own at your machine.",
        example="admin.example.org",
        why="Only you know the names of your machine.",
    )


def is_private(text: str) -> bool:
    """Return whether an endpoint can be reached only from this machine, and if it is a UNIX socket only by its user."""
    if is_haproxy(text):
        return False
    endpoint = Endpoint.parse(text)
    if endpoint.scheme == "unix":
        return not (unix_mode(text) or 0) & 0o077
    return endpoint.port is not None and endpoint.is_local


def admin_problem(settings: AdminSettings, *, is_checked: bool = True) -> tuple[str, str, str] | None:
    """Return the option, the problem and the fix if others than the operator could use the admin listener.

    Before Twisted has checked the endpoint (``is_checked``), a type that only a plugin could know may be a mistake,
    which Twisted will explain better.
    """
    text = settings.admin_listen
    if settings.admin_token_file and not text:
        return (
            "admin-token-file",
            f"{settings.admin_token_file!r} has no effect without an admin listener",
            "remove it, or give --admin-listen an endpoint",
        )
    if not text or settings.admin_token_file or is_private(text):
        return None
    if not is_checked and Endpoint.parse(text).scheme not in _KNOWN:
        return None
    problem = f"{text!r} lets others use the admin listener without a token"
    return "admin-listen", problem, "add --admin-token-file FILE, or listen on 127.0.0.1 or a unix: socket of mode 600"
