"""The pages that answer HTTP-01."""

from __future__ import annotations

from collections.abc import Callable

from pyryrelay.acme.challenges import PATH, HttpChallenges
from pyryrelay.protocol import Page


def test_a_token_is_answered_until_it_is_forgotten() -> None:
    """The answer is the key authorization, and nothing else (RFC 8555 section 8.3)."""
    pages: dict[str, Callable[[], Page]] = {"/healthz": lambda: Page(200)}
    challenges = HttpChallenges(pages)
    challenges.answer("token", "token.thumbprint")
    page = pages[f"{PATH}token"]()
    assert (page.status, page.body) == (200, b"token.thumbprint")
    challenges.forget("token")
    challenges.forget("token")
    assert list(pages) == ["/healthz"]


def test_a_token_cannot_hide_another_page() -> None:
    """Whatever an authority calls it, it is below its folder."""
    pages: dict[str, Callable[[], Page]] = {"/healthz": lambda: Page(200)}
    HttpChallenges(pages).answer("/healthz", "text")
    assert pages["/healthz"]() == Page(200)
