"""The command ``pyryrelay explain``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.command import Ran, Runner
from tests.support.fake_relay import FakeRelay


def explanation(verdict: str, reason: str | None = None, retry_after_s: float | None = None) -> dict[str, Any]:
    """Return the answer of a relay."""
    steps = [
        {"what": "client", "state": "info", "detail": "counted as 192.0.2.7/32"},
        {"what": "jail", "state": "ok", "detail": "not jailed"},
        {"what": "quota of upgrades", "state": "refuses", "detail": "none left for 5 s \x1b"},
    ]
    return {
        "address": "192.0.2.7",
        "network": "192.0.2.7/32",
        "verdict": verdict,
        "reason": reason,
        "retry_after_s": retry_after_s,
        "steps": steps,
    }


@pytest.mark.parametrize(
    ("answer", "code", "headline"),
    [
        (explanation("admitted"), 0, "would now be admitted"),
        (explanation("exempt"), 0, "would now be admitted: it is exempt"),
        (explanation("refused", "rate_limit", 5.2), 1, "would now be refused: rate_limit; it should try again in 5s"),
        (explanation("jailed", "jailed"), 1, "would now be jailed: jailed"),
        (explanation("denied", "denied"), 1, "would now be denied: denied"),
    ],
)
def test_the_verdict_is_the_exit_code(
    run: Runner, relay: FakeRelay, answer: dict[str, Any], code: int, headline: str
) -> None:
    """The first line is the verdict, the others what leads to it; a client that would be refused is exit code 1."""
    relay.body = answer
    assert run("explain", "192.0.2.7") == Ran(
        code,
        f"192.0.2.7 (192.0.2.7/32) {headline}\n"
        "\tclient\tcounted as 192.0.2.7/32\nok\tjail\tnot jailed\n"
        "REFUSES\tquota of upgrades\tnone left for 5 s \\x1b\n",
        "",
    )
    assert relay.requests == [("GET", "/explain?address=192.0.2.7")]


def test_what_to_do(run: Runner, relay: FakeRelay) -> None:
    """It stands behind the verdict."""
    todo = "release it with: pyryrelay jail release 192.0.2.7/32"
    relay.body = explanation("jailed", "jailed") | {"advice": todo}
    assert run("explain", "192.0.2.7").out.splitlines()[1] == f"what to do: {todo}"
    relay.body = explanation("jailed", "jailed") | {"advice": None}
    assert not run("explain", "192.0.2.7").out.splitlines()[1].startswith("what")


def with_protocols(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer in which one protocol refuses by two rules, and another by none."""
    rules = [
        {"what": "quota of events", "state": "refuses", "advice": "raise --event-quota"},
        {"what": "deny list", "state": "ok", "advice": None},
        {"what": "open rooms\x1b", "state": "refuses", "advice": None},
    ]
    quiet = {"refuses": [], "rules": [{"what": "texts", "state": "ok", "advice": None}]}
    return answer | {
        "protocols": {"chat": {"refuses": ["quota of events", "open rooms"], "rules": rules}, "echo": quiet}
    }


def test_what_protocols_refuse(run: Runner, relay: FakeRelay) -> None:
    """It stands behind the verdict, which it does not change."""
    relay.body = with_protocols(explanation("admitted"))
    ran = run("explain", "192.0.2.7")
    assert (ran.code, ran.out.splitlines()[:5]) == (
        0,
        [
            "192.0.2.7 (192.0.2.7/32) would now be admitted",
            "chat would now refuse by this rule: quota of events",
            "what to do: raise --event-quota",
            "chat would now refuse by this rule: open rooms\\x1b",
            "\tclient\tcounted as 192.0.2.7/32",
        ],
    )


@pytest.mark.parametrize(("verdict", "code"), [("accepted", 0), ("refused", 1)])
def test_something_else_that_a_protocol_knows(run: Runner, relay: FakeRelay, verdict: str, code: int) -> None:
    """Such as a public key, which has rules of its protocol alone."""
    steps = [{"what": "chat: deny list", "state": "ok", "detail": "not on it"}]
    relay.body = {"name": "public key abc", "verdict": verdict, "steps": steps, "protocols": {}}
    assert run("explain", "abc") == Ran(
        code, f"public key abc would now be {verdict}\nok\tchat: deny list\tnot on it\n", ""
    )
    assert relay.requests == [("GET", "/explain?address=abc")]


def test_as_json(run: Runner, relay: FakeRelay) -> None:
    """With ``--json`` it is the relay's answer, with the same exit code."""
    relay.body = explanation("jailed", "jailed")
    ran = run("explain", "2001:db8::/64", "--json")
    assert (ran.code, json.loads(ran.out)) == (1, relay.body)
    assert relay.requests == [("GET", "/explain?address=2001%3Adb8%3A%3A%2F64")]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"verdict": "odd"},
        explanation("refused", "x", retry_after_s="y"),  # type: ignore[arg-type]
        explanation("admitted") | {"protocols": []},
        explanation("admitted") | {"protocols": {"chat": {"rules": [{"state": "refuses"}]}}},
    ],
)
def test_another_version(run: Runner, relay: FakeRelay, body: object) -> None:
    """An answer of another shape is one line."""
    relay.body = body
    assert run("explain", "192.0.2.7") == Ran(
        1, "", "pyryrelay: the answer does not explain a client: use the same version of pyryrelay as the relay\n"
    )
