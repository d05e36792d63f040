"""What ``pyryrelay probe`` does to a relay of pyry: it is a binary and a phone that talk to each other once.

It works with every relay of the specification (pyry-v1), also with those that send no close notices.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from pyryrelay import __version__
from pyryrelay.protocol_options import ProbeError, ProbePeer, Prober

__all__ = ["PyryProbe"]

BINARY_PATH: Final = "/v1/server"
PHONE_PATH: Final = "/v1/client"
NOTICE_S: Final = 1.0
"""How long the notice is waited for, which not all relays send."""
_ANSWERS: Final = {
    400: "a header of the protocol is missing or not acceptable; a proxy in front may have removed it",
    404: "it does not know the path of the protocol",
    1001: "it is about to stop, or the other side of the pair has left",
    4404: "it knows no binary of that server-id, although one has registered: several relays may share this name",
    4409: "another binary has that server-id",
    4429: "there are too many phones with that server-id",
}
_UNPAIRED: Final = "check that all connections reach one relay: several behind one name need to be one cluster"


class PyryProbe:
    """See `pyryrelay.protocol_options.Probe`."""

    visitor = "a binary and a phone that talk to each other"

    def add_options(self, parser: Any) -> None:
        """Add ``--server-id``, with which the probe does not have one of its own."""
        parser.add_argument(
            "--server-id",
            metavar="ID",
            help="the server-id of the binary that is played (default: a new one that nobody can know)",
        )

    def visit(self, prober: Prober, arguments: Any) -> None:
        """Connect a binary and a phone, relay a frame in each direction, and leave."""
        server_id = arguments.server_id or f"probe-{secrets.token_hex(8)}"
        prefix = prober.path.removesuffix(BINARY_PATH).removesuffix(PHONE_PATH)
        common = {"X-Pyrycode-Server": server_id}
        binary = prober.connect(
            "binary", prefix + BINARY_PATH, common | {"X-Pyrycode-Version": f"probe/{__version__}"}, _ANSWERS
        )
        with prober.step("binary: registration") as step:
            # A claim that is refused is closed before the pong.
            binary.ping()
            step.detail = "registered, and answered a ping"
        phone_headers = common | {"X-Pyrycode-Token": "probe", "X-Pyrycode-Device-Name": "pyryrelay probe"}
        phone = prober.connect("phone", prefix + PHONE_PATH, phone_headers, _ANSWERS)
        with prober.step("phone: registration") as step:
            phone.ping()
            step.detail = "registered, and answered a ping"
        conn_id = _to_binary(prober, binary, phone)
        _to_phone(prober, binary, phone, conn_id)
        _leave(prober, binary, phone, conn_id)


def _to_binary(prober: Prober, binary: ProbePeer, phone: ProbePeer) -> str:
    """Have a frame of the phone arrive at the binary, and return the phone's conn_id."""
    frame = {"probe": secrets.token_hex(16)}
    with prober.step("frame: phone to binary") as step:
        phone.send(json.dumps(frame))
        envelope = _object(binary.receive())
        if envelope.get("frame") != frame:
            raise ProbeError("something else arrived than the phone has sent", _UNPAIRED)
        conn_id = envelope.get("conn_id")
        if not isinstance(conn_id, str):
            raise ProbeError("the envelope has no conn_id", "check that the relay speaks pyry-v1")
        step.detail = "arrived unchanged"
        return conn_id


def _to_phone(prober: Prober, binary: ProbePeer, phone: ProbePeer, conn_id: str) -> None:
    answer = {"answer": secrets.token_hex(16)}
    with prober.step("answer: binary to phone") as step:
        binary.send(json.dumps({"conn_id": conn_id, "frame": answer}))
        if _object(phone.receive()) != answer:
            raise ProbeError("something else arrived than the binary has sent", _UNPAIRED)
        step.detail = "arrived unchanged"


def _leave(prober: Prober, binary: ProbePeer, phone: ProbePeer, conn_id: str) -> None:
    with prober.step("phone: close") as step:
        step.detail = f"answered with {phone.close()}"
    with prober.step("binary: close notice") as step:
        notice = binary.receive_within(NOTICE_S)
        if notice is None:
            step.detail = "none: relays before 2026-09 send none"
        elif _object(notice).get("conn_id") == conn_id:
            step.detail = f"code {_object(notice).get('close_code')}"
        else:
            raise ProbeError("something else arrived than a notice that the phone has left", _UNPAIRED)
    with prober.step("binary: close") as step:
        step.detail = f"answered with {binary.close()}"


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ProbeError("the message is no JSON object", "check that the relay speaks pyry-v1")
    return found
