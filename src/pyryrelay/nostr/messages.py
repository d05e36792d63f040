"""Messages: what a client's text means, the replies to malformed ones, and builders for what the relay sends.

PURE. Section 2 of the specification; texts of refusals as in its section 19.

Invariants:

- ``parse`` raises nothing, whatever the bytes, and takes linear time. Replies contain nothing of the content but ids.
- A message that has an id to answer is answered with it: a client that counts answers would wait for ever on a NOTICE.
- Subscription ids are encoded as JSON strings again; the client's own spelling is never pasted.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal, TypeAlias

import msgspec

from pyryrelay.nostr.events import (
    DECODE_ERRORS,
    MAX_DEPTH,
    MAX_DIGITS,
    NOT_JSON,
    Event,
    EventError,
    examine_event,
    is_json,
    is_strict,
)
from pyryrelay.nostr.filters import Filter, FilterError, parse_filter

OTHER: Final = "other"
"""The verb of what has none, or an unknown one."""
VERBS: Final = ("EVENT", "REQ", "CLOSE", "COUNT", "AUTH", "NEG-OPEN", "NEG-MSG", "NEG-CLOSE", OTHER)
"""The verbs of clients, fit for metric labels."""
SENT_VERBS: Final = ("EVENT", "OK", "EOSE", "CLOSED", "NOTICE", "AUTH", "COUNT", "NEG-ERR")
"""The verbs of the relay, fit for metric labels."""

MAX_ID_CHARACTERS: Final = 64
MAX_ANSWERED_ID_CHARACTERS: Final = 256
"""A REQ or COUNT with a longer id is not answered with it."""

BINARY: Final = "invalid: binary messages are not understood"
NOT_A_MESSAGE: Final = "invalid: not a message"
UNKNOWN_VERB: Final = "unsupported: unknown verb"
BAD_ID: Final = "invalid: subscription id must have 1 to {} characters"
NO_FILTER: Final = "invalid: no filter"
NO_NEGENTROPY: Final = "unsupported: negentropy is off here"


class EventMessage(msgspec.Struct, frozen=True, gc=False):
    """A client publishes an event. Its id and signature are not verified yet."""

    event: Event
    verb: ClassVar[str] = "EVENT"


class AuthMessage(msgspec.Struct, frozen=True, gc=False):
    """A client authenticates with an event. Its id and signature are not verified yet."""

    event: Event
    verb: ClassVar[str] = "AUTH"


class ReqMessage(msgspec.Struct, frozen=True, gc=False):
    """A client subscribes."""

    id_json: bytes
    """The id as a JSON string, as all replies have it."""
    id: str
    filters: tuple[Filter, ...]
    verb: ClassVar[str] = "REQ"


class CountMessage(msgspec.Struct, frozen=True, gc=False):
    """A client wants to know how many events match. ``id_json`` and ``filters`` are as for REQ."""

    id_json: bytes
    id: str
    filters: tuple[Filter, ...]
    verb: ClassVar[str] = "COUNT"


class CloseMessage(msgspec.Struct, frozen=True, gc=False):
    """A client ends a subscription, or a count that has not been answered."""

    id: str
    verb: ClassVar[str] = "CLOSE"


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """Nothing to do and nothing to answer."""

    verb: str = OTHER


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """Not a proper message: it costs a token of ``--nostr-invalid-quota``."""

    reply: bytes
    """The message to send."""
    closes: str | None = None
    """The id of the subscription that ends, if one is open: the reply closes it."""
    verb: str = OTHER


class Unsupported(msgspec.Struct, frozen=True, gc=False):
    """A proper message that this relay does not understand: as ``Malformed``, but without costs."""

    reply: bytes
    closes: str | None = None
    verb: str = OTHER


ClientMessage: TypeAlias = (
    EventMessage | ReqMessage | CloseMessage | CountMessage | AuthMessage | Ignored | Malformed | Unsupported
)

_encode = msgspec.json.Encoder().encode


# What the relay sends


def ok(event_id: str, accepted: bool, text: str = "") -> bytes:
    """Return the answer to EVENT and AUTH. Only with ``accepted`` the text may be empty."""
    return b'["OK","%b",%b,%b]' % (event_id.encode(), b"true" if accepted else b"false", _encode(text))


def closed(id_json: bytes, text: str) -> bytes:
    """Return the refusal or the end of a subscription."""
    return b'["CLOSED",%b,%b]' % (id_json, _encode(text))


def eose(id_json: bytes, hint: str | None = None) -> bytes:
    """Return the end of the stored events, with the hint of NIP-67: ``finish``, ``more`` or None."""
    return b'["EOSE",%b,[%b]]' % (id_json, _encode(hint)) if hint else b'["EOSE",%b]' % id_json


def count(id_json: bytes, number: int, approximate: bool = False, hll: str | None = None) -> bytes:
    """Return the answer to COUNT. ``hll`` are the 512 hex digits of NIP-45, if the answer has them."""
    members = b'"count":%d' % number
    if approximate:
        members += b',"approximate":true'
    if hll is not None:
        members += b',"hll":"%b"' % hll.encode()
    return b'["COUNT",%b,{%b}]' % (id_json, members)


def notice(text: str) -> bytes:
    """Return a message for the person, where no id can be answered."""
    return b'["NOTICE",%b]' % _encode(text)


def auth(challenge: str) -> bytes:
    """Return the challenge of NIP-42."""
    return b'["AUTH",%b]' % _encode(challenge)


def negentropy_error(id_json: bytes, text: str) -> bytes:
    """Return the refusal of NEG-OPEN and NEG-MSG."""
    return b'["NEG-ERR",%b,%b]' % (id_json, _encode(text))


def event_before(id_json: bytes) -> bytes:
    """Return what stands before the canonical object of an event that is sent to a subscription."""
    return b'["EVENT",' + id_json + b","


EVENT_AFTER: Final = b"]"
"""What stands after the canonical object of an event that is sent to a subscription."""


# What clients send

_EVENT_BEGINS: Final = b'["EVENT",'
_decode_event_message = msgspec.json.Decoder(tuple[Literal["EVENT"], Event]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_SPELLED: Final = {_encode(verb): verb for verb in VERBS if verb != OTHER}
_HAS_SUBSCRIPTION_ID: Final = frozenset({"REQ", "COUNT", "NEG-OPEN", "NEG-MSG"})

_SIMPLIFIED: Final = bytes(
    0x30 if byte in b"-+.0123456789eE" else 0x20 if byte in b"[,: \t\r\n" else 0x22 for byte in range(256)
)
"""Zeros for what numbers consist of, blanks for what stands before them, and quotes for the rest."""
_LONG_NUMBER: Final = b" " + b"0" * (MAX_DIGITS + 1)

MAX_SALVAGED_BYTES: Final = 128 * 1024
_SALVAGE: Final = re.compile(
    rb'[ \t\r\n]*\[[ \t\r\n]*"(EVENT|AUTH)".*?"id"[ \t\r\n]*:[ \t\r\n]*"([0-9a-f]{64})"', re.DOTALL
)


def parse(
    payload: bytes,
    is_binary: bool = False,
    max_id_characters: int = MAX_ID_CHARACTERS,
    max_filters: int | None = None,
) -> ClientMessage:
    """Return what one WebSocket message means. Text messages are known to be UTF-8.

    Ids of subscriptions, which have at most ``max_id_characters``, and syntax are checked here; other limits, quotas
    and signatures are not. Of more than ``max_filters`` filters only the first are read, and one more than that are
    returned: so many are refused anyway, and a message may hold 80,000 of them.
    """
    if is_binary:
        return Malformed(notice(BINARY))
    if payload.startswith(_EVENT_BEGINS):
        try:
            event = _decode_event_message(payload)[1]
            if is_strict(event, payload):
                return EventMessage(event)
        except DECODE_ERRORS:
            pass
    try:
        items = _decode_items(payload)
    except DECODE_ERRORS:
        return _no_array(payload)
    if not (_is_plain(payload) or is_json(payload)):
        return _no_json(payload)
    verb = _verb(items)
    if verb is None:
        return Malformed(notice(NOT_A_MESSAGE))
    if verb in ("EVENT", "AUTH"):
        return _with_event(verb, items)
    if verb in _HAS_SUBSCRIPTION_ID:
        return _with_subscription_id(verb, items, max_id_characters, max_filters)
    if verb == "CLOSE":
        closed_id = _string(items[1]) if len(items) > 1 else None
        return Ignored(verb) if closed_id is None else CloseMessage(closed_id)
    return Ignored(verb) if verb == "NEG-CLOSE" else Malformed(notice(UNKNOWN_VERB))


def _is_plain(payload: bytes) -> bool:
    """Tell quickly whether a text that msgspec accepts is strict JSON; False only means that ``is_json`` decides."""
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH:
        return False
    return _LONG_NUMBER not in payload.translate(_SIMPLIFIED)


def _no_array(payload: bytes) -> ClientMessage:
    """Answer a text that is not an array, or no JSON."""
    if not payload or payload.isspace():
        return Ignored()
    return Malformed(notice(NOT_A_MESSAGE)) if is_json(payload) else _no_json(payload)


def _no_json(payload: bytes) -> Malformed:
    """Answer a text that is no JSON: with the id of its event, if it seems to have one."""
    found = _SALVAGE.match(payload, 0, MAX_SALVAGED_BYTES)
    if found is None:
        return Malformed(notice(NOT_JSON))
    return Malformed(ok(found[2].decode(), False, NOT_JSON), verb=found[1].decode())


def _string(raw: msgspec.Raw) -> str | None:
    """Return the value of a JSON string, None for any other value."""
    try:
        return _decode_string(raw)
    except DECODE_ERRORS:
        return None


def _verb(items: list[msgspec.Raw]) -> str | None:
    """Return the verb of a message, ``other`` for an unknown one, and None if there is none."""
    if not items:
        return None
    text = bytes(items[0])
    verb = _SPELLED.get(text)
    if verb is not None or (value := _string(items[0])) is None:
        return verb
    # A verb may be spelled with escapes.
    return _SPELLED.get(_encode(value), OTHER)


def _with_event(verb: str, items: list[msgspec.Raw]) -> ClientMessage:
    """Read EVENT and AUTH."""
    if len(items) != 2:
        return Malformed(notice(f"invalid: {verb} must have 2 elements"), verb=verb)
    try:
        event = examine_event(bytes(items[1]))
    except EventError as error:
        reply = notice(error.text) if error.event_id is None else ok(error.event_id, False, error.text)
        return Malformed(reply, verb=verb)
    return EventMessage(event) if verb == "EVENT" else AuthMessage(event)


def _with_subscription_id(
    verb: str, items: list[msgspec.Raw], max_id_characters: int, max_filters: int | None
) -> ClientMessage:
    """Read REQ and COUNT, and refuse NEG-OPEN and NEG-MSG."""
    subscription_id = _string(items[1]) if len(items) > 1 else None
    is_query = verb in ("REQ", "COUNT")
    if subscription_id is None or not 1 <= len(subscription_id) <= max_id_characters:
        text = BAD_ID.format(max_id_characters)
        if is_query and subscription_id is not None and len(subscription_id) <= MAX_ANSWERED_ID_CHARACTERS:
            return Malformed(closed(_encode(subscription_id), text), verb=verb)
        return Malformed(notice(text), verb=verb)
    id_json = _encode(subscription_id)
    if not is_query:
        return Unsupported(negentropy_error(id_json, NO_NEGENTROPY), verb=verb)
    # Ids of REQ and of COUNT have nothing to do with each other.
    closes = subscription_id if verb == "REQ" else None
    if len(items) == 2:
        return Malformed(closed(id_json, NO_FILTER), closes, verb)
    try:
        end = None if max_filters is None else 3 + max_filters
        filters = tuple([parse_filter(item) for item in items[2:end]])
    except FilterError as error:
        refused = Unsupported if error.text.startswith("unsupported:") else Malformed
        return refused(closed(id_json, error.text), closes, verb)
    return (ReqMessage if verb == "REQ" else CountMessage)(id_json, subscription_id, filters)
