"""One request head: only `HeadError` is raised, and no parsed value can split a line.

Input: the head, without the empty line that ends it. It is parsed as it is, and once more after a valid request line,
because few mutations keep the request line valid.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.http.message import (
        HEAD_END,
        MAX_FIELDS,
        Head,
        HeadError,
        asks_for_websocket,
        has_body,
        may_begin,
        parse_head,
        response,
        websocket_key,
    )
    from pyryrelay.websocket.handshake import accept_key


ACCEPT_BYTES = 28
REQUEST = b"GET /v1/server HTTP/1.1\r\nHost: a\r\n"


def check(data: bytes) -> None:
    """Parse the head."""
    raw, _, _ = data.partition(HEAD_END)
    for head_bytes in (raw + HEAD_END, REQUEST + raw + HEAD_END):
        try:
            head = parse_head(head_bytes)
        except HeadError as error:
            ensure(error.status in (400, 431, 505), "the error has one of its statuses")
            ensure(response(error.status).startswith(b"HTTP/1.1 "), "there is a response for the status")
        else:
            _check_head(head)
            ensure(
                all(may_begin(head_bytes[:length]) for length in range(32)), "the beginning of a valid head is valid"
            )


def _check_head(head: Head) -> None:
    ensure(head.version[0] == 1, "only HTTP/1 is accepted")
    ensure("?" not in head.path and "#" not in head.path, "a path has no query and no fragment")
    ensure(0 < sum(map(len, head.fields.values())) <= MAX_FIELDS or not head.fields, "the number of fields is bounded")
    for name, values in head.fields.items():
        ensure(name == name.lower() and name.isascii() and bool(name), "names are lower-case tokens")
        for value in values:
            ensure(
                not set(value) & set("\r\n\0") and value == value.strip(" \t"),
                "values are one line without surrounding whitespace",
            )
        ensure(all(head.members(name)), "no list member is empty")
    key = websocket_key(head)
    asks_for_websocket(head)
    has_body(head)
    if key is not None:
        ensure(len(accept_key(key)) == ACCEPT_BYTES, "a key that is accepted has an answer")


if __name__ == "__main__":
    main(check)
