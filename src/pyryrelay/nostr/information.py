"""What the relay tells in plain HTTP: the information document (NIP-11), a page for people, fixed words. PURE.

Every number is read from the options that enforce it, when it is asked for. Limits that are off are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from pyryrelay.nostr.kinds import GIFT_WRAP
from pyryrelay.nostr.options.options import NostrOptions

__all__ = ["CORS", "REFUSAL_WORDS", "ROUTE", "document", "page", "supported_nips"]

ROUTE: Final = "nostr"
"""The name of the route, in logs and metrics."""
REFUSAL_WORDS: Final = ("no_management", "bad_media_type")
"""The reasons of refusals."""
CORS: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Headers", "*, Authorization"),
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"),
)
"""The header fields of every answer: any web page may read it (NIP-11)."""

SOFTWARE: Final = "https://pypi.org/project/pyryrelay/"

_ALWAYS: Final = (1, 2, 4, 9, 11, 13, 28, 40, 65, 67, 70)
_AUTHENTICATION: Final = 42
_COUNT: Final = 45
_PRIVATE_MESSAGES: Final = (17, 59)
_NEED_AUTHENTICATION: Final = ("auth", "allowed-clients")


def supported_nips(options: NostrOptions, *, can_authenticate: bool) -> list[int]:
    """Return the numbers of the NIPs that are in force, ascending.

    ``can_authenticate`` says whether clients can authenticate here at all: without that, gift wraps are served to
    nobody.
    """
    nips = [*_ALWAYS]
    if can_authenticate:
        nips.append(_AUTHENTICATION)
        if GIFT_WRAP in options.nostr_private_kinds:
            nips += _PRIVATE_MESSAGES
    if options.is_counting:
        nips.append(_COUNT)
    return sorted(nips)


def document(options: NostrOptions, *, can_authenticate: bool, version: str) -> bytes:
    """Return the information document, in JSON. ``version`` is that of this program."""
    fees = json.loads(options.nostr_fees) if options.nostr_fees else None
    fields: dict[str, Any] = {
        **_texts(options),
        "supported_nips": supported_nips(options, can_authenticate=can_authenticate),
        "software": SOFTWARE,
        "version": version,
        "limitation": _limitation(options),
        "fees": fees,
    }
    return json.dumps(_given(fields), ensure_ascii=False, separators=(",", ":")).encode()


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _texts(options: NostrOptions) -> dict[str, str]:
    return {
        "name": options.nostr_name,
        "description": options.nostr_description,
        "banner": options.nostr_banner,
        "icon": options.nostr_icon,
        "pubkey": options.nostr_contact_pubkey,
        "contact": options.nostr_contact,
        "terms_of_service": options.nostr_terms_of_service,
        "payments_url": options.nostr_payments_url,
    }


def _limitation(options: NostrOptions) -> dict[str, Any]:
    needs_auth = options.nostr_write in _NEED_AUTHENTICATION and options.nostr_read in _NEED_AUTHENTICATION
    return _given(
        {
            "max_message_length": options.nostr_max_message_bytes,
            "max_subscriptions": options.nostr_max_subscriptions,
            "max_limit": options.nostr_max_limit,
            "default_limit": options.default_limit,
            "max_subid_length": options.nostr_max_subscription_id_chars,
            "max_event_tags": options.nostr_max_tags,
            "max_content_length": options.nostr_max_content_chars,
            "min_pow_difficulty": options.nostr_min_pow,
            "auth_required": needs_auth,
            "payment_required": options.nostr_payment_required,
            "restricted_writes": _is_restricted(options),
            "created_at_lower_limit": _whole(options.nostr_reject_older_s),
            "created_at_upper_limit": _whole(options.nostr_reject_newer_s),
        }
    )


def _is_restricted(options: NostrOptions) -> bool:
    """Tell whether some clients, or some events, are refused by rule."""
    has_kinds = bool(options.nostr_allow_kind or options.nostr_allow_kind_file)
    return options.nostr_write != "open" or has_kinds or options.nostr_min_pow > 0


def _whole(limit_s: float | None) -> int | None:
    return None if limit_s is None else int(limit_s)


def page(options: NostrOptions, *, can_authenticate: bool, version: str) -> bytes:
    """Return a page in HTML with the same texts, all of them escaped, for those who open the URL in a browser."""
    name = options.nostr_name or "Nostr relay"
    rows = [
        *((label, value) for label, value in _rows(options).items() if value),
        ("NIPs", ", ".join(map(str, supported_nips(options, can_authenticate=can_authenticate)))),
        ("Software", f"pyryrelay {version}, {SOFTWARE}"),
    ]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(name)}</title></head><body>",
        f"<h1>{escape(name)}</h1>",
        *(f"<p>{escape(text)}</p>" for text in options.nostr_description.splitlines() if text.strip()),
        "<p>This is a Nostr relay. Add its address to a Nostr client to use it.</p>",
        "<dl>",
        *(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in rows),
        "</dl></body></html>",
        "",
    ]
    return "\n".join(lines).encode()


def _rows(options: NostrOptions) -> dict[str, str]:
    return {
        "Address": options.nostr_url,
        "Operator": options.nostr_contact_pubkey,
        "Contact": options.nostr_contact,
        "Terms of service": options.nostr_terms_of_service,
        "Payments": options.nostr_payments_url,
    }
