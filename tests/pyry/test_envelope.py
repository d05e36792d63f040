"""The routing envelope: what is accepted, what is refused, and that frames pass byte for byte."""

from __future__ import annotations

import inspect
import json
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyryrelay.close_codes import ALLOWED_CODES
from pyryrelay.pyry.envelope import (
    MAX_DEPTH,
    EnvelopeErrorKind,
    FrameError,
    PushWake,
    Unwrapped,
    check_frame,
    close_notice,
    push_feedback,
    take_addressed,
    unwrap,
    wrapping,
)

TOKEN = "very-secret-token"

# References


class NoJson(Exception):
    """The reference refuses this text."""


def refuse_constant(name: str) -> None:
    raise NoJson(name)


def reference_accepts(payload: bytes) -> bool:
    """Tell whether the standard library, as a strict parser of RFC 8259, accepts a text; numbers stay text."""
    try:
        json.loads(payload.decode("utf-8"), parse_constant=refuse_constant, parse_int=str, parse_float=str)
    except (ValueError, NoJson, RecursionError):
        return False
    return True


def accepts(payload: bytes) -> bool:
    try:
        check_frame(payload)
    except FrameError:
        return False
    return True


def kind_of(payload: bytes) -> EnvelopeErrorKind:
    kind = unwrap(payload)
    assert isinstance(kind, EnvelopeErrorKind)
    return kind


# Strategies

characters = st.characters(codec="utf-8") | st.sampled_from('"\\[]{}\ufeff\U0001f600')
strings = st.text(characters, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=12,
)
string_pieces = st.sampled_from(
    (rb"a \\ \" \n \u0041 \ud83d\ude00 \ud800 \uDFFF \ud7ff \\ud800 ud800 [ } " + "\u00e9\U0001f600".encode()).split()
)
awkward_strings = st.lists(string_pieces, max_size=8).map(lambda pieces: b'"' + b"".join(pieces) + b'"')


@st.composite
def json_texts(draw: st.DrawFn) -> bytes:
    """Draw valid JSON in all its spellings: any whitespace and escapes, lone surrogates too."""
    text = json.dumps(
        draw(values), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1, "\t\r\n"]))
    ).encode()
    if draw(st.booleans()):
        text = b"[" + text + b" ,\n{" + draw(awkward_strings) + b":" + draw(awkward_strings) + b"}]"
    return text


@st.composite
def mutated_texts(draw: st.DrawFn) -> bytes:
    """Draw JSON with a few bytes cut, inserted or replaced."""
    text = draw(json_texts())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from([b"", b"\\", b'"', b"u", b"d", b"0", b",", b"[", b"}", b"\xff", b"\xed\xa0\x80"]))
        text = text[:at] + piece + text[at + draw(st.integers(0, 2)) :]
    return text


# check_frame


@given(json_texts())
def test_every_json_text_is_accepted(payload: bytes) -> None:
    """Any JSON value is a frame, however it is written."""
    check_frame(payload)
    check_frame(payload, utf8_checked=True)
    check_frame(b" \t\r\n" + payload + b"\n")


@given(mutated_texts() | st.binary(max_size=40))
@example(b'"\\ud800')
@example(b'"\\\\\\ud800"')
@example(b'"\\\\ud800"')
@example(b'"\\ud8"')
@example(b'"\\ud8zz"')
@example(b'\\\\"\\ud800"')
def test_it_agrees_with_a_strict_reference(payload: bytes) -> None:
    """Exactly those texts are accepted that the standard library reads with ``NaN`` forbidden and UTF-8 enforced."""
    assert accepts(payload) == reference_accepts(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf1",
        b"NaN",
        b"-Infinity",
        b"1 2",
        b"01",
        b"1.",
        b"tru",
        b"[1,]",
        b'{"a":1,}',
        b"{1:2}",
        b'"\x00"',
        b'"\t"',
        b'"\\x"',
        b'"\\u12g4"',
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        '"\u00e9"'.encode("utf-16"),
    ],
)
def test_what_is_no_json_in_utf8_is_refused(payload: bytes) -> None:
    """A text that RFC 8259 or RFC 3629 forbids closes the phone with 1007."""
    with pytest.raises(FrameError) as caught:
        check_frame(payload)
    assert caught.value.close_code == 1007


