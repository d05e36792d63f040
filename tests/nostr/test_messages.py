"""Messages: every line of the table of malformed ones, salvage, builders, and that nothing is ever raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr import messages
from pyryrelay.nostr.events import Event, canonical
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.messages import (
    EVENT_AFTER,
    SENT_VERBS,
    VERBS,
    AuthMessage,
    ClientMessage,
    CloseMessage,
    CountMessage,
    EventMessage,
    Ignored,
    Malformed,
    ReqMessage,
    Unsupported,
    event_before,
    parse,
)

HEX = "0123456789abcdef" * 4
EVENT = Event(HEX, HEX[::-1], 1_700_000_000, 1, [["e", HEX], ["t", "nostr"]], "hello", HEX * 2)
EVENT_JSON = canonical(EVENT).json.decode()
BAD_ID = "invalid: subscription id must have 1 to 64 characters"
TOO_DEEP = "[" * 33 + "]" * 33
VECTORS = json.loads((Path(__file__).parents[1] / "data/nostr-malformed.json").read_text(encoding="utf-8"))
"""Text messages, the line of the specification's table that each belongs to, and the reply."""


def reply_to(payload: bytes | str) -> Any:
    """Return the decoded reply to a message that gets one at once."""
    message = parse(payload if isinstance(payload, bytes) else payload.encode())
    assert isinstance(message, Malformed | Unsupported)
    return json.loads(message.reply)


def notice_of(payload: bytes | str) -> str:
    """Return the text of the NOTICE that a malformed message gets."""
    verb, text = reply_to(payload)
    assert verb == "NOTICE"
    return str(text)


# Proper messages


@pytest.mark.parametrize("form", ['["EVENT",{}]', ' [ "EVENT" ,\n{} ] ', '["\\u0045VENT",{}]', '["EVENT", {}]'])
def test_events_are_read(form: str) -> None:
    """An event is read in every spelling of its message, also with a key that is dropped."""
    for text in (EVENT_JSON, EVENT_JSON.replace("{", '{"x":[{"id":1.5}],', 1)):
        message = parse(form.replace("{}", text).encode())
        assert isinstance(message, EventMessage)
        assert canonical(message.event) == canonical(EVENT)


def test_authentications_are_read() -> None:
    """AUTH has an event as EVENT has."""
    message = parse(f'["AUTH",{EVENT_JSON}]'.encode())
    assert isinstance(message, AuthMessage)
    assert canonical(message.event) == canonical(EVENT)


def test_queries_are_read() -> None:
    """REQ and COUNT have an id and filters in their order."""
    filters = (Filter(kinds=(1, 2), limit=5), Filter(authors=(HEX,)))
    for verb, expected in (("REQ", ReqMessage), ("COUNT", CountMessage)):
        text = f'["{verb}","a\\u0041",{{"kinds":[1,2],"limit":5}},{{"authors":["{HEX}"]}}]'
        assert parse(text.encode()) == expected(b'"aA"', "aA", filters)


def test_many_filters_are_read() -> None:
    """Many brackets are not many levels."""
    text = json.dumps(["REQ", "s", *[{"kinds": [1]}] * 40])
    assert parse(text.encode()) == ReqMessage(b'"s"', "s", (Filter(kinds=(1,)),) * 40)


@pytest.mark.parametrize("text", ['["CLOSE","x"]', '["CLOSE","x",1,{}]', ' ["CLOSE" , "x"]'])
def test_close_is_read(text: str) -> None:
    """CLOSE has an id; surplus elements are ignored."""
    assert parse(text.encode()) == CloseMessage("x")


@pytest.mark.parametrize("text", ["", " ", "\n", "\r\n\t ", '["CLOSE"]', '["CLOSE",1]', '["CLOSE",null]'])
def test_what_needs_no_answer_gets_none(text: str) -> None:
    """White space alone and a CLOSE of nothing are ignored."""
    assert isinstance(parse(text.encode()), Ignored)


@pytest.mark.parametrize("text", ['["NEG-CLOSE","x"]', '["NEG-CLOSE"]', '["NEG-CLOSE",1]'])
def test_the_end_of_no_negentropy_is_ignored(text: str) -> None:
    """NEG-CLOSE cannot name anything that is open."""
    assert parse(text.encode()) == Ignored("NEG-CLOSE")


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64), st.booleans())
def test_ids_are_encoded_again(subscription_id: str, escaped: bool) -> None:
    """A subscription id comes back as the same characters, in one spelling."""
    message = parse(json.dumps(["REQ", subscription_id, {}], ensure_ascii=escaped).encode())
    assert isinstance(message, ReqMessage)
    assert message.id == subscription_id == json.loads(message.id_json)
    assert message.id_json == json.dumps(subscription_id, ensure_ascii=False).encode()


