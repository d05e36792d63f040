"""Refusals: the texts of the specification, their words, and the operator's texts."""

from __future__ import annotations

import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.refusal import TEMPLATES, Refused, Template, Texts, wait_text_s

PREFIXES = ("duplicate", "pow", "blocked", "rate-limited", "invalid", "restricted", "mute", "error", "auth-required")
FIGURES = {"N": "7", "S": "12", "D": "3", "T": "-4", "FIELD": "kind", "KEY": "#e", "URL": "https://x/", "...": "a list"}


def filled(template: Template) -> Refused:
    """Return a refusal with a figure for each name."""
    return template(*(FIGURES[name] for name in template.figures()))


def test_prefixes_are_registered() -> None:
    """No text has another prefix than those of NIP-01 and ``unsupported``."""
    assert {template.prefix for template in TEMPLATES.values()} == {*PREFIXES, "unsupported"}


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (refusal.EVENT_TOO_LARGE(131072), "invalid: event is larger than 131072 bytes"),
        (refusal.KIND_REFUSED(4), "blocked: kind 4 is not accepted here"),
        (refusal.TOO_NEW(900), "invalid: created_at is more than 900 s in the future"),
        (refusal.DIFFICULTY(3, 20), "pow: difficulty 3 is less than 20"),
        (refusal.TARGET(8, 20), "pow: committed target 8 is less than 20"),
        (refusal.TOO_MANY_EVENTS(3), "rate-limited: too many events, try again in 3 s"),
        (refusal.REGISTER("https://example.com/"), "restricted: register at https://example.com/"),
        (refusal.DUPLICATE(), "duplicate: already have this event"),
        (refusal.SUBSCRIPTION_ID(64), "invalid: subscription id must have 1 to 64 characters"),
        (refusal.NOT_STORED(), "error: could not store the event"),
    ],
)
def test_texts_are_those_of_the_specification(refused: Refused, text: str) -> None:
    """Figures stand where the specification has capitals."""
    assert refused.text == text


def test_who_needs_to_authenticate() -> None:
    """Texts with the prefix ``auth-required``, and no others, need a challenge before them."""
    needing = {key for key, template in TEMPLATES.items() if filled(template).needs_auth}
    assert needing == {key for key, template in TEMPLATES.items() if template.prefix == "auth-required"} != set()


def test_words_are_fit_for_labels() -> None:
    """Words have lower-case letters and underscores only, and every refusal has one that is listed."""
    assert all(re.fullmatch("[a-z_]+", word) for word in refusal.WORDS)
    assert {*refusal.EVENT_WORDS, *refusal.CLOSED_WORDS, *refusal.AUTH_WORDS} == {*refusal.WORDS}
    no_refusals = {refusal.DUPLICATE, refusal.SUPERSEDED, refusal.NOBODY}
    assert {template.word for template in {*TEMPLATES.values()} - no_refusals} == {*refusal.WORDS}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda template: template.key)
def test_the_operator_can_say_each_text(template: Template) -> None:
    """With a text in the table, clients see that one after the same prefix, with the figures."""
    names = template.figures()
    texts = Texts({template.key: " / ".join(["anders", *names])})
    shown = " / ".join(["anders", *(FIGURES[name] for name in names)])
    assert texts(filled(template).text) == f"{template.prefix}: {shown}"


def test_other_texts_stay() -> None:
    """A text that is not in the table is not changed; without a table nothing is."""
    texts = Texts({"blocked this key is banned": "gesperrt"})
    assert texts("blocked: this event is banned") == "blocked: this event is banned"
    assert bool(texts)
    assert not Texts()
    assert Texts()("blocked: this key is banned") == "blocked: this key is banned"


def test_whole_messages() -> None:
    """The text of a message that was made elsewhere is replaced, and nothing else of it."""
    texts = Texts({"invalid no filter": "kein Filter für dich"})
    assert texts.reply('["CLOSED","ü","invalid: no filter"]'.encode()) == (
        '["CLOSED","ü","invalid: kein Filter für dich"]'.encode()
    )
    assert texts.reply(b'["NOTICE","invalid: not JSON"]') == b'["NOTICE","invalid: not JSON"]'
    assert Texts().reply(b"anything") == b"anything"


def test_a_general_text_does_not_stand_for_a_particular_one() -> None:
    """A text for "FIELD must be ..." changes texts of fields, and not those that only look like it."""
    texts = Texts({"invalid FIELD must be ...": "FIELD: ... erwartet"})
    assert texts("invalid: kind must be an integer") == "invalid: kind: an integer erwartet"
    assert texts("invalid: kind must be 22242") == "invalid: kind must be 22242"


def test_an_unknown_text_is_an_error() -> None:
    """A table has texts of this relay only."""
    with pytest.raises(KeyError):
        Texts({"blocked nothing": "nichts"})


@given(st.floats(min_value=0, max_value=1e6))
def test_waits_are_rounded_up(wait_s: float) -> None:
    """A client that waits as long as it is told has waited long enough, and never less than a second."""
    assert max(wait_s, 1) <= wait_text_s(wait_s) < wait_s + 2


def test_a_wait_for_ever_is_a_number() -> None:
    """A client that asks for more than there ever is, is told a long time."""
    assert wait_text_s(inf) == 366 * 86_400