@pytest.mark.parametrize("payload", [b'"\\ud800"', b'"\\uDC00\\uD800"', b'{"\\ud800x":"\\\\\\udfff"}'])
def test_lone_surrogate_escapes_are_accepted(payload: bytes) -> None:
    r"""``"\\ud800"`` is valid JSON syntax."""
    check_frame(payload)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"":', b"}"), (b'[{"[":', b"}]")])
def test_the_depth_has_one_limit(opening: bytes, closing: bytes) -> None:
    """A frame may nest 512 levels, whatever limit the interpreter has."""
    levels = MAX_DEPTH // (opening.count(b"{") + (opening[:1] == b"["))
    deepest = opening * levels + b"1" + closing * levels
    check_frame(deepest)
    before, after = wrapping("a")
    assert unwrap(before + deepest + after) == Unwrapped("a", deepest, 0)
    too_deep = b"[" + deepest + b"]"
    assert not accepts(too_deep)
    assert kind_of(before + too_deep + after) is EnvelopeErrorKind.MALFORMED


@given(st.integers(MAX_DEPTH - 3, MAX_DEPTH + 3), st.integers(0, 600), st.integers(0, 600), awkward_strings)
def test_depth_is_exact_beside_many_siblings(depth: int, before: int, after: int, text: bytes) -> None:
    """Brackets in strings and in closed siblings do not count for the depth."""
    siblings = [b"[" + text + b",{}],", b"," + text]
    payload = b"[" + siblings[0] * before + b"[" * (depth - 1) + b"]" * (depth - 1) + siblings[1] * after + b"]"
    assert accepts(payload) == (depth <= MAX_DEPTH)


def test_brackets_in_strings_are_text() -> None:
    """A string may hold any number of brackets, quotes and backslashes."""
    for content in (b"[" * 2000, b'\\"[' * 2000, b"\\\\[" * 2000, b'\\\\\\"{' * 2000):
        check_frame(b'["' + content + b'","' + content + b'"]')
    assert not accepts(b'"' + b'\\"[' * 2000)


def test_a_caller_whose_stack_is_nearly_used_up_gets_a_refusal() -> None:
    """If the interpreter's recursion limit stops the decoder, the frame is refused."""
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH

    def descend(levels: int, payload: bytes) -> bool:
        return descend(levels - 1, payload) if levels else accepts(payload)

    levels = sys.getrecursionlimit() - len(inspect.stack(0)) - 200
    assert descend(levels, b"[[]]")
    # Some interpreters count the decoder's levels together with the caller's, others do not.
    assert descend(levels, deep) in (True, False)


# wrap and unwrap


@given(st.text(st.characters(codec="utf-8"), min_size=1), json_texts(), st.booleans())
@example('client-a"b\\c-0123abcd', b'"\\ud800 \\\\ud800 \\\\\\ud800"', True)
def test_frames_pass_byte_for_byte(conn_id: str, frame: bytes, utf8_checked: bool) -> None:
    """Unwrapping a wrapped frame gives its conn_id and the same bytes."""
    before, after = wrapping(conn_id)
    envelope = before + frame + after
    assert envelope.endswith(b',"frame":' + frame + b"}")
    if frame == b"null":
        assert kind_of(envelope) is EnvelopeErrorKind.NOTHING_TO_DO
    else:
        assert unwrap(envelope, utf8_checked) == Unwrapped(conn_id, frame, 0)


def test_the_prefix_is_what_the_binary_expects() -> None:
    """A phone's frame arrives as ``{"conn_id":"...","frame":<the frame>}``."""
    assert wrapping("client-a-01234567") == (b'{"conn_id":"client-a-01234567","frame":', b"}")
    assert wrapping('a"\\') == (b'{"conn_id":"a\\"\\\\","frame":', b"}")


def test_inner_whitespace_stays_and_outer_goes() -> None:
    """The frame keeps its inner whitespace, and loses the whitespace around it."""
    assert unwrap(b' { "conn_id" : "a" , "frame" : [ 1 ,\n2 ] , "token":"x" } ') == Unwrapped("a", b"[ 1 ,\n2 ]", 0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b'"frame":1', Unwrapped("a", b"1", 0)),
        (b'"frame":1,"close_code":0', Unwrapped("a", b"1", 0)),
        (b'"frame":1,"close_code":null', Unwrapped("a", b"1", 0)),
        (b'"frame":false,"close_code":4401', Unwrapped("a", b"false", 4401)),
        (b'"frame":null,"close_code":4401', Unwrapped("a", None, 4401)),
        (b'"close_code":4401', Unwrapped("a", None, 4401)),
        (b'"frame":"","unknown":{"frame":2}', Unwrapped("a", b'""', 0)),
        (b'"frame":1,"frame":2', Unwrapped("a", b"2", 0)),
        (b'"\\u0066rame":1', Unwrapped("a", b"1", 0)),
        (b'"frame":1,"\\ud800":"\\udfff"', Unwrapped("a", b"1", 0)),
        (b'"frame":{"\\ud800":"\\\\\\uDC00 \\\\ud"}', Unwrapped("a", b'{"\\ud800":"\\\\\\uDC00 \\\\ud"}', 0)),
        (b'"frame":1,"push_wake":7', Unwrapped("a", b"1", 0)),
    ],
)
def test_envelopes_that_are_good(fields: bytes, expected: Unwrapped) -> None:
    """A code that is absent, zero or null is none, and so is a frame; unknown fields are ignored."""
    assert unwrap(b'{"conn_id":"a",' + fields + b"}") == expected
    assert unwrap(b"{" + fields + b',"conn_id":"a"}') == expected


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"null", "malformed"),
        (b'"a"', "malformed"),
        (b'{"conn_id":"a","frame":1', "malformed"),
        (b'{"conn_id":"a","frame":1}{}', "malformed"),
        (b'{"conn_id":"a","frame":}', "malformed"),
        (b'{"conn_id":7,"frame":1}', "malformed"),
        (b'{"conn_id":"\\ud800","frame":1}', "malformed"),
        (b'{"conn_id":"a","frame":"\\ud8zz"}', "malformed"),
        (b'{"conn_id":"a","frame":"\xff"}', "malformed"),
        (b'{"conn_id":"a","frame":"\xed\xa0\x80"}', "malformed"),
        (b'\xef\xbb\xbf{"conn_id":"a","frame":1}', "malformed"),
        (b'{"conn_id":"a","frame":1,"close_code":"1000"}', "malformed"),
        (b'{"conn_id":"a","frame":1,"close_code":true}', "malformed"),
        (b'{"conn_id":"a","frame":1,"close_code":4401.0}', "malformed"),
        (b'{"conn_id":"a","frame":1,"close_code":' + b"9" * 6000 + b"}", "malformed"),
        (b"{}", "missing_conn_id"),
        (b'{"frame":1,"close_code":7}', "missing_conn_id"),
        (b'{"conn_id":null,"frame":1}', "missing_conn_id"),
        (b'{"conn_id":"","frame":1}', "missing_conn_id"),
        (b'{"push_wake":null}', "missing_conn_id"),
        (b'{"conn_id":"a"}', "nothing_to_do"),
        (b'{"conn_id":"a","frame":null,"close_code":0}', "nothing_to_do"),
        (b'{"conn_id":"a","push_wake":{"platform":"fcm","token":"t"}}', "nothing_to_do"),
        (b'{"conn_id":"a","close_code":9}', "bad_close_code"),
        (b'{"conn_id":"a","frame":1,"close_code":-1}', "bad_close_code"),
        (b'{"conn_id":"a","frame":1,"close_code":99999999999999999999}', "bad_close_code"),
        (b'{"push_wake":7}', "malformed"),
        (b'{"push_wake":{"platform":"fcm"}}', "malformed"),
        (b'{"push_wake":{"token":"t"}}', "malformed"),
        (b'{"push_wake":{"platform":"fcm","token":7}}', "malformed"),
        (b'{"push_wake":{"platform":"\\ud800","token":"t"}}', "malformed"),
    ],
)
def test_envelopes_that_are_dropped(payload: bytes, kind: str) -> None:
    """Each bad envelope is dropped for one fixed reason, which is all that the error says."""
    assert kind_of(payload) == kind


