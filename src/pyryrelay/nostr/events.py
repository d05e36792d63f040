"""Events (NIP-01): reading them strictly, and the canonical form that is stored, sent and hashed.

PURE. Ids, keys and signatures are lower-case hex ``str``; times are unix seconds. Nothing here verifies an id or a
signature.

Invariants:

- What ``parse_event`` accepts has exactly one canonical form, and reading that form gives the same event again.
- Arbitrary bytes raise ``EventError`` and nothing else, in linear time. Its text contains nothing of the content.
- Strings are kept as they are: no normalisation, no trimming, no change of case.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec

MAX_CREATED_AT: Final = 2**53 - 1
"""The largest ``created_at``: the largest integer that JSON readers with floats represent exactly."""
MAX_KIND: Final = 65_535
MAX_DEPTH: Final = 32
"""Levels of arrays and objects in a text, that of the message included."""
MAX_DIGITS: Final = 20
"""Digits of one number, with those of its fraction and exponent."""

NOT_JSON: Final = "invalid: not JSON"


class Event(msgspec.Struct, frozen=True, eq=False, gc=False, forbid_unknown_fields=True):
    """A Nostr event whose fields have the right types and ranges."""

    id: str
    pubkey: str
    created_at: Annotated[int, msgspec.Meta(ge=0, le=MAX_CREATED_AT)]
    kind: Annotated[int, msgspec.Meta(ge=0, le=MAX_KIND)]
    tags: list[list[str]]
    content: str
    sig: str


FEW_TAGS: Final = 32


def weight_of(event: Event) -> int:
    """Return how much work it is to store an event; 1 if it has few tags.

    Each tag may be an entry of an index, or what a deletion names.
    """
    tags = len(event.tags)
    return 1 if tags <= FEW_TAGS else tags // 4


class Canonical(NamedTuple):
    """The two canonical texts of an event, in UTF-8."""

    json: bytes
    """The object with the seven keys in their order: what is stored and sent."""
    preimage: bytes
    """The array whose SHA-256 is the id."""


class EventError(ValueError):
    """A text is no event. ``text`` is the refusal for the client, with its prefix."""

    def __init__(self, text: str, event_id: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.event_id = event_id
        """The id of the event, if it has a proper one: the client can be answered."""


class _Parts(msgspec.Struct, gc=False):
    """The fields of an event, unread. A missing one is empty."""

    id: msgspec.Raw = msgspec.Raw()
    pubkey: msgspec.Raw = msgspec.Raw()
    created_at: msgspec.Raw = msgspec.Raw()
    kind: msgspec.Raw = msgspec.Raw()
    tags: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    sig: msgspec.Raw = msgspec.Raw()


DECODE_ERRORS: Final = (ValueError, RecursionError)
"""What msgspec raises for bad input: its own errors and ``UnicodeDecodeError`` are ``ValueError``."""
_HEX_DIGITS: Final = b"0123456789abcdef"

_decode_event = msgspec.json.Decoder(Event).decode
_decode_parts = msgspec.json.Decoder(_Parts).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_tags = msgspec.json.Decoder(list[list[str]]).decode
_decode_created_at = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MAX_CREATED_AT)]).decode
_decode_kind = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MAX_KIND)]).decode
_encode = msgspec.json.Encoder().encode


def parse_event(raw: bytes | msgspec.Raw) -> Event:
    """Read an event of a client (spec section 3). Raises ``EventError``."""
    try:
        event = _decode_event(raw)
        if is_strict(event, raw):
            return event
    except DECODE_ERRORS:
        pass
    text = bytes(raw)
    if not is_json(text):
        raise EventError(NOT_JSON)
    return examine_event(text)


def is_strict(event: Event, source: bytes | msgspec.Raw) -> bool:
    """Tell whether an event that msgspec has read from ``source`` needs no further look.

    msgspec has checked everything but the hex digits, and that zeros have no sign. False only means that
    ``examine_event`` has to decide.
    """
    if not (len(event.id) == 64 == len(event.pubkey) and len(event.sig) == 128):
        return False
    # With the hex digits deleted, nothing is left.
    if (event.id + event.pubkey + event.sig).encode().translate(None, _HEX_DIGITS):
        return False
    return (event.created_at > 0 and event.kind > 0) or b"-0" not in bytes(source)


def examine_event(text: bytes) -> Event:
    """Read an event field by field, from a text that ``is_json`` accepts. Raises ``EventError`` that names the field.

    Other keys are dropped, and of a repeated key the last counts.
    """
    try:
        parts = _decode_parts(text)
    except DECODE_ERRORS:
        raise EventError("invalid: event must be an object") from None
    event_id = _hex_field("id", parts.id, 64, None)
    return Event(
        event_id,
        _hex_field("pubkey", parts.pubkey, 64, event_id),
        _field("created_at", parts.created_at, _decode_created_at, f"an integer from 0 to {MAX_CREATED_AT}", event_id),
        _field("kind", parts.kind, _decode_kind, f"an integer from 0 to {MAX_KIND}", event_id),
        _field("tags", parts.tags, _decode_tags, "an array of arrays of strings", event_id),
        _field("content", parts.content, _decode_string, "a string", event_id),
        _hex_field("sig", parts.sig, 128, event_id),
    )


def _field(name: str, raw: msgspec.Raw, decode: Any, wanted: str, event_id: str | None) -> Any:
    """Return the value of one field, which ``decode`` reads."""
    text = bytes(raw)
    if not text:
        raise EventError(f"invalid: {name} is missing", event_id)
    # "-0" is an integer for msgspec. Nothing that a field may be begins with a sign.
    if not text.startswith(b"-"):
        try:
            return decode(text)
        except DECODE_ERRORS:
            pass
    raise EventError(f"invalid: {name} must be {wanted}", event_id)


def _hex_field(name: str, raw: msgspec.Raw, digits: int, event_id: str | None) -> str:
    """Return the value of a field of so many lower-case hex digits."""
    wanted = f"{digits} lower-case hex digits"
    value: str = _field(name, raw, _decode_string, wanted, event_id)
    if len(value) != digits or value.encode().translate(None, _HEX_DIGITS):
        raise EventError(f"invalid: {name} must be {wanted}", event_id)
    return value


def stored_event(json: bytes) -> Event:
    """Read an event from the canonical object that ``canonical`` has made: nothing is checked again."""
    return _decode_event(json)


def canonical(event: Event) -> Canonical:
    """Return the canonical texts of an event (spec section 3).

    msgspec writes the fields in their order, and strings with exactly the escapes of the specification: the tests
    compare them with a slow encoder.
    """
    return Canonical(
        _encode(event), _encode((0, event.pubkey, event.created_at, event.kind, event.tags, event.content))
    )


def event_id(preimage: bytes) -> str:
    """Return the id that belongs to ``Canonical.preimage``."""
    return hashlib.sha256(preimage).hexdigest()


# Tags


def tag_values(event: Event, name: str) -> Iterator[str]:
    """Yield element 1 of every tag of this name that has one."""
    return (tag[1] for tag in event.tags if len(tag) > 1 and tag[0] == name)


def first_tag(event: Event, name: str) -> list[str] | None:
    """Return the first tag of this name, with whatever elements it has, or None."""
    return next((tag for tag in event.tags if tag and tag[0] == name), None)


def indexed_tags(event: Event) -> Iterator[tuple[str, str]]:
    """Yield name and element 1 of the tags that filters can ask for: those named by one ASCII letter."""
    for tag in event.tags:
        if len(tag) > 1 and len(tag[0]) == 1 and tag[0].isascii() and tag[0].isalpha():
            yield tag[0], tag[1]


def expiration(event: Event) -> int | None:
    """Return the earliest expiration (NIP-40), in unix seconds, or None if there is none.

    Raises ``EventError`` if one of them is not a decimal number up to ``MAX_CREATED_AT``.
    """
    earliest = None
    for tag in event.tags:
        if tag and tag[0] == "expiration":
            value = tag[1] if len(tag) > 1 else ""
            # Digits are counted first: reading very long numbers takes long.
            if not (value.isascii() and value.isdigit() and len(value) <= 16 and int(value) <= MAX_CREATED_AT):
                raise EventError("invalid: expiration must be a unix time", event.id)
            earliest = int(value) if earliest is None else min(earliest, int(value))
    return earliest


# JSON

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string, or what begins like one and does not end: no byte is looked at twice."""
_NUMBERS: Final = re.compile(rb"[-+.0-9eE]{%d,}" % (MAX_DIGITS + 1))
_NO_DIGITS: Final = b"-+.eE"
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_ALL_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_DEEP: Final = b"[" * (MAX_DEPTH + 1)


def is_json(text: bytes) -> bool:
    """Tell whether a text is JSON in UTF-8 as strictly as the relay wants it (spec section 2).

    Refused are also lone surrogates in any spelling, a byte order mark, more than ``MAX_DEPTH`` levels, and numbers of
    more than ``MAX_DIGITS`` digits.
    """
    try:
        text.decode()
        # msgspec recurses, so the depth has to be known first.
        structure = _STRINGS.sub(b'""', text)
        if _is_deep(structure) or _has_long_number(structure):
            return False
        _decode_raw(text)
    except DECODE_ERRORS:
        return False
    return True


def _is_deep(structure: bytes) -> bool:
    """Tell whether arrays and objects, in a text without strings, nest too deep or do not match."""
    brackets = structure.translate(_ALL_SQUARE, _NOT_BRACKETS)
    # Each round removes the innermost level everywhere.
    for _ in range(MAX_DEPTH):
        if not brackets or _DEEP in brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _has_long_number(structure: bytes) -> bool:
    """Tell whether a text without strings has a number of more than ``MAX_DIGITS`` digits."""
    return any(len(number.translate(None, _NO_DIGITS)) > MAX_DIGITS for number in _NUMBERS.findall(structure))
