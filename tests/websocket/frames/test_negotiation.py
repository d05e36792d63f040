"""What offers of permessage-deflate are agreed upon, and what is answered (RFC 7692 section 7.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import parse_extension

from pyryrelay.protocol_options import Deflate
from pyryrelay.websocket.frames.negotiation import CONTEXT_BITS, MAX_BITS, Compression, negotiate

NO_CONTEXT = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offer", "mode", "agreed"),
    [
        ("permessage-deflate", "no-context", Compression(NO_CONTEXT, False, False, 15, 15)),
        ("permessage-deflate", "context", Compression("permessage-deflate", True, True, 12, 15)),
        ("Permessage-Deflate", "no-context", Compression(NO_CONTEXT, False, False, 15, 15)),
        ("permessage-deflate; client_max_window_bits", "no-context", Compression(NO_CONTEXT, False, False, 15, 15)),
        (
            "permessage-deflate; client_max_window_bits",
            "context",
            Compression("permessage-deflate; client_max_window_bits=12", True, True, 12, 12),
        ),
        (
            "permessage-deflate; client_max_window_bits=9",
            "context",
            Compression("permessage-deflate; client_max_window_bits=9", True, True, 12, 9),
        ),
        (
            'permessage-deflate;server_max_window_bits="10"',
            "no-context",
            Compression(f"{NO_CONTEXT}; server_max_window_bits=10", False, False, 10, 15),
        ),
        (
            "permessage-deflate; server_max_window_bits=15",
            "context",
            Compression("permessage-deflate; server_max_window_bits=12", True, True, 12, 15),
        ),
        (NO_CONTEXT, "context", Compression(NO_CONTEXT, False, False, 15, 15)),
        (
            "permessage-deflate ; server_no_context_takeover",
            "context",
            Compression("permessage-deflate; server_no_context_takeover", False, True, 15, 15),
        ),
        ("permessage-deflate; client_max_window_bits=8", "no-context", Compression(NO_CONTEXT, False, False, 15, 15)),
    ],
)
def test_offers_that_can_be_met(offer: str, mode: Deflate, agreed: Compression) -> None:
    """The answer has what the mode demands, what the client asks for, and nothing that it did not offer."""
    assert negotiate([offer], mode) == agreed


@pytest.mark.parametrize(
    "offer",
    [
        "",
        ",",
        "x-webkit-deflate-frame",
        "permessage-bzip2",
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=1",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=\u0661\u0660",
        "permessage-deflate; client_max_window_bits=",
        'permessage-deflate; client_max_window_bits="10',
        "permessage-deflate;",
        "permessage-deflate client_max_window_bits",
    ],
)
def test_offers_that_are_declined(offer: str) -> None:
    """An offer with anything unknown, repeated, malformed or impossible is not met, and is no error."""
    assert negotiate([offer], "no-context") is None
    assert negotiate([offer, "x, permessage-deflate"], "context") is not None


def test_the_first_that_fits_is_taken() -> None:
    """Offers may be in one field or in several; the first that can be met counts."""
    values = ["x; y=1, permessage-deflate; server_max_window_bits=8", "permessage-deflate; client_max_window_bits=10"]
    agreed = negotiate([*values, "permessage-deflate"], "context")
    assert agreed is not None
    assert agreed.answer == "permessage-deflate; client_max_window_bits=10"
    assert (agreed.server_bits, agreed.client_bits) == (CONTEXT_BITS, 10)
    assert MAX_BITS == 15


@given(
    no_context=st.tuples(st.booleans(), st.booleans()),
    bits=st.tuples(st.none() | st.integers(9, 15), st.none() | st.just(True) | st.integers(9, 15)),
    mode=st.sampled_from(["no-context", "context"]),
)
def test_another_implementation_takes_the_answer(
    no_context: tuple[bool, bool], bits: tuple[int | None, int | bool | None], mode: Deflate
) -> None:
    """Whatever websockets' client offers, it accepts the answer, and understands by it what we do."""
    client = ClientPerMessageDeflateFactory(*no_context, *bits)
    parameters = client.get_request_params()
    offer = "; ".join(["permessage-deflate", *(name if v is None else f"{name}={v}" for name, v in parameters)])
    agreed = negotiate([offer], mode)
    assert agreed is not None
    ((_, answered),) = parse_extension(agreed.answer)
    extension = client.process_response_params(answered, [])
    assert extension.remote_no_context_takeover == (not agreed.server_context)
    assert extension.local_no_context_takeover == (not agreed.client_context)
    assert extension.remote_max_window_bits >= agreed.server_bits
    assert extension.local_max_window_bits <= agreed.client_bits


@given(st.text(alphabet='permsag-deflt;,=" _client_max_window_bits10', max_size=80))
def test_anything_may_be_offered(text: str) -> None:
    """No value raises an exception, or takes long."""
    negotiate([text, text * 20], "no-context")