@pytest.mark.parametrize("code", [999, 1000, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000])
def test_only_codes_that_may_be_sent_are_legal(code: int) -> None:
    """RFC 6455 section 7.4: 1004, 1005, 1006, 1015 and codes outside the ranges are refused."""
    legal = code in {1000, 1003, 1007, 1014, 3000, 4999}
    payload = b'{"conn_id":"a","close_code":%d}' % code
    assert (code in ALLOWED_CODES) == legal
    if legal:
        assert unwrap(payload) == Unwrapped("a", None, code)
    else:
        assert kind_of(payload) is EnvelopeErrorKind.BAD_CLOSE_CODE


@pytest.mark.parametrize("conn_id", [b"", b'"conn_id":null,', b'"conn_id":"",'])
@pytest.mark.parametrize("unknown", [b"1", b'"\\ud800"'])
def test_a_push_wake_has_no_conn_id_and_shows_no_token(conn_id: bytes, unknown: bytes) -> None:
    """``push_wake`` counts where no phone is addressed, and the text of the result leaves its token out."""
    wake = b'"push_wake":{"platform":"fcm","token":"' + TOKEN.encode() + b'","x":' + unknown + b"}"
    result = unwrap(b"{" + conn_id + wake + b"}")
    assert result == PushWake("fcm", TOKEN)
    assert TOKEN not in repr(result)


