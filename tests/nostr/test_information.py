"""The information document and the page: every number is the one that is enforced."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.information import document, page, supported_nips
from pyryrelay.nostr.options.options import NostrOptions

ALWAYS = {1, 2, 4, 9, 11, 13, 28, 40, 65, 67, 70}
KEY = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d"


def read(**options: Any) -> dict[str, Any]:
    """Return the document of these options."""
    text = document(NostrOptions(**options), can_authenticate=True, version="26.1.0")
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_document_of_the_defaults() -> None:
    """What is unset is absent, and every limit is that of the specification."""
    assert read() == {
        "supported_nips": [1, 2, 4, 9, 11, 13, 17, 28, 40, 42, 45, 59, 65, 67, 70],
        "software": "https://pypi.org/project/pyryrelay/",
        "version": "26.1.0",
        "limitation": {
            "max_message_length": 262144,
            "max_subscriptions": 128,
            "max_limit": 500,
            "default_limit": 500,
            "max_subid_length": 64,
            "max_event_tags": 2000,
            "max_content_length": 102400,
            "min_pow_difficulty": 0,
            "auth_required": False,
            "payment_required": False,
            "restricted_writes": False,
            "created_at_lower_limit": 94608000,
            "created_at_upper_limit": 900,
        },
    }


@pytest.mark.parametrize(
    ("can_authenticate", "options", "nips"),
    [
        (True, {}, ALWAYS | {17, 42, 45, 59}),
        (False, {}, ALWAYS | {45}),
        (True, {"nostr_max_count": 0}, ALWAYS | {17, 42, 59}),
        (True, {"nostr_max_count": None}, ALWAYS | {17, 42, 45, 59}),
        (True, {"nostr_private_kinds": frozenset({4})}, ALWAYS | {42, 45}),
    ],
)
def test_nips_that_are_in_force(*, can_authenticate: bool, options: dict[str, Any], nips: set[int]) -> None:
    """What is off is not advertised, and the numbers ascend."""
    assert supported_nips(NostrOptions(**options), can_authenticate=can_authenticate) == sorted(nips)


@pytest.mark.parametrize(
    ("field", "value", "name", "shown"),
    [
        ("nostr_max_message_bytes", 131072, "max_message_length", 131072),
        ("nostr_max_subscriptions", 20, "max_subscriptions", 20),
        ("nostr_max_subscriptions", None, "max_subscriptions", None),
        ("nostr_max_limit", 100, "max_limit", 100),
        ("nostr_max_limit", None, "max_limit", None),
        ("nostr_max_limit", 100, "default_limit", 100),
        ("nostr_max_limit", None, "default_limit", 500),
        ("nostr_default_limit", 50, "default_limit", 50),
        ("nostr_default_limit", None, "default_limit", 500),
        ("nostr_max_subscription_id_chars", 256, "max_subid_length", 256),
        ("nostr_max_tags", None, "max_event_tags", None),
        ("nostr_max_content_chars", None, "max_content_length", None),
        ("nostr_min_pow", 20, "min_pow_difficulty", 20),
        ("nostr_payment_required", True, "payment_required", True),
        ("nostr_reject_older_s", None, "created_at_lower_limit", None),
        ("nostr_reject_newer_s", 1800.0, "created_at_upper_limit", 1800),
        ("nostr_write", "allowed-authors", "restricted_writes", True),
        ("nostr_allow_kind", frozenset({1}), "restricted_writes", True),
        ("nostr_allow_kind_file", ("kinds",), "restricted_writes", True),
        ("nostr_min_pow", 1, "restricted_writes", True),
        ("nostr_deny_kind", frozenset({1}), "restricted_writes", False),
    ],
)
def test_limits_follow_the_options(field: str, value: object, name: str, shown: object) -> None:
    """A limit is shown as it is enforced, and left out where it is off."""
    assert read(**{field: value})["limitation"].get(name) == shown


def test_no_limit_at_all() -> None:
    """Where neither limit of stored events is on, there is no default."""
    limitation = read(nostr_max_limit=None, nostr_default_limit=None)["limitation"]
    assert not {"max_limit", "default_limit"} & {*limitation}


@pytest.mark.parametrize(
    ("write", "reading", "is_required"),
    [
        ("auth", "auth", True),
        ("allowed-clients", "auth", True),
        ("auth", "open", False),
        ("open", "allowed-clients", False),
        ("allowed-authors", "auth", False),
    ],
)
def test_authentication_is_required_for_both(write: str, reading: str, *, is_required: bool) -> None:
    """Clients need to authenticate if they can neither write nor read without."""
    assert read(nostr_write=write, nostr_read=reading)["limitation"]["auth_required"] is is_required


def test_texts() -> None:
    """Texts are passed on as they are, and fees as JSON."""
    texts = {
        "nostr_name": "Größe",
        "nostr_description": "Two\nlines",
        "nostr_banner": "https://x/b",
        "nostr_icon": "https://x/i",
        "nostr_contact_pubkey": KEY,
        "nostr_contact": "mailto:a@b",
        "nostr_terms_of_service": "https://x/t",
        "nostr_payments_url": "https://x/p",
    }
    found = read(**texts, nostr_fees='{"admission":[{"amount":1,"unit":"msats"}]}')
    names = [
        field.removeprefix("nostr_").removeprefix("contact_") if "pubkey" in field else field[6:] for field in texts
    ]
    assert [found[name] for name in names] == list(texts.values())
    assert found["fees"] == {"admission": [{"amount": 1, "unit": "msats"}]}


@given(st.text(), st.text())
def test_the_page_is_escaped(name: str, description: str) -> None:
    """Whatever the operator writes is text, and no markup of its own."""
    options = NostrOptions(nostr_name=f"<b>{name}", nostr_description=f"<script>{description}\n&", nostr_contact='"<')
    text = page(options, can_authenticate=True, version="<1>").decode("utf-8", "surrogatepass")
    assert not any(mark in text for mark in ("<b>", "<script>", '"<', "<1>"))
    assert "&lt;script&gt;" in text


def test_the_page_of_the_defaults() -> None:
    """A relay without texts says what it is, and which NIPs it has."""
    text = page(NostrOptions(), can_authenticate=False, version="26.1.0").decode()
    assert "<h1>Nostr relay</h1>" in text
    assert "1, 2, 4, 9, 11, 13, 28, 40, 45, 65, 67, 70" in text
    assert "pyryrelay 26.1.0" in text
    assert "Operator" not in text
