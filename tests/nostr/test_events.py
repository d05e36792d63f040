"""Events: what is accepted, the texts of refusals, and the canonical form against a slow encoder."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyryrelay.nostr.events import (
    MAX_CREATED_AT,
    MAX_DEPTH,
    Event,
    EventError,
    canonical,
    event_id,
    expiration,
    first_tag,
    indexed_tags,
    is_json,
    parse_event,
    stored_event,
    tag_values,
    weight_of,
)

HEX = "0123456789abcdef" * 4
FIELDS: dict[str, Any] = {
    "id": HEX,
    "pubkey": HEX[::-1],
    "created_at": 1_700_000_000,
    "kind": 1,
    "tags": [["e", HEX], ["t", "nostr", "x"], []],
    "content": "hello",
    "sig": HEX * 2,
}

VECTORS = json.loads((Path(__file__).parents[1] / "data/nostr-events.json").read_text(encoding="utf-8"))
"""Events whose ids and signatures were made by another implementation, rust-nostr."""

# References


def reference_string(text: str) -> str:
    """Write a string with the escapes of the specification, one character at a time."""
    named = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r", '"': r"\"", "\\": r"\\"}
    return '"' + "".join(named.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


def reference_text(value: Any) -> str:
    """Write strings, integers and lists of them without white space."""
    if isinstance(value, list):
        return f"[{','.join(map(reference_text, value))}]"
    return reference_string(value) if isinstance(value, str) else str(value)


def fields_of(event: Event) -> dict[str, Any]:
    """Return an event as a mapping, in the order of its keys."""
    return {name: getattr(event, name) for name in FIELDS}


def make(**changes: Any) -> Event:
    """Return an event with some fields changed."""
    return Event(**(FIELDS | changes))


def text_of(changes: dict[str, Any]) -> bytes:
    """Return the JSON of an event with some fields changed. A value of bytes is pasted, and None leaves a field out."""
    members = [
        json.dumps(name).encode() + b":" + (value if isinstance(value, bytes) else json.dumps(value).encode())
        for name, value in (FIELDS | changes).items()
        if value is not None
    ]
    return b"{" + b",".join(members) + b"}"


def refusal(text: bytes) -> EventError:
    """Return the error of a text that is no event."""
    with pytest.raises(EventError) as caught:
        parse_event(text)
    return caught.value


# Strategies

strings = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\/\b\t\n\f\r\0\x01\x1f\x7f\u2028\ufdd1\U0010ffff'))
hex_texts = st.binary(min_size=32, max_size=32).map(bytes.hex)
events = st.builds(
    Event,
    id=hex_texts,
    pubkey=hex_texts,
    created_at=st.integers(0, MAX_CREATED_AT),
    kind=st.integers(0, 65_535),
    tags=st.lists(st.lists(strings, max_size=4), max_size=4),
    content=strings,
    sig=st.binary(min_size=64, max_size=64).map(bytes.hex),
)


# Reading


@given(events, st.booleans(), st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", "\t: \r")]))
def test_every_spelling_is_read(event: Event, escaped: bool, separators: tuple[str, str]) -> None:
    """An event is the same however its JSON is spelled, with keys that do not belong to it, and in any order."""
    fields = fields_of(event)
    for members in (fields, {"x": [1.5, None, {"id": "y"}], **dict(reversed(fields.items()))}):
        text = json.dumps(members, ensure_ascii=escaped, separators=separators).encode()
        assert fields_of(parse_event(text)) == fields
        assert fields_of(parse_event(msgspec.Raw(text))) == fields


@given(events)
def test_the_canonical_form_is_read_again(event: Event) -> None:
    """Reading the canonical object gives the same event, and the same canonical form."""
    form = canonical(event)
    for again in (parse_event(form.json), stored_event(form.json)):
        assert fields_of(again) == fields_of(event)
        assert canonical(again) == form


@given(st.binary() | st.text().map(str.encode))
def test_arbitrary_bytes_raise_only_the_error(text: bytes) -> None:
    """Bytes that are no event raise `EventError`, with a text for the client."""
    assert refusal(text).text in ("invalid: not JSON", "invalid: event must be an object", "invalid: id is missing")


@given(events, st.data())
def test_damaged_events_raise_only_the_error(event: Event, data: st.DataObject) -> None:
    """An event with a piece of it replaced is read, or raises `EventError`."""
    text = canonical(event).json
    start = data.draw(st.integers(0, len(text)))
    piece = data.draw(st.sampled_from([b"", b"-0", b"[", b'"', b"\\ud800", b"1e1", b",", b"null", b"\xff", b"{}"]))
    damaged = text[:start] + piece + text[start + data.draw(st.integers(0, 8)) :]
    with suppress(EventError):
        again = canonical(parse_event(damaged))
        assert canonical(parse_event(again.json)) == again


HEX_64, HEX_128 = "64 lower-case hex digits", "128 lower-case hex digits"
CREATED_AT, KIND = "an integer from 0 to 9007199254740991", "an integer from 0 to 65535"
TAGS, STRING = "an array of arrays of strings", "a string"
WRONG_INTEGERS: list[Any] = [-1, b"-0", b"0.0", b"1.5", b"1e3", b"1E0", True, False, "1", b"null", 2**64, b"9" * 20]
WRONG_TIMES: list[Any] = [*WRONG_INTEGERS, 2**53]
WRONG_KINDS: list[Any] = [*WRONG_INTEGERS, 65_536]
WRONG_TAGS: list[Any] = [{}, "", b"null", [1], ["a"], [None], [["a", 1]], [["a", None]], [[["a"]]], [{}]]
WRONG_CONTENTS: list[Any] = [b"null", 1, [], {}, True]


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("id", 1, HEX_64),
        ("id", b"null", HEX_64),
        ("id", HEX[1:], HEX_64),
        ("id", HEX + "0", HEX_64),
        ("id", HEX.upper(), HEX_64),
        ("id", HEX[1:] + "\u0663", HEX_64),
        ("id", HEX[1:] + " ", HEX_64),
        ("pubkey", "", HEX_64),
        ("pubkey", HEX.upper(), HEX_64),
        ("pubkey", [HEX], HEX_64),
        *(("created_at", value, CREATED_AT) for value in WRONG_TIMES),
        *(("kind", value, KIND) for value in WRONG_KINDS),
        *(("tags", value, TAGS) for value in WRONG_TAGS),
        *(("content", value, STRING) for value in WRONG_CONTENTS),
        ("sig", HEX, HEX_128),
        ("sig", (HEX * 2).upper(), HEX_128),
        ("sig", b"null", HEX_128),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, wanted: str) -> None:
    """A field of the wrong type or range is named, and told what it must be."""
    error = refusal(text_of({field: value}))
    assert error.text == str(error) == f"invalid: {field} must be {wanted}"
    assert error.event_id == (None if field == "id" else HEX)


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(field: str) -> None:
    """A field that is missing is named; without an id there is none in the error."""
    error = refusal(text_of({field: None}))
    assert error.text == f"invalid: {field} is missing"
    assert error.event_id == (None if field == "id" else HEX)


def test_the_id_is_looked_at_first() -> None:
    """Of several wrong fields the id is named, so that every other refusal can be answered with it."""
    assert refusal(b'{"sig":1,"id":2}').text == f"invalid: id must be {HEX_64}"
    assert refusal(b'{"sig":1,"id":"' + HEX.encode() + b'"}').event_id == HEX


@pytest.mark.parametrize("text", [b"[]", b"1", b'"x"', b"null", b"true"])
def test_only_objects_are_events(text: bytes) -> None:
    """A JSON text of another type is no event."""
    assert refusal(text).text == "invalid: event must be an object"


def test_the_last_of_repeated_keys_counts() -> None:
    """Of duplicate keys the last counts, whatever the others are."""
    text = text_of({})[:-1]
    assert parse_event(text + b',"kind":7}').kind == 7
    assert parse_event(b'{"kind":"x","content":[-0,1.5],' + text[1:] + b"}").kind == 1
    assert refusal(text + b',"kind":-0}').text == f"invalid: kind must be {KIND}"
    assert parse_event(text + b',"\\u006bind":8}').kind == 8


def test_zeros_are_accepted_without_a_sign() -> None:
    """Kind 0 and time 0 are legal, also where a minus sign and a zero stand elsewhere."""
    event = parse_event(text_of({"kind": 0, "created_at": 0, "content": "-0"}))
    assert (event.kind, event.created_at, event.content) == (0, 0, "-0")
    assert parse_event(text_of({"kind": 0})).kind == 0


def test_the_limits_are_accepted() -> None:
    """The largest time and kind are read exactly."""
    event = parse_event(text_of({"created_at": MAX_CREATED_AT, "kind": 65_535}))
    assert (event.created_at, event.kind) == (2**53 - 1, 65_535)


# The canonical form


@given(events)
@example(make(content='a"b\\\nc', tags=[["\0\x01\x1f\x7f/\u2028\u2029", "\u00e9", "e\u0301"]]))
def test_the_canonical_form_has_exactly_the_escapes(event: Event) -> None:
    """Both texts equal those of an encoder written from the specification, and the id is the hash of one."""
    form = canonical(event)
    parts = [0, event.pubkey, event.created_at, event.kind, event.tags, event.content]
    assert form.preimage == reference_text(parts).encode()
    members = (f'"{name}":{reference_text(value)}' for name, value in fields_of(event).items())
    assert form.json == f"{{{','.join(members)}}}".encode()
    assert event_id(form.preimage) == hashlib.sha256(form.preimage).hexdigest()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_ids_are_those_of_others(vector: dict[str, Any]) -> None:
    """Another implementation computes the same ids, and its events are read without a change."""
    event = parse_event(json.dumps(vector["event"]).encode())
    assert fields_of(event) == vector["event"]
    assert event_id(canonical(event).preimage) == event.id


def test_every_control_character_is_escaped_as_the_specification_says() -> None:
    """No character of the first 256 is escaped in another way than the reference does."""
    content = "".join(map(chr, range(256)))
    assert reference_string(content).encode() in canonical(make(content=content)).preimage


def test_nothing_is_normalised() -> None:
    """Composed and decomposed letters are different events."""
    composed, decomposed = (canonical(make(content=content)).preimage for content in ("\u00e9", "e\u0301"))
    assert b"\xc3\xa9" in composed
    assert b"\x65\xcc\x81" in decomposed


# Tags


def test_tags_are_found_by_name() -> None:
    """Values are element 1 of the tags that have one; the first tag may have none."""
    event = make(tags=[[], ["d"], ["d", "x", "y"], ["dd", "z"], ["d", ""]])
    assert list(tag_values(event, "d")) == ["x", ""]
    assert first_tag(event, "d") == ["d"]
    assert first_tag(event, "e") is None


def test_only_tags_named_by_one_ascii_letter_are_indexed() -> None:
    """Names of one ASCII letter in either case are indexed, if there is a value."""
    tags = [["e", "1"], ["E", "2", "3"], ["e"], [], ["-", "x"], ["1", "x"], ["\u00e9", "x"], ["", "x"], ["ee", "x"]]
    assert list(indexed_tags(make(tags=tags))) == [("e", "1"), ("E", "2")]


@pytest.mark.parametrize(
    ("tags", "earliest"),
    [
        ([["e", "5"]], None),
        ([["expiration", "5"]], 5),
        ([[], ["expiration", "7"], ["expiration", "5", "x"], ["expiration", "6"]], 5),
        ([["expiration", "0"]], 0),
        ([["expiration", str(MAX_CREATED_AT)]], MAX_CREATED_AT),
    ],
)
def test_the_earliest_expiration_counts(tags: list[list[str]], earliest: int | None) -> None:
    """Of several expirations the earliest counts."""
    assert expiration(make(tags=tags)) == earliest


@pytest.mark.parametrize("value", ["", "-1", "1.5", "1e9", " 5", "5 ", "\u0665", "\u00b2", "x", str(2**53), "9" * 5000])
def test_an_unreadable_expiration_is_refused(value: str) -> None:
    """An expiration that is no unix time is refused, wherever it stands."""
    with pytest.raises(EventError, match=r"^invalid: expiration must be a unix time$"):
        expiration(make(tags=[["expiration", "5"], ["expiration", value]]))


def test_an_expiration_without_a_value_is_refused() -> None:
    """A tag of a single element is no unix time either."""
    with pytest.raises(EventError, match=r"^invalid: expiration must be a unix time$"):
        expiration(make(tags=[["expiration"]]))


# JSON


def nested(depth: int) -> bytes:
    """Return arrays and objects in turn, so many levels deep."""
    opened = [b'{"a":' if level % 2 else b"[" for level in range(depth)]
    return b"".join(opened) + b"1" + b"".join(b"}" if level % 2 else b"]" for level in reversed(range(depth)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"\xef\xbb\xbf[]",
        b'["\\ud800"]',
        b'["\\uDFFF"]',
        b'["\\udc00\\ud800"]',
        b'["\\ud800\\u0041"]',
        b'["\\ud800x"]',
        b'["\\ud800\\ud800\\udc00"]',
        b'{"\\ud800":1}',
        b'["\xed\xa0\x80"]',
        b'["\xff"]',
        b'["\x00"]',
        b'["\x1f"]',
        b'["\n"]',
        b"['a']",
        b"[1,]",
        b"[01]",
        b"[1] []",
        b"[}",
        b"[1",
        b'["a]',
        b'["a\\',
        b"//x\n[]",
        nested(MAX_DEPTH + 1),
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[123456789012345678901]",
        b"[-12345678901.2345678901e2]",
        b'[1,{"a":[0.000000000000000000001]}]',
    ],
)
def test_what_is_no_json(text: bytes) -> None:
    """Everything that other readers understand differently, or not at all, is refused."""
    assert not is_json(text)
    assert refusal(text).text == "invalid: not JSON"


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b' {"a" :\t[1 ,\r\n-0, 1.5e-3, true, null]} ',
        b'["\\ud83d\\ude00", "\\\\ud800", "\\u0000\\/\x7f"]',
        '["\ufdd1\ufffe\U0010ffff"]'.encode(),
        nested(MAX_DEPTH),
        b'["' + b"[" * 100 + b'", "\\"' + b"{" * 100 + b'"]',
        b"[12345678901234567890]",
        b'["123456789012345678901", 1e999]',
        b"[" + b"[]," * 10_000 + b"{}]",
    ],
)
def test_what_is_json(text: bytes) -> None:
    """Brackets and digits in strings do not count, and the limits are inclusive."""
    assert is_json(text)


@pytest.mark.parametrize(("tags", "weight"), [(0, 1), (32, 1), (33, 8), (1000, 250), (2000, 500)])
def test_events_weigh_by_their_tags(tags: int, weight: int) -> None:
    """Few tags make no difference."""
    assert weight_of(Event("0" * 64, "1" * 64, 0, 5, [["e", "2" * 64]] * tags, "", "3" * 128)) == weight