def test_feedback_about_a_push_wake() -> None:
    """The message has the platform and the token of the wake, as JSON strings."""
    assert json.loads(push_feedback(PushWake("fcm", 't"\n\u2603'))) == {
        "push_wake_result": {"platform": "fcm", "token": 't"\n\u2603', "outcome": "unregistered"}
    }


@pytest.mark.parametrize("wake", [b'{"platform":7,"token":"%b"}', b'{"platform":"fcm","token":"%b\\ud800"}', b'"%b"'])
def test_errors_hold_no_content(wake: bytes) -> None:
    """Neither the text of an error nor its cause quotes the message."""
    payload = b'{"push_wake":' + wake % TOKEN.encode() + b"}"
    assert kind_of(payload) is EnvelopeErrorKind.MALFORMED
    with pytest.raises(FrameError) as caught:
        check_frame(payload + b"\xff")
    error = caught.value
    assert TOKEN not in repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None


words = rb'{ } [ ] , : "conn_id" "frame" "close_code" "push_wake" "a" null 4401 1e9 "\ud800" \ "'.split()
pieces_of_envelopes = st.lists(st.sampled_from([*words, b" ", b'"\xff"', b"\xfe"]), max_size=24).map(b"".join)


@given(st.binary() | pieces_of_envelopes | mutated_texts(), st.booleans())
def test_arbitrary_bytes_raise_nothing_else(payload: bytes, with_conn_id: bool) -> None:
    """Any message is an envelope, a push wake, or dropped for one of the known reasons."""
    if with_conn_id:
        payload = b'{"conn_id":"a","frame":' + payload + b"}"
    result = unwrap(payload)
    if isinstance(result, EnvelopeErrorKind):
        return
    assert reference_accepts(payload)
    if isinstance(result, Unwrapped) and result.frame is not None:
        assert result.frame in payload
        check_frame(result.frame)


# take_addressed

KNOWN = {conn_id: wrapping(conn_id)[0] for conn_id in ("client-a-00000000", "client-a-00000001")}
HEAD_BYTES = len(wrapping("client-a-00000000")[0])