# Malformed messages: each line of the table


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["line"])
def test_each_line_of_the_table_has_its_answer(vector: dict[str, Any]) -> None:
    """Each kind of malformed message gets exactly the reply of the specification, or none."""
    message = parse(vector["received"].encode())
    reply = json.loads(message.reply) if isinstance(message, Malformed) else None
    assert reply == vector["reply"]
    assert isinstance(message, Malformed | Ignored | CloseMessage)


def test_binary_messages_are_refused() -> None:
    """A binary message is never read."""
    message = parse(f'["EVENT",{EVENT_JSON}]'.encode(), is_binary=True)
    assert message == Malformed(b'["NOTICE","invalid: binary messages are not understood"]')


@pytest.mark.parametrize(
    "text",
    [
        b"x",
        b"[",
        b'["REQ","s",{}',
        b'["REQ","s",{}] x',
        b'["CLOSE",NaN]',
        b'["CLOSE","\\ud800"]',
        b'["REQ","\\udc00\\ud800",{}]',
        b"\xef\xbb\xbf[]",
        b'["CLOSE","\x01"]',
        b'["CLOSE","\xff"' + b",[]" * 40 + b"]",
        f'["CLOSE",{TOO_DEEP[1:-1]}]'.encode(),
        f'["REQ","s",{{"x":{TOO_DEEP}}}]'.encode(),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'["REQ","s",{"since":123456789012345678901}]',
        b'["REQ","s",{"kinds":[ 123456789012345678901]}]',
        b'["REQ","s",{"since":1.0000000000000000000001,"since":1}]',
        b'["CLOSE","s",-12345678901234567890123]',
        b"123456789012345678901",
    ],
)
def test_what_is_no_json(text: bytes) -> None:
    """A text that is no JSON gets a NOTICE, whatever it looks like."""
    assert notice_of(text) == "invalid: not JSON"


@pytest.mark.parametrize("text", ["{}", "1", '"EVENT"', "null", "[]", " [ ]", "[1]", "[null]", '[["EVENT"]]', "[{}]"])
def test_what_is_no_message(text: str) -> None:
    """JSON that is no array with a verb gets a NOTICE."""
    assert notice_of(text) == "invalid: not a message"


@pytest.mark.parametrize("text", ['["event",{}]', '["OK"]', '[""]', '["EOSE","x"]', '["other"]', '["NEG-ERR","x"]'])
def test_unknown_verbs_are_not_echoed(text: str) -> None:
    """Verbs are upper case, and those of relays are none of a client."""
    assert parse(text.encode()) == Malformed(b'["NOTICE","unsupported: unknown verb"]')


@pytest.mark.parametrize("verb", ["EVENT", "AUTH"])
@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ("", "VERB must have 2 elements"),
        (f",{EVENT_JSON},1", "VERB must have 2 elements"),
        (',"x"', "event must be an object"),
        (",{}", "id is missing"),
        (',{"id":null}', "id must be 64 lower-case hex digits"),
        (f',{{"id":"{HEX.upper()}"}}', "id must be 64 lower-case hex digits"),
    ],
)
def test_events_without_an_id_get_a_notice(verb: str, rest: str, text: str) -> None:
    """EVENT and AUTH that have no proper id, or more than the event, are answered with a NOTICE."""
    assert notice_of(f'["{verb}"{rest}]') == f"invalid: {text.replace('VERB', verb)}"


@pytest.mark.parametrize("verb", ["EVENT", "AUTH"])
@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (f'{{"id":"{HEX}"}}', "invalid: pubkey is missing"),
        (EVENT_JSON.replace('"kind":1', '"kind":1.0'), "invalid: kind must be an integer from 0 to 65535"),
        (EVENT_JSON.replace('"kind":1', '"kind":-0'), "invalid: kind must be an integer from 0 to 65535"),
        (EVENT_JSON.replace("hello", "\\ud800"), "invalid: not JSON"),
        (EVENT_JSON.replace("{", f'{{"x":{TOO_DEEP},', 1), "invalid: not JSON"),
        (EVENT_JSON.replace("{", '{"x":123456789012345678901,', 1), "invalid: not JSON"),
        (EVENT_JSON[:-1], "invalid: not JSON"),
    ],
)
def test_events_with_an_id_get_an_ok(verb: str, text: str, refusal: str) -> None:
    """EVENT and AUTH that have a proper id are answered with it, whatever else is wrong."""
    for message in (f'["{verb}",{text}]', f' [ "{verb}" , {text} ]'):
        assert reply_to(message) == ["OK", HEX, False, refusal]


