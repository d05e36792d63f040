"""Request heads for properties: plain ones, unusual ones, and damaged ones."""

from __future__ import annotations

from hypothesis import strategies as st
from tests.support.harness import PATH, request_head

LINES = st.sampled_from(
    [
        "X-Forwarded-For: 192.0.2.1",
        "x-forwarded-for: 198.51.100.7 , 192.0.2.1\t",
        "X-Forwarded-For:",
        "Forwarded: for=192.0.2.1",
        "X-Real-IP: 192.0.2.1",
        "X-A:\t b ",
        "X-A: h\xe9",
        "Host: again",
        "HOST: again",
        "X-A : b",
        "X-A: a\x00b",
        " folded",
        "User-Agent: x" + "y" * 60,
        "no colon",
        "Sec-WebSocket-Key: short",
    ]
)
PATHS = st.sampled_from(
    [
        PATH,
        PATH,
        PATH,
        f"{PATH}?a=b",
        f"{PATH}#a",
        f"{PATH}/",
        "/healthz",
        "/nowhere",
        f"http://h{PATH}",
        "*",
        "/v1/client",
    ]
)
USUAL = st.sampled_from(["Host", "Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"])


@st.composite
def whole_heads(draw: st.DrawFn) -> bytes:
    """Draw a complete head, well-formed or not."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "GET", "POST", "get", "GET\t"]))
    without = draw(st.lists(USUAL, max_size=1))
    return request_head(draw(PATHS), *draw(st.lists(LINES, max_size=3)), method=method, without=without)


@st.composite
def damaged_heads(draw: st.DrawFn) -> bytes:
    """Draw a head with a few bytes replaced, or cut short."""
    data = bytearray(draw(whole_heads()))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 1))] = draw(
            st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"#", b"\x7f", b"\xff", b"x", b"1", b""])
        )
    return bytes(data[: draw(st.sampled_from([len(data), len(data), len(data) - 1, len(data) // 2]))])


HEADS = st.one_of(whole_heads(), damaged_heads(), damaged_heads().map(lambda head: head + b"\x81\x80more"))
