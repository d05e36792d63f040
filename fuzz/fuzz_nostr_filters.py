"""Nostr filters: only `FilterError` is raised, exactly what NIP-01 and the relay's rules allow is accepted, and the
index of live subscriptions finds what the matcher matches.

Input: the JSON text of a filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.nostr.events import MAX_CREATED_AT, MAX_KIND, Event
    from pyryrelay.nostr.filters import Filter, FilterError, can_match, matches, parse_filter, value_count
    from pyryrelay.nostr.hll import offset_of
    from pyryrelay.nostr.subscriptions import LiveIndex

HEX = re.compile(r"[0-9a-f]{64}\Z")
INTEGERS = ("since", "until", "limit")
OTHER = "0" * 64


def check(data: bytes) -> None:
    """Parse a filter, and match it with events made of its values."""
    try:
        filter_ = parse_filter(data)
    except FilterError as error:
        ensure(error.text.isprintable(), "a refusal is one line")
        ensure(error.text.startswith(("invalid: ", "unsupported: ")), "a refusal has its prefix")
        ensure(not is_allowed(data), "what is allowed is accepted")
        return
    ensure(is_allowed(data), "what is accepted is allowed")
    ensure(parse_filter(written(filter_)) == filter_, "a filter can be written and read again")
    ensure(value_count([filter_]) <= len(data), "values are not made up")
    ensure(offset_of(filter_) in (None, *range(8, 24)), "the offset leaves bits to count")
    index = LiveIndex[int]()
    index.add(1, [filter_])
    for event in events(filter_):
        ensure(index.match(event) == [1] * matches(filter_, event), "live and stored events are matched alike")
    event = next(events(filter_))
    ensure(matches(filter_, event) == can_match(filter_), "what can match matches an event made for it")


def is_allowed(data: bytes) -> bool:
    """Tell whether a text is a filter, by its rules one by one."""
    try:
        value = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(content is None or is_pair(key, content) for key, content in value.items())


def is_pair(key: str, value: object) -> bool:
    """Tell whether a key may have a value."""
    if key in INTEGERS:
        return type(value) is int and (key != "limit" or value >= 0)
    if not isinstance(value, list):
        return False
    if key == "kinds":
        return all(type(kind) is int and kind >= 0 for kind in value)
    if key in ("ids", "authors", "#e", "#p"):
        return all(isinstance(text, str) and HEX.match(text) for text in value)
    return re.match(r"#[A-Za-z]\Z", key) is not None and all(isinstance(text, str) for text in value)


def written(filter_: Filter) -> bytes:
    """Return the JSON text of a filter."""
    fields = {name: getattr(filter_, name) for name in ("ids", "authors", "kinds", *INTEGERS)}
    return msgspec.json.encode({**fields, **{f"#{letter}": values for letter, values in filter_.tags}})


def events(filter_: Filter) -> Iterator[Event]:
    """Yield an event that a filter matches if it can match any, then others that lack something."""
    tags = [[letter, values[-1]] for letter, values in filter_.tags if values]
    event = Event(
        id=(filter_.ids or (OTHER,))[-1],
        pubkey=(filter_.authors or (OTHER,))[-1],
        created_at=min(MAX_CREATED_AT, filter_.since or 0),
        kind=min(MAX_KIND, *(filter_.kinds or (1,))),
        tags=tags,
        content="",
        sig=OTHER * 2,
    )
    yield event
    changes: list[dict[str, object]] = [
        {"id": OTHER},
        {"pubkey": OTHER},
        {"kind": MAX_KIND},
        {"created_at": MAX_CREATED_AT},
        {"created_at": 0},
        {"tags": tags[1:]},
        {"tags": [*tags, *tags]},
        {"tags": [tag[:1] for tag in tags]},
    ]
    for change in changes:
        yield msgspec.structs.replace(event, **change)


if __name__ == "__main__":
    main(check)
