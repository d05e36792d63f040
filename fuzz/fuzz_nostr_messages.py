"""Nostr messages: nothing is raised, each malformed one has one reply, and a slow reader agrees on what is no JSON.

Input: one text message.
"""

from __future__ import annotations

import json

import strict_json
from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.nostr.events import NOT_JSON, canonical
    from pyryrelay.nostr.messages import (
        EVENT_AFTER,
        MAX_ID_CHARACTERS,
        SENT_VERBS,
        VERBS,
        AuthMessage,
        ClientMessage,
        CountMessage,
        EventMessage,
        Ignored,
        Malformed,
        ReqMessage,
        Unsupported,
        event_before,
        parse,
    )

PREFIXES = ("invalid: ", "unsupported: ")


def check(data: bytes) -> None:
    """Parse a message, and check its reply or its parts."""
    message = parse(data)
    ensure(message.verb in VERBS, "verbs are known")
    ensure(parse(data) == message or isinstance(message, EventMessage | AuthMessage), "the same text means the same")
    if isinstance(message, Malformed | Unsupported):
        check_reply(message)
    elif isinstance(message, ReqMessage | CountMessage):
        ensure(json.loads(message.id_json) == message.id, "the id comes back")
        ensure(1 <= len(message.id) <= MAX_ID_CHARACTERS and bool(message.filters), "a query has an id and a filter")
    elif isinstance(message, EventMessage | AuthMessage):
        text = canonical(message.event).json
        again = parse(b'["EVENT",' + text + b"]")
        ensure(isinstance(again, EventMessage) and canonical(again.event).json == text, "an event is read again")
        sent = json.loads(event_before(b'"s"') + text + EVENT_AFTER)
        ensure(sent == ["EVENT", "s", json.loads(text)], "an event can be spliced")
    if is_utf8(data) and not (isinstance(message, Ignored) and not data.strip()):
        ensure(says_no_json(message) is not is_json(data), "what is no JSON is what the reference refuses")


def check_reply(message: Malformed | Unsupported) -> None:
    """Check that a reply is one message of a relay, in one spelling."""
    reply = json.loads(message.reply)
    ensure(reply[0] in SENT_VERBS and reply[-1].startswith(PREFIXES), "a reply has a verb and a prefix")
    text = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
    ensure(text == message.reply, "another encoder writes the same reply")
    if message.closes is not None:
        ensure(message.verb == "REQ" and reply[:2] == ["CLOSED", message.closes], "what is closed is told")


def says_no_json(message: ClientMessage) -> bool:
    """Tell whether the reply says that the text is no JSON."""
    if not isinstance(message, Malformed):
        return False
    verb, *_, text = json.loads(message.reply)
    # Filters may say it themselves, of numbers that no reader can hold.
    return bool(verb != "CLOSED" and text == NOT_JSON)


def is_json(data: bytes) -> bool:
    """Return whether the reference accepts a text."""
    try:
        strict_json.read(data)
    except strict_json.NotJsonError:
        return False
    return True


def is_utf8(data: bytes) -> bool:
    """Return whether a payload is UTF-8, as those of text messages are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


if __name__ == "__main__":
    main(check)
