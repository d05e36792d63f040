"""The probe that is a binary and a phone, against relays that do well, and against some that do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.probing import FakePeer, FakeProber, visit

from pyryrelay.mounts import Settings
from pyryrelay.protocol_options import ProbeError
from pyryrelay.pyry.mount import PYRY
from pyryrelay.pyry.probing import PyryProbe

PHONE = "client-x-0123abcd"


class Relay:
    """A binary and a phone of a relay; what it relays can be changed."""

    def __init__(self, notice: dict[str, Any] | None = None, **changes: Any) -> None:
        self.binary, self.phone = FakePeer(), FakePeer()
        self.changes = changes
        self.phone.answer = self._from_phone
        self.binary.answer = self._from_binary
        self.notice = notice
        self.prober = FakeProber([self.binary, self.phone])

    def _from_phone(self, text: str) -> Sequence[str]:
        envelope = {"conn_id": PHONE, "frame": json.loads(text)} | self.changes.get("envelope", {})
        self.binary.arrived.append(self.changes.get("raw") or json.dumps(envelope))
        return ()

    def _from_binary(self, text: str) -> Sequence[str]:
        envelope = json.loads(text)
        assert envelope["conn_id"] == PHONE
        self.phone.arrived.append(json.dumps(self.changes.get("frame", envelope["frame"])))
        if self.notice is not None:
            self.binary.arrived.append(json.dumps(self.notice))
        return ()


def test_a_pair_that_talks() -> None:
    """A frame and an answer arrive unchanged, and both sides leave in order."""
    relay = Relay({"conn_id": PHONE, "close_code": 1000})
    assert visit(PyryProbe(), relay.prober) == {
        "binary: registration": "registered, and answered a ping",
        "phone: registration": "registered, and answered a ping",
        "frame: phone to binary": "arrived unchanged",
        "answer: binary to phone": "arrived unchanged",
        "phone: close": "answered with 1000",
        "binary: close notice": "code 1000",
        "binary: close": "answered with 1000",
    }
    (who, path, headers), (_, phone_path, phone_headers) = relay.prober.connected
    assert (who, path, phone_path) == ("binary", "/v1/server", "/v1/client")
    assert headers["X-Pyrycode-Server"] == phone_headers["X-Pyrycode-Server"]
    assert len(headers["X-Pyrycode-Server"]) > 20
    assert "X-Pyrycode-Version" in headers
    # Other relays answer 400 without them.
    assert {"X-Pyrycode-Token", "X-Pyrycode-Device-Name"} <= set(phone_headers)


def test_each_visit_has_a_server_id_of_its_own() -> None:
    """Nobody can know the id, unless the operator gives one."""
    ids = set()
    for words in ((), (), ("--server-id", "mine"), ("--server-id", "mine")):
        relay = Relay()
        visit(PyryProbe(), relay.prober, *words)
        ids.add(relay.prober.connected[0][2]["X-Pyrycode-Server"])
    assert len(ids) == 3
    assert "mine" in ids


@pytest.mark.parametrize("path", ["/relay", "/relay/v1/server", "/relay/v1/client"])
def test_a_relay_below_a_path(path: str) -> None:
    """The path of the URL comes before those of the protocol; the whole path of one side is understood too."""
    relay = Relay()
    relay.prober.path = path
    visit(PyryProbe(), relay.prober)
    assert [one[1] for one in relay.prober.connected] == ["/relay/v1/server", "/relay/v1/client"]


def test_a_relay_that_sends_no_notice() -> None:
    """Relays of before send no close notice, which is no problem."""
    assert visit(PyryProbe(), Relay().prober)["binary: close notice"] == "none: relays before 2026-09 send none"


def test_a_claim_that_is_refused() -> None:
    """The end of the connection before the pong is the problem of the registration, with the protocol's words."""
    relay = Relay()
    relay.binary.end = ProbeError("closed with 4409", "end it")
    assert visit(PyryProbe(), relay.prober) == {"binary: registration": "problem: closed with 4409"}
    assert relay.prober.answers[4409] == "another binary has that server-id"


@pytest.mark.parametrize(
    ("relay", "step", "problem"),
    [
        (Relay(envelope={"frame": {}}), "frame: phone to binary", "something else arrived than the phone has sent"),
        (Relay(envelope={"conn_id": 7}), "frame: phone to binary", "the envelope has no conn_id"),
        (Relay(raw="[1]"), "frame: phone to binary", "the message is no JSON object"),
        (Relay(raw="[" * 100_000), "frame: phone to binary", "the message is no JSON object"),
        (Relay(frame={"x": 1}), "answer: binary to phone", "something else arrived than the binary has sent"),
        (Relay({"conn_id": "other"}), "binary: close notice", "something else arrived than a notice"),
    ],
)
def test_a_relay_that_does_something_else(relay: Relay, step: str, problem: str) -> None:
    """The first step that fails is the last one."""
    told = visit(PyryProbe(), relay.prober)
    assert list(told)[-1] == step
    assert told[step].startswith(f"problem: {problem}")


def test_the_mount_has_it() -> None:
    """It is the first of the probes, so the command uses it by default."""
    assert isinstance(PYRY.probe(), PyryProbe)
    assert Settings.protocols[0] is PYRY