@pytest.mark.parametrize("verb", ["REQ", "COUNT"])
@pytest.mark.parametrize("length", [0, 65, 256])
def test_ids_of_a_wrong_length_are_answered(verb: str, length: int) -> None:
    """An id that is not much too long comes back; characters are counted, not bytes."""
    text = json.dumps([verb, "\U0001f600" * length, {}])
    assert reply_to(text) == ["CLOSED", "\U0001f600" * length, BAD_ID]


@pytest.mark.parametrize("verb", ["REQ", "COUNT", "NEG-OPEN", "NEG-MSG"])
@pytest.mark.parametrize("rest", ["", ",1,{}", ",null,{}", ',["x"],{}', f',"{"x" * 257}",{{}}'])
def test_ids_that_are_none_get_a_notice(verb: str, rest: str) -> None:
    """What is no string, or far too long, does not come back."""
    assert notice_of(f'["{verb}"{rest}]') == BAD_ID


@pytest.mark.parametrize("verb", ["NEG-OPEN", "NEG-MSG"])
def test_bad_ids_of_negentropy_get_a_notice(verb: str) -> None:
    """NEG-OPEN and NEG-MSG with an id of a wrong length are answered with a NOTICE."""
    assert notice_of(json.dumps([verb, "x" * 65, {}])) == BAD_ID
    assert notice_of(json.dumps([verb, "", {}])) == BAD_ID


def test_ids_may_be_longer_where_the_operator_says_so() -> None:
    """The limit is an argument, and is told."""
    long, longer = (json.dumps(["REQ", "x" * length, {}]).encode() for length in (100, 101))
    assert isinstance(parse(long, False, 100), ReqMessage)
    refused = parse(longer, False, 100)
    assert isinstance(refused, Malformed)
    assert json.loads(refused.reply)[2] == "invalid: subscription id must have 1 to 100 characters"


def test_a_query_needs_a_filter() -> None:
    """REQ and COUNT without a filter are refused; a subscription with this id ends."""
    refusal = b'["CLOSED","s","invalid: no filter"]'
    assert parse(b'["REQ","s"]') == Malformed(refusal, "s", "REQ")
    assert parse(b'["COUNT","s"]') == Malformed(refusal, None, "COUNT")


@pytest.mark.parametrize(
    ("filters", "expected", "text"),
    [
        ("{},1", Malformed, "invalid: filter must be an object"),
        ('{"x":1}', Unsupported, "unsupported: filter key"),
        ('{},{"search":"x"}', Unsupported, "unsupported: search is off here"),
    ],
)
def test_one_bad_filter_refuses_the_message(filters: str, expected: type[Malformed], text: str) -> None:
    """The whole message is refused, and an open subscription of a REQ's id ends; unknown keys cost nothing."""
    refusal = json.dumps(["CLOSED", "s", text], separators=(",", ":")).encode()
    assert parse(f'["REQ","s",{filters}]'.encode()) == expected(refusal, "s", "REQ")
    assert parse(f'["COUNT","s",{filters}]'.encode()) == expected(refusal, None, "COUNT")


@pytest.mark.parametrize("verb", ["NEG-OPEN", "NEG-MSG"])
def test_negentropy_is_unsupported(verb: str) -> None:
    """Negentropy is refused with its own verb, without costs."""
    refusal = b'["NEG-ERR","s","unsupported: negentropy is off here"]'
    assert parse(f'["{verb}","s","00"]'.encode()) == Unsupported(refusal, None, verb)


# Salvage


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        (f'["EVENT",{{"id":"{HEX}"', "EVENT"),
        (f'["AUTH",{{"id":"{HEX}",}}]', "AUTH"),
        (f' [\n"EVENT" ,{{"content":"\x01","id" :\t"{HEX}"', "EVENT"),
        (f'["EVENT",{{"id":"{HEX[1:]}","id":"{HEX}","id":"{"f" * 64}"', "EVENT"),
        (f'["EVENT"{"[" * 100_000}"id":"{HEX}"', "EVENT"),
        (f'["EVENT"{" " * (131_072 - 79)}"id":"{HEX}"', "EVENT"),
    ],
)
def test_the_id_of_a_broken_event_is_answered(text: str, verb: str) -> None:
    """A text that is no JSON, but looks like an event with an id, is answered with the first such id."""
    assert parse(text.encode()) == Malformed(f'["OK","{HEX}",false,"invalid: not JSON"]'.encode(), None, verb)


