"""Filters: what is refused in which words, and what matches, compared with a slow and obvious matcher."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.nostr_filters import A, B, events, filters, make_event, matches_slowly, objects

from pyryrelay.nostr.events import MAX_CREATED_AT, Event
from pyryrelay.nostr.filters import (
    NO_KIND,
    Filter,
    FilterError,
    Matcher,
    can_match,
    filter_of,
    matches,
    parse_filter,
    value_count,
)

HEX = "must be a list of strings of 64 lower-case hex digits"
KINDS = "invalid: kinds must be a list of integers from 0"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["ids", "#e", "#t", "kinds"]) | st.text(), inner),
)


def refusal(text: str | bytes) -> str:
    """Return the text with which a filter is refused."""
    with pytest.raises(FilterError) as caught:
        parse_filter(text.encode() if isinstance(text, str) else text)
    assert str(caught.value) == caught.value.text
    return caught.value.text


# Parsing


def test_every_key() -> None:
    """Each key has its field; tags keep their order, and every list its own."""
    text = json.dumps(
        {
            "#p": [B],
            "ids": [B, A],
            "authors": [A],
            "#e": [],
            "kinds": [7, 1],
            "#Z": ["z", "\0", "a"],
            "since": 1,
            "until": 2,
            "limit": 3,
        }
    )
    assert parse_filter(msgspec.Raw(text.encode())) == Filter(
        (B, A), (A,), (7, 1), (("p", (B,)), ("e", ()), ("Z", ("z", "\0", "a"))), 1, 2, 3
    )


def test_an_empty_object() -> None:
    """A filter that names nothing has no field."""
    assert parse_filter(b" {} ") == Filter()


@pytest.mark.parametrize("key", ["ids", "authors", "kinds", "#e", "#t", "since", "until", "limit", "search", "other"])
def test_null_counts_as_absent(key: str) -> None:
    """A null is as good as no key, even where the key itself is unknown."""
    assert filter_of({key: None}) == Filter()


def test_repeated_values_count_once() -> None:
    """A value that is repeated counts once, at its first place."""
    text = json.dumps({"ids": [B, A, B], "kinds": [2, 1, 2], "#t": ["y", "x", "y"]})
    assert parse_filter(text.encode()) == Filter(ids=(B, A), kinds=(2, 1), tags=(("t", ("y", "x")),))


def test_the_last_of_a_repeated_key_counts() -> None:
    """Of a key that is repeated, only the last value is looked at."""
    assert parse_filter(b'{"kinds":"no","limit":1,"kinds":[1],"limit":null}') == Filter(kinds=(1,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"since":-1,"until":-9007199254740993}', Filter(since=0, until=0)),
        ('{"since":9007199254740991,"until":9007199254740991}', Filter(since=MAX_CREATED_AT, until=MAX_CREATED_AT)),
        (f'{{"since":{10**30},"until":{10**30}}}', Filter(since=MAX_CREATED_AT + 1, until=MAX_CREATED_AT + 1)),
        (f'{{"kinds":[65535,65536,70000,{10**30}]}}', Filter(kinds=(65535, 65536))),
        (f'{{"limit":{10**30}}}', Filter(limit=MAX_CREATED_AT)),
    ],
)
def test_numbers_are_brought_into_range(text: str, expected: Filter) -> None:
    """Times below 0 are 0, and numbers beyond what an event can have are read as the next greater one."""
    assert parse_filter(text.encode()) == expected


@pytest.mark.parametrize("text", ["[]", "null", "1", '"{}"', "true", "[{}]"])
def test_a_filter_is_an_object(text: str) -> None:
    """Any other JSON value is refused."""
    assert refusal(text) == "invalid: filter must be an object"


@pytest.mark.parametrize("value", ['"a"', "1", "{}", "true", "[1]", "[null]", f'["{A.upper()}"]', f'["{A[:63]}"]'])
@pytest.mark.parametrize("key", ["ids", "authors", "#e", "#p"])
def test_ids_and_keys_are_64_hex_digits(key: str, value: str) -> None:
    """Lists of ids and public keys hold nothing but 64 lower-case hex digits each, and are no prefixes."""
    assert refusal(f'{{"{key}":{value}}}') == f"invalid: {key} {HEX}"


@pytest.mark.parametrize("values", [[A[:63], A + "a"], [A[:63] + "\n"], [A[:63] + "é"], [A[:63] + "٣"], [A, "", A]])
def test_the_values_of_a_list_are_checked_one_by_one(values: list[str]) -> None:
    """Values of wrong lengths do not make up for each other, and digits are ASCII."""
    assert refusal(json.dumps({"ids": values})) == f"invalid: ids {HEX}"


@pytest.mark.parametrize("value", ['"a"', "1", "{}", "[1]", "[null]", '["a",["b"]]'])
@pytest.mark.parametrize("key", ["#t", "#E", "#P", "#d"])
def test_other_tags_hold_strings(key: str, value: str) -> None:
    """The other tags take any strings, and nothing else; their letters are told apart by case."""
    assert refusal(f'{{"{key}":{value}}}') == f"invalid: {key} must be a list of strings"
    assert filter_of({key: ["", "x"]}) == Filter(tags=((key[1], ("", "x")),))


@pytest.mark.parametrize("value", ["1", '"1"', "{}", '["1"]', "[1.0]", "[1e0]", "[true]", "[-1]", "[null]", "[[1]]"])
def test_kinds_are_integers(value: str) -> None:
    """Kinds are integers from 0, neither booleans nor fractions."""
    assert refusal(f'{{"kinds":{value}}}') == KINDS


@pytest.mark.parametrize("value", ['"1"', "1.0", "1e3", "true", "[1]", "{}"])
def test_times_and_limits_are_integers(value: str) -> None:
    """Times and limits are integers, and a limit is not below 0."""
    assert refusal(f'{{"since":{value}}}') == "invalid: since must be an integer"
    assert refusal(f'{{"until":{value}}}') == "invalid: until must be an integer"
    assert refusal(f'{{"limit":{value}}}') == "invalid: limit must be an integer from 0"
    assert refusal('{"limit":-1}') == "invalid: limit must be an integer from 0"


def test_search_is_off() -> None:
    """A search is well formed if it is a string, and not served."""
    assert refusal('{"search":"word"}') == "unsupported: search is off here"
    assert refusal('{"search":["word"]}') == "invalid: search must be a string"


@pytest.mark.parametrize(
    "key", ["", "#", "#ab", "#é", "#1", "#-", "##", "&t", "e", "Ids", "ids ", "tags", "\u017fince"]
)
def test_unknown_keys(key: str) -> None:
    """A key that is not understood is refused, since without it more would be sent than was asked for."""
    assert refusal(json.dumps({key: ["x"]})) == "unsupported: filter key"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b'{"kinds":[1]}}', b'{"#t":["\xff"]}', b'{"#t":["\\ud800"]}', b"[" * 100_000, b"1" * 5000, b"NaN"],
)
def test_no_json(raw: bytes) -> None:
    """What is no JSON is refused like everything else."""
    assert refusal(raw) == "invalid: not JSON"


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1E+400", "1e2", "1.0", "0.5", "1e-999"])
def test_numbers_that_are_no_integers(number: str) -> None:
    """Fractions and exponents are JSON, even those that a double cannot hold; no key takes them."""
    assert refusal(f'{{"since":{number}}}') == "invalid: since must be an integer"
    assert refusal(f'{{"limit":{number}}}') == "invalid: limit must be an integer from 0"
    assert refusal(f'{{"kinds":[1,{number}]}}') == "invalid: kinds must be a list of integers from 0"
    assert refusal(f'{{"#t":["a",{number}]}}') == "invalid: #t must be a list of strings"
    assert refusal(f'{{"other":{number}}}') == "unsupported: filter key"
    assert refusal(number) == "invalid: filter must be an object"


def test_integers_of_any_size() -> None:
    """Integers beyond 64 bits are numbers like others: no event reaches them."""
    big = 10**20 - 1
    assert parse_filter(f'{{"kinds":[{big}],"since":{big},"until":-{big},"limit":{big}}}'.encode()) == Filter(
        kinds=(NO_KIND,), since=MAX_CREATED_AT + 1, until=0, limit=MAX_CREATED_AT
    )


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"-")
def test_nothing_but_a_refusal_is_raised(raw: bytes) -> None:
    """Whatever is parsed, it is a filter or is refused in one line with a prefix."""
    try:
        filter_ = parse_filter(raw)
    except FilterError as error:
        text = error.text
    else:
        text = ""
        assert parse_filter(json.dumps(objects(filter_)).encode()) == filter_
    assert text == "" or text.startswith(("invalid: ", "unsupported: "))
    assert text == "" or text.isprintable()


@given(filters(), st.booleans())
def test_what_is_written_is_read(filter_: Filter, is_text: bool) -> None:
    """A filter survives being written as JSON."""
    written = objects(filter_)
    assert (parse_filter(json.dumps(written).encode()) if is_text else filter_of(written)) == filter_


# Matching


@given(filters(), events())
def test_the_matcher_against_a_slow_one(filter_: Filter, event: Event) -> None:
    """The matcher agrees with one that tests each condition of NIP-01 by itself."""
    expected = matches_slowly(filter_, event)
    assert matches(filter_, event) is expected
    assert Matcher.of(filter_)(event) is expected
    assert can_match(filter_) or not expected


@pytest.mark.parametrize("extend", [lambda values: values, lambda values: (*values, *map(str, range(20)))])
@pytest.mark.parametrize(
    ("name", "value", "other"), [("ids", A, B), ("authors", A, B), ("kinds", 1, 2), ("tags", "x", "y")]
)
def test_short_and_long_lists(
    name: str, value: object, other: object, extend: Callable[[tuple[object, ...]], tuple[object, ...]]
) -> None:
    """Long lists match as short ones do."""
    event = make_event(id=A, pubkey=A, kind=1, tags=[["t"], [], ["T", "y"], ["t", "x", "y"]])

    def filter_for(value: object) -> Filter:
        values = extend((value,))
        return Filter(**{name: (("t", values),) if name == "tags" else values})  # type: ignore[arg-type]

    assert matches(filter_for(value), event)
    assert not matches(filter_for(other), event)


def test_a_limit_has_no_part_in_matching() -> None:
    """A limit of 0 matches as any other."""
    assert matches(Filter(limit=0), make_event())


def test_no_prefixes() -> None:
    """A value that begins as another does not match it."""
    event = make_event(tags=[["t", "nostr"]])
    assert not matches(Filter(tags=(("t", ("nos", "nostr ", "Nostr")),)), event)
    assert not matches(Filter(authors=(event.pubkey[:32],)), event)


@pytest.mark.parametrize(
    "filter_",
    [
        Filter(ids=()),
        Filter(authors=()),
        Filter(kinds=()),
        Filter(kinds=(65536,)),
        Filter(tags=(("t", ("x",)), ("p", ()))),
        Filter(since=2, until=1),
        Filter(since=MAX_CREATED_AT + 1),
        Filter(since=MAX_CREATED_AT + 1, until=MAX_CREATED_AT + 1),
    ],
)
def test_filters_that_cannot_match(filter_: Filter) -> None:
    """An empty list, a time after all others, or a kind above 65535 alone cannot match."""
    assert not can_match(filter_)


@pytest.mark.parametrize(
    "filter_",
    [Filter(), Filter(limit=0), Filter(kinds=(1, 65536)), Filter(since=2, until=2), Filter(since=MAX_CREATED_AT)],
)
def test_filters_that_can_match(filter_: Filter) -> None:
    """Any other filter can match."""
    assert can_match(filter_)


def test_the_values_of_all_lists_count() -> None:
    """The values of all lists of all filters are added up."""
    full = Filter(ids=(A, B), authors=(A,), kinds=(1, 2, 3), tags=(("e", (A,)), ("t", ("x", "y"))), since=1, limit=7)
    assert value_count([]) == 0
    assert value_count([Filter(), full, Filter(kinds=(1,))]) == 10
