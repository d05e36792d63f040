"""PURE: what a handshake agrees upon about compressed messages (permessage-deflate, RFC 7692 section 7).

The client's header field ``Sec-WebSocket-Extensions`` has a list of offers; the first that can be met is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pyryrelay.protocol_options import Deflate

__all__ = ["CONTEXT_BITS", "MAX_BITS", "Compression", "negotiate"]

MAX_BITS: Final = 15
"""The largest window, of 32 KiB, and what a client uses unless something else is agreed upon."""
CONTEXT_BITS: Final = 12
"""The window in each direction of connections that keep their context: 4 KiB, since each of them takes that memory."""

_MIN_BITS: Final = 9
"""The smallest window that zlib can compress with; the RFC also has 8."""
_NAME: Final = "permessage-deflate"
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER: Final = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"({_TOKEN})"))?', re.ASCII)
_OFFER: Final = re.compile(rf"[ \t]*({_TOKEN})((?:{_PARAMETER.pattern})*)[ \t]*", re.ASCII)
_WINDOW_BITS: Final = re.compile(r"[89]|1[0-5]", re.ASCII)
_WITHOUT_VALUE: Final = ("server_no_context_takeover", "client_no_context_takeover")
_SERVER_BITS, _CLIENT_BITS = "server_max_window_bits", "client_max_window_bits"


@dataclass(frozen=True, slots=True)
class Compression:
    """What was agreed upon. ``answer`` is the value of the header field of the answer.

    ``server_context`` and ``client_context``: a side compresses a message with what it sent before. Bits are the base 2
    logarithms of the windows.
    """

    answer: str
    server_context: bool
    client_context: bool
    server_bits: int
    client_bits: int


def negotiate(values: Sequence[str], mode: Deflate) -> Compression | None:
    """Return what to agree upon, given the values of the request's header field; None for no compression."""
    for parameters in _offers(",".join(values)):
        found = _accept(parameters, mode)
        if found is not None:
            return found
    return None


def _offers(text: str) -> Iterator[dict[str, str | None]]:
    """Yield the parameters of each offer of the extension, without those that are malformed."""
    for part in text.split(","):
        found = _OFFER.fullmatch(part)
        if found is None or found[1].lower() != _NAME:
            continue
        pairs = [(name.lower(), token or quoted or None) for name, token, quoted in _PARAMETER.findall(found[2])]
        if len(dict(pairs)) == len(pairs):
            yield dict(pairs)


def _accept(parameters: dict[str, str | None], mode: Deflate) -> Compression | None:
    """Return what to agree upon for one offer; None if it has an unknown parameter or asks for what is impossible."""
    server_bits, client_bits = MAX_BITS, MAX_BITS
    for name, value in parameters.items():
        if name in _WITHOUT_VALUE:
            is_valid = value is None
        elif name == _SERVER_BITS:
            is_valid = value is not None and _WINDOW_BITS.fullmatch(value) is not None and int(value) >= _MIN_BITS
            server_bits = int(value) if is_valid and value else server_bits
        else:
            is_valid = name == _CLIENT_BITS and (value is None or _WINDOW_BITS.fullmatch(value) is not None)
            client_bits = int(value) if is_valid and value else client_bits
        if not is_valid:
            return None
    keeps_context = mode == "context"
    server_context = keeps_context and "server_no_context_takeover" not in parameters
    client_context = keeps_context and "client_no_context_takeover" not in parameters
    if server_context:
        server_bits = min(server_bits, CONTEXT_BITS)
    answer = [_NAME]
    answer += [] if server_context else ["server_no_context_takeover"]
    answer += [] if client_context else ["client_no_context_takeover"]
    if _SERVER_BITS in parameters:
        answer.append(f"{_SERVER_BITS}={server_bits}")
    if _CLIENT_BITS in parameters and client_context:
        client_bits = min(client_bits, CONTEXT_BITS)
        answer.append(f"{_CLIENT_BITS}={client_bits}")
    else:
        # Without an answer the client may use the largest window, whatever it has offered (section 7.1.2.2).
        client_bits = MAX_BITS
    return Compression("; ".join(answer), server_context, client_context, server_bits, client_bits)