@pytest.mark.parametrize(
    "text",
    [
        f'"EVENT",{{"id":"{HEX}"',
        f'["EVENTS",{{"id":"{HEX}"',
        f'["REQ",{{"id":"{HEX}"',
        f'x["EVENT",{{"id":"{HEX}"',
        f'["EVENT",{{"id":"{HEX.upper()}"',
        f'["EVENT",{{"id":"{HEX}0"',
        f'["EVENT",{{"id":{HEX}',
        f'["EVENT"{" " * (131_072 - 78)}"id":"{HEX}"',
        '["EVENT"' + '"id" ' * 20_000,
    ],
)
def test_other_broken_texts_get_a_notice(text: str) -> None:
    """Without the verb at the beginning, or without an id within the first 128 KiB, nothing is salvaged."""
    assert notice_of(text) == "invalid: not JSON"


# Builders


def test_replies_are_exact() -> None:
    """Every reply is one JSON array without white space."""
    assert messages.ok(HEX, True) == f'["OK","{HEX}",true,""]'.encode()
    assert messages.ok(HEX, False, 'a "b"') == f'["OK","{HEX}",false,"a \\"b\\""]'.encode()
    assert messages.closed(b'"s"', "error: x") == b'["CLOSED","s","error: x"]'
    assert messages.eose(b'"s"') == b'["EOSE","s"]'
    assert messages.eose(b'"s"', "finish") == b'["EOSE","s",["finish"]]'
    assert messages.notice("invalid: \n") == b'["NOTICE","invalid: \\n"]'
    assert messages.auth("abc") == b'["AUTH","abc"]'
    assert messages.negentropy_error(b'"s"', "closed: x") == b'["NEG-ERR","s","closed: x"]'
    assert messages.count(b'"s"', 5) == b'["COUNT","s",{"count":5}]'
    assert messages.count(b'"s"', 5, approximate=True) == b'["COUNT","s",{"count":5,"approximate":true}]'
    assert messages.count(b'"s"', 0, hll="00ff") == b'["COUNT","s",{"count":0,"hll":"00ff"}]'


def test_events_are_spliced() -> None:
    """What stands around the canonical object makes a message of it."""
    sent = event_before(b'"s"') + canonical(EVENT).json + EVENT_AFTER
    assert json.loads(sent) == ["EVENT", "s", json.loads(EVENT_JSON)]
    assert " " not in sent.decode()


# Properties

pieces = st.sampled_from(
    [
        *(f'"{verb}"' for verb in VERBS),
        *'[]{},:" \n\\',
        EVENT_JSON,
        f'"id":"{HEX}"',
        '"kinds":[1]',
        "-0",
        "1e5",
        "null",
        "\\ud800",
        "\ufeff",
        "1" * 21,
    ]
)


def answers(message: ClientMessage) -> list[Any]:
    """Return the decoded reply, if there is one."""
    return [json.loads(message.reply)] if isinstance(message, Malformed | Unsupported) else []


@given(st.lists(pieces, max_size=10).map(lambda parts: "".join(parts).encode()) | st.binary(), st.booleans())
def test_nothing_is_raised(payload: bytes, is_binary: bool) -> None:
    """Whatever arrives, there is a message with a known verb, and the reply is one message of a relay."""
    message = parse(payload, is_binary)
    assert message.verb in VERBS
    for reply in answers(message):
        assert reply[0] in SENT_VERBS
        assert reply[-1].startswith(("invalid: ", "unsupported: "))


@given(st.sampled_from([v for v in VERBS if v != "other"]), st.lists(st.sampled_from(["1", '"s"', "{}", EVENT_JSON])))
def test_every_verb_is_told_from_others(verb: str, elements: list[str]) -> None:
    """A message of a known verb is counted as that verb, proper or not."""
    assert parse(f"[{','.join([json.dumps(verb), *elements])}]".encode()).verb == verb


def test_filters_beyond_the_limit_are_not_read() -> None:
    """A message of very many filters is read as far as it takes to refuse it, for REQ and for COUNT."""
    for verb in (b"REQ", b"COUNT"):
        text = b'["%b","s",%b]' % (verb, b",".join([b"{}"] * 3 + [b"7"] * 1000))
        found = parse(text, max_filters=2)
        assert isinstance(found, ReqMessage | CountMessage)
        assert len(found.filters) == 3
        assert isinstance(parse(text, max_filters=3), Malformed)
        assert isinstance(parse(text), Malformed)
