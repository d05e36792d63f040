"""Nostr events: only `EventError` is raised, a slow reader accepts the same events, and canonical forms are stable.

Input: the JSON text of an event.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import strict_json
from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.nostr.events import (
        MAX_CREATED_AT,
        MAX_KIND,
        NOT_JSON,
        Event,
        EventError,
        canonical,
        event_id,
        expiration,
        indexed_tags,
        is_json,
        parse_event,
        stored_event,
    )
    from pyryrelay.nostr.kinds import address

FIELDS = ("id", "pubkey", "created_at", "kind", "tags", "content", "sig")
HEX_DIGITS = {"id": 64, "pubkey": 64, "sig": 128}
HEX = re.compile(r"[0-9a-f]+\Z")


def check(data: bytes) -> None:
    """Parse an event, and its canonical form again."""
    expected = reference(data)
    try:
        event = parse_event(data)
    except EventError as error:
        ensure(error.text.startswith("invalid: ") and error.text.isprintable(), "a refusal is one line with its prefix")
        ensure((error.text == NOT_JSON) is not is_json(data), "only what is no JSON is called so")
        ensure(expected is None, "an event is accepted if the reference accepts it")
        return
    ensure({name: getattr(event, name) for name in FIELDS} == expected, "an event has the values of its text")
    check_forms(event)
    ensure(all(len(name) == 1 and name.isascii() for name, _ in indexed_tags(event)), "indexed names are letters")
    ensure(address(event) is None or address(event) == address(stored_event(canonical(event).json)), "same address")
    try:
        at = expiration(event)
    except EventError:
        return
    ensure(at is None or 0 <= at <= MAX_CREATED_AT, "an expiration is a time")


def check_forms(event: Event) -> None:
    """Check the canonical texts of an event."""
    form = canonical(event)
    for again in (parse_event(form.json), stored_event(form.json)):
        ensure(canonical(again) == form, "the canonical form is read again")
    values = [0, event.pubkey, event.created_at, event.kind, event.tags, event.content]
    # The standard library escapes as the specification does, but for 0x7F, which neither escapes.
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    ensure(form.preimage == text, "another encoder writes the same")
    ensure(event_id(form.preimage) == hashlib.sha256(text).hexdigest(), "the id is the hash")


def reference(data: bytes) -> dict[str, Any] | None:
    """Return the fields of an event, or None if the text is none."""
    try:
        value = strict_json.read(data)
    except strict_json.NotJsonError:
        ensure(not is_json(data), "what the reference refuses is no JSON")
        return None
    ensure(is_json(data), "what the reference accepts is JSON")
    if not isinstance(value, dict) or not value.keys() >= set(FIELDS):
        return None
    fields: dict[str, Any] = {name: value[name] for name in FIELDS}
    strings = all(is_string(fields[name]) for name in ("id", "pubkey", "content", "sig"))
    if (
        not strings
        or not is_hex(fields["id"], 64)
        or not is_hex(fields["pubkey"], 64)
        or not is_hex(fields["sig"], 128)
    ):
        return None
    for name, most in (("created_at", MAX_CREATED_AT), ("kind", MAX_KIND)):
        if not isinstance(fields[name], strict_json.Number) or not fields[name].isdigit() or int(fields[name]) > most:
            return None
        fields[name] = int(fields[name])
    return fields if is_tags(fields["tags"]) else None


def is_string(value: object) -> bool:
    """Tell whether a value was a JSON string."""
    return isinstance(value, str) and not isinstance(value, strict_json.Number)


def is_hex(value: str, digits: int) -> bool:
    """Tell whether a string has so many lower-case hex digits."""
    return len(value) == digits and HEX.match(value) is not None


def is_tags(value: object) -> bool:
    """Tell whether a value is an array of arrays of strings."""
    return isinstance(value, list) and all(isinstance(tag, list) and all(map(is_string, tag)) for tag in value)


if __name__ == "__main__":
    main(check)
