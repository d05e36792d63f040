"""The probe that is a Nostr client, against relays that do well, and against some that do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.support.probing import FakePeer, FakeProber, visit

from pyryrelay.nostr.events import parse_event
from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.tools.probing import MAX_BEFORE_ANSWER, NostrProbe

DOCUMENT = json.dumps({"name": "A\x1b relay", "software": "git+x", "version": "1", "supported_nips": [1, 11]}).encode()
Answer = Callable[[list[Any]], Sequence[object]]


def relay(answer: Answer | None = None, page: tuple[int, bytes] = (200, DOCUMENT), **prober: Any) -> FakeProber:
    """Return a prober of a relay that answers REQ with one event, and accepts all events, unless a test says more."""

    def respond(text: str) -> list[str]:
        message = json.loads(text)
        found: Any = None if answer is None else answer(message)
        if found is None:
            found = {
                "REQ": [["EVENT", "probe", {}], ["EOSE", "probe"]],
                "EVENT": [["OK", message[1]["id"] if isinstance(message[1], dict) else "", True, ""]],
                "AUTH": [["OK", message[1]["id"] if isinstance(message[1], dict) else "", True, ""]],
            }.get(message[0], [])
        return [json.dumps(one) for one in found]

    return FakeProber([FakePeer(respond)], page=page, **prober)


def sent(prober: FakeProber) -> list[list[Any]]:
    """Return the messages of the client."""
    return [json.loads(text) for text in prober.peers[-1].sent]


def test_a_relay_that_does_well() -> None:
    """The document is read, a subscription is served to its end, and closed."""
    prober = relay()
    assert visit(NostrProbe(), prober) == {
        "REQ to EOSE": "1 event",
        "client: close": "answered with 1000",
    }
    assert sent(prober) == [["REQ", "probe", {"kinds": [1], "limit": 1}], ["CLOSE", "probe"]]
    assert prober.connected[0] == ("information document", "/", {"Accept": "application/nostr+json"})
    assert prober.connected[1][1] == "/"


@pytest.mark.parametrize(
    ("page", "warning"),
    [
        ((404, b""), "warning: there is none (status 404)"),
        ((0, b"the server closed"), "warning: there is none (the server closed)"),
        ((200, b"<html>"), "warning: there is none (status 200)"),
        ((200, b"[1]"), "warning: there is none (status 200)"),
        ((200, b"[" * 100_000), "warning: there is none (status 200)"),
        ((200, b"{}"), None),
    ],
)
def test_a_relay_without_a_document(page: tuple[int, bytes], warning: str | None) -> None:
    """A document is no duty, so its lack is a warning."""
    assert visit(NostrProbe(), relay(page=page)).get("information document") == warning


def test_publishing() -> None:
    """With --publish a signed ephemeral event of a new key is sent, in the form that relays verify."""
    keys = set()
    for _ in range(2):
        prober = relay(path="/nostr")
        assert visit(NostrProbe(), prober, "--publish")["EVENT to OK"] == "accepted"
        (event,) = [message[1] for message in sent(prober) if message[0] == "EVENT"]
        parsed = parse_event(json.dumps(event).encode())
        assert 20_000 <= event["kind"] < 30_000
        assert parsed is not None
        keys.add(event["pubkey"])
    assert len(keys) == 2


def test_authentication() -> None:
    """A relay that demands it gets the challenge back, signed for its URL, and is asked again."""
    state = {"in": False}

    def answer(message: list[Any]) -> Sequence[object] | None:
        if message[0] == "AUTH":
            tags = dict(message[1]["tags"])
            state["in"] = tags == {"relay": "wss://relay.example", "challenge": "c"} and message[1]["kind"] == 22_242
            return None
        if message[0] == "REQ" and not state["in"]:
            return [["AUTH", "c"], ["CLOSED", "probe", "auth-required: who are you"]]
        return None

    prober = relay(answer)  # type: ignore[arg-type]
    told = visit(NostrProbe(), prober)
    assert (told["AUTH to OK"], told["REQ to EOSE"]) == ("accepted", "1 event")
    assert [message[0] for message in sent(prober)] == ["REQ", "AUTH", "REQ", "CLOSE"]


def refusing(text: str, verb: str = "EVENT") -> Answer:
    """Return a relay that refuses one thing with a text."""

    def answer(message: list[Any]) -> Any:
        if message[0] != verb:
            return None
        return [["CLOSED", "probe", text]] if verb == "REQ" else [["OK", message[1]["id"], False, text]]

    return answer


@pytest.mark.parametrize(
    ("answer", "step", "problem", "fix"),
    [
        (refusing("blocked: no"), "EVENT to OK", "the event was refused: 'blocked: no'", "see its rules"),
        (refusing("odd\x1b"), "EVENT to OK", "the event was refused: 'odd\\x1b'", "see what the relay says"),
        (refusing("rate-limited: slow", "REQ"), "REQ to EOSE", "the subscription was refused", "wait, and try again"),
        (
            refusing("auth-required: x", "REQ"),
            "AUTH to OK",
            "the relay wants authentication, and has sent no",
            "see its",
        ),
        (lambda message: [["EVENT", "other", {}]] * MAX_BEFORE_ANSWER, "REQ to EOSE", "EOSE did not come", "NIP-01"),
        (lambda message: ["hello"], "REQ to EOSE", "the message is no JSON array", "Nostr relay"),
        (
            lambda message: None if message[0] == "REQ" else [["OK", "other", True, ""]] * MAX_BEFORE_ANSWER,
            "EVENT to OK",
            "OK did not come",
            "NIP-01",
        ),
    ],
)
def test_what_a_relay_refuses(answer: Answer, step: str, problem: str, fix: str) -> None:
    """The first step that fails is the last one, with what the relay said and what to do about it."""
    prober = relay(answer)
    told = visit(NostrProbe(), prober, "--publish")
    assert list(told)[-1] == step
    assert told[step].startswith(f"problem: {problem}")
    assert fix in prober.steps.taken[-1].fix


def test_authentication_that_is_not_accepted() -> None:
    """A relay that refuses the authentication may have another URL as its own."""

    def answer(message: list[Any]) -> Any:
        if message[0] == "AUTH":
            return [["OK", message[1]["id"], False, "invalid: relay"]]
        return [["AUTH", "c"], ["CLOSED", "probe", "auth-required: x"]]

    prober = relay(answer)
    assert visit(NostrProbe(), prober)["AUTH to OK"].startswith("problem: the relay does not accept the authentication")
    assert "--nostr-url" in prober.steps.taken[-1].fix


def test_notices_are_told() -> None:
    """What the relay says to people is a warning."""

    def answer(message: list[Any]) -> Any:
        return [["NOTICE", "hello\x1b"], ["EOSE", "probe"]] if message[0] == "REQ" else []

    told = visit(NostrProbe(), relay(answer))
    assert (told["NOTICE"], told["REQ to EOSE"]) == ("warning: 'hello\\x1b'", "0 events")


def test_without_coincurve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only signing needs the library; without it one line says how to install it."""
    monkeypatch.setitem(sys.modules, "coincurve", None)
    assert visit(NostrProbe(), relay())["REQ to EOSE"] == "1 event"
    prober = relay()
    assert "needs coincurve" in visit(NostrProbe(), prober, "--publish")["EVENT to OK"]
    assert prober.steps.taken[-1].fix == "pip install 'pyryrelay[nostr]'"


def test_the_mount_has_it() -> None:
    """The command finds the probe of the protocol there."""
    assert isinstance(NOSTR.probe(), NostrProbe)