@st.composite
def addressed(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Draw messages that begin like an envelope with a conn_id, and end in many ways."""
    conn_id = draw(st.sampled_from([*KNOWN, "client-a-0000000f"]))
    frame = draw(json_texts() | mutated_texts() | pieces_of_envelopes | st.sampled_from([b"null", b"", b"1", b"{}{}"]))
    before, after = draw(st.sampled_from([b"", b"", b" "])), draw(st.sampled_from([b"", b"", b"\n"]))
    more = draw(st.sampled_from([b"", b"", b',"close_code":4000', b',"frame":2', b',"conn_id":"a"', b"}", b"} "]))
    return wrapping(conn_id)[0] + before + frame + after + more + b"}", draw(st.booleans())


def boxed(messages: list[tuple[bytes, bool]]) -> tuple[list[tuple[str, bytes]], list[tuple[bytes, bool]]]:
    """Return the boxed frames with their conn_ids, and the messages that were left."""
    boxes: dict[bytes, list[bytes]] = {head: [] for head in KNOWN.values()}
    rest, left = iter(messages), []
    filled: list[list[bytes]] = []
    while (message := take_addressed(rest, boxes, HEAD_BYTES, filled)) is not None:
        left.append(message)
    assert list(map(id, filled)) == list(dict.fromkeys(map(id, filled)))
    assert {id(box) for box in filled} == {id(box) for box in boxes.values() if box}
    return [(conn_id, frame) for conn_id, head in KNOWN.items() for frame in boxes[head]], left


@given(addressed() | st.tuples(st.binary() | pieces_of_envelopes, st.booleans()))
def test_what_is_boxed_is_what_unwrapping_finds(message: tuple[bytes, bool]) -> None:
    """The fast path gives the same result as unwrapping, or leaves the message to it."""
    payload, _ = message
    try:
        payload.decode()
    except UnicodeDecodeError:
        # A text message is never that.
        message = payload, True
    found, left = boxed([message])
    if found:
        assert left == []
        assert unwrap(payload) == Unwrapped(*found[0], 0)
    else:
        assert left == [message]


@pytest.mark.parametrize("frame", [b"1", b"[]", b'{"a": 1 }', '"é"'.encode(), b"[" * MAX_DEPTH + b"]" * MAX_DEPTH])
def test_a_plain_envelope_is_boxed(frame: bytes) -> None:
    """An envelope with conn_id and frame alone is boxed, whatever its frame."""
    before, after = wrapping("client-a-00000001")
    assert boxed([(before + frame + after, False)]) == ([("client-a-00000001", frame)], [])


def test_frames_are_boxed_in_order_around_what_is_left() -> None:
    """A message that must be unwrapped stops the fast path, and the next call goes on behind it."""
    (before, after), unknown = wrapping("client-a-00000000"), (b"{}", False)
    messages = [(before + b"%d" % number + after, False) for number in range(4)]
    found, left = boxed([messages[0], unknown, unknown, *messages[1:], unknown])
    assert [frame for _, frame in found] == [b"0", b"1", b"2", b"3"]
    assert left == [unknown] * 3


@pytest.mark.parametrize("size", [3 * MAX_DEPTH, 40_000])
def test_an_envelope_that_is_too_deep_is_not_boxed(size: int) -> None:
    """An envelope that is too deep is not boxed, whether or not a decoder could read it."""
    before, after = wrapping("client-a-00000000")
    message = before + b"[" * size + b"]" * size + after, False
    assert boxed([message]) == ([], [message])


@pytest.mark.parametrize("frame", [b"1 ", b" 1", b"1\t", b"1\n", b"1\r", b"{} ", b"[]  ", b'"x" '])
def test_white_space_around_a_frame_is_left_to_unwrapping(frame: bytes) -> None:
    """A frame with whitespace around it is left to unwrapping, which cuts that off."""
    before, after = wrapping("client-a-00000000")
    message = before + frame + after
    assert boxed([(message, False)]) == ([], [(message, False)])
    assert unwrap(message) == Unwrapped("client-a-00000000", frame.strip(), 0)


# close_notice


@given(st.text(), st.integers(0, 65535))
def test_a_close_notice_is_an_envelope_without_a_frame(conn_id: str, code: int) -> None:
    """A close notice is a valid envelope with the given code if that may be sent, or 1001."""
    notice = close_notice(conn_id, code)
    assert json.loads(notice) == {
        "conn_id": conn_id,
        "close_code": code if code in ALLOWED_CODES else 1001,
    }
    assert notice.startswith(b'{"conn_id":"')
    assert notice.endswith(b',"close_code":%d}' % (code if code in ALLOWED_CODES else 1001))


def test_results_cannot_be_altered() -> None:
    """Results are immutable, and frames are bytes of their own instead of views."""
    result = unwrap(b'{"conn_id":"a","frame":[1]}')
    assert isinstance(result, Unwrapped)
    assert type(result.frame) is bytes
    with pytest.raises(AttributeError):
        result.frame = b""  # type: ignore[misc]
