"""What a server says of itself when a connection begins, and whether it can be used. PURE.

``HELLO 2`` authenticates, names the connection, and tells version, mode and role in one answer. It exists since Redis
6.0, and no ACL can forbid it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["OLDEST", "Server", "hello_words", "problem_of_error", "server_of"]

OLDEST: Final = (6, 2)
"""The oldest version that can be used."""

_CLUSTER: Final = "it belongs to a Redis Cluster, which is not supported: use single servers, each with a --cluster"


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its program (``redis`` or ``valkey``), its version, its mode and its role."""

    program: str
    version: str
    mode: str
    role: str

    @property
    def problem(self) -> str:
        """Why it cannot be used, in one line; "" if it can."""
        if self.mode == "cluster":
            return _CLUSTER
        if self.mode == "sentinel":
            return "it is a sentinel: write redis+sentinel://HOST:PORT/NAME"
        numbers = tuple(int(number) for number in re.findall(r"\d+", self.version)[:2])
        if numbers < OLDEST:
            return f"it is {self.program} {self.version}: {'.'.join(map(str, OLDEST))} or newer is needed"
        if self.role != "master":
            return f"it is a {self.role}, which cannot be written to"
        return ""


def hello_words(name: str, user: str, password: str) -> tuple[str, ...]:
    """Return the first command on a connection."""
    login = ("AUTH", user or "default", password) if user or password else ()
    return ("HELLO", "2", *login, "SETNAME", name)


def server_of(answer: object) -> Server:
    """Return what a server said of itself. What it left out is empty."""
    items = answer if isinstance(answer, Sequence) and not isinstance(answer, bytes | str) else ()
    texts = [_text(item) for item in items]
    said = dict(zip(texts[::2], texts[1::2], strict=False))
    return Server(said.get("server", "?"), said.get("version", "0"), said.get("mode", "?"), said.get("role", "?"))


def _text(item: object) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def problem_of_error(code: str, text: str) -> str:
    """Return what the answer ``text``, an error of kind ``code``, says of a server that it makes unusable; else ""."""
    if code in ("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN", "TRYAGAIN"):
        return _CLUSTER
    return {
        "LOADING": "it loads its data",
        "READONLY": "it is a replica, which cannot be written to",
        "MASTERDOWN": "it is a replica that has lost its primary",
        "NOAUTH": "it wants a password: write ?password-file=FILE at the end of the URL",
        "WRONGPASS": "it refuses the user name or the password",
        "DENIED": "it is in protected mode and refuses other machines: give it a password (requirepass, or a user)",
        "NOREPLICAS": "it refuses to write, because it has too few replicas",
    }.get(code, "") or (f"it is too old: {'.'.join(map(str, OLDEST))} or newer is needed" if _unknown(text) else "")


def _unknown(text: str) -> bool:
    return re.match(r"ERR unknown command [`'\"]?HELLO", text, re.IGNORECASE) is not None
