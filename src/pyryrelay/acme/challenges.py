"""The answers to challenges of HTTP-01: plain pages below a path that RFC 8555 section 8.3 fixes."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Final

from pyryrelay.protocol import Page

__all__ = ["PATH", "HttpChallenges"]

PATH: Final = "/.well-known/acme-challenge/"


class HttpChallenges:
    """Adds the answers to ``pages``, those of the public listeners, and removes them again."""

    def __init__(self, pages: MutableMapping[str, Callable[[], Page]]) -> None:
        self._pages = pages

    def answer(self, token: str, text: str) -> None:
        """Answer a token with a text from now on."""
        page = Page(200, (("Content-Type", "application/octet-stream"),), text.encode("ascii"))
        self._pages[PATH + token] = lambda: page

    def forget(self, token: str) -> None:
        """Answer a token no longer."""
        self._pages.pop(PATH + token, None)
