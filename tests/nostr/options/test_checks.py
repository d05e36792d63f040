"""Contradictions of Nostr's options, and what is probably a mistake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pyryrelay.config.settings import SharedSettings
from pyryrelay.nostr.options.checks import CHECKS, DATABASE, about_database, contradictions, mistakes
from pyryrelay.nostr.options.options import NostrOptions

PUBLIC: dict[str, Any] = {"listen": ("tcp:8080",)}
URL: dict[str, Any] = {"nostr_url": "wss://relay.example.com/"}
KEYS: dict[str, Any] = {"nostr_allow_pubkey": frozenset({"a" * 64})}


@dataclass(frozen=True, kw_only=True)
class NostrSettings(NostrOptions, SharedSettings):
    """The settings of a relay that speaks Nostr only."""


def problems_of(**given: Any) -> list[str]:
    """Return the problems of a relay with these settings."""
    settings = NostrSettings(**{"nostr": True, **given})
    return [str(finding) for finding in contradictions(settings, settings)]


def warnings_of(**given: Any) -> list[str]:
    """Return the warnings of a relay with these settings."""
    settings = NostrSettings(**{"nostr": True, **given})
    found = mistakes(settings, settings)
    assert {finding.check for finding in found} <= {*CHECKS}
    return [str(finding) for finding in found]


def test_the_defaults_are_fine() -> None:
    """A relay that is turned on and nothing else has neither problems nor warnings."""
    assert problems_of() == warnings_of() == []


def test_a_relay_that_is_off_is_fine() -> None:
    """Options that are not used are not looked at."""
    given = {"nostr": False, "nostr_write": "auth", "nostr_name": "x" * 40, **PUBLIC}
    assert problems_of(**given) == warnings_of(**given) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"nostr_write": "auth"}, "--nostr-write (from default): 'auth' needs authentication"),
        ({"nostr_write": "allowed-clients"}, "--nostr-write (from default): 'allowed-clients' needs authentication"),
        ({"nostr_read": "allowed-clients"}, "--nostr-read (from default): 'allowed-clients' needs authentication"),
        ({"nostr_giftwrap_auth": True}, "--nostr-giftwrap-auth (from default): 'true' needs authentication"),
    ],
)
def test_what_needs_authentication(given: dict[str, Any], expected: str) -> None:
    """Where clients cannot authenticate, nothing may need it; with a URL, or on loopback interfaces, they can."""
    (line,) = problems_of(**given, **PUBLIC)
    assert line.startswith(expected)
    assert line.endswith("add --nostr-url with the URL that clients use")
    assert problems_of(**given) == problems_of(**given, **PUBLIC, **URL) == []


def test_authors_need_no_authentication() -> None:
    """An allow list of authors works without authentication."""
    assert problems_of(nostr_write="allowed-authors", **PUBLIC) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PUBLIC, "--nostr without --nostr-url: clients cannot authenticate, so direct messages"),
        ({"trust_x_forwarded_for": True}, "--nostr behind a proxy without --nostr-url: only clients on this machine"),
        (KEYS, "--nostr-allow-pubkey has no effect: everybody may write and read"),
        ({"nostr_allow_pubkey_file": ("a",)}, "--nostr-allow-pubkey has no effect: everybody may write and read"),
        ({"nostr_write": "allowed-authors"}, "the list of allowed keys is empty"),
        ({"nostr_read": "allowed-clients"}, "the list of allowed keys is empty"),
        ({"nostr_inbox": True}, "the list of allowed keys is empty"),
        ({"nostr_payment_required": True}, "--nostr-payment-required without --nostr-payments-url"),
        ({"nostr_name": "x" * 31}, "--nostr-name has more than 30 characters"),
        ({"nostr_durability": "relaxed"}, "--nostr-durability 'relaxed': a power failure may lose events"),
    ],
)
def test_probable_mistakes(given: dict[str, Any], expected: str) -> None:
    """Each is told in one line, with what to do about it."""
    (line,) = warnings_of(**given)
    assert line.startswith(expected)
    assert line.isprintable()


@pytest.mark.parametrize(
    "given",
    [
        {**PUBLIC, **URL},
        {"trust_x_forwarded_for": True, **URL},
        {"nostr_write": "allowed-authors", **KEYS},
        {"nostr_inbox": True, **KEYS},
        {"nostr_payment_required": True, "nostr_payments_url": "https://x/"},
        {"nostr_name": "x" * 30},
    ],
)
def test_what_is_no_mistake(given: dict[str, Any]) -> None:
    """Options that belong together cause no warning."""
    assert warnings_of(**given) == []


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("it is damaged: restore a backup", "--nostr-database: it is damaged; restore a backup"),
        (
            "disk I/O error: 0x1",
            "--nostr-database: disk I/O error: 0x1; choose another database, or restore this one from a backup",
        ),
    ],
)
def test_problems_of_the_database(problem: str, line: str) -> None:
    """A fix at the end of the text is kept apart from it; one without a fix gets one."""
    assert str(about_database(DATABASE, problem)) == line
