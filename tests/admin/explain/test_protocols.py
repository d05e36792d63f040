"""What protocols add to explanations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pyryrelay.admin.explain.protocols import Rules, is_used, named, refusing, rules_of, with_rules, worst
from pyryrelay.protocol.explaining import Rule, State


def rule(what: str, state: State = "ok", used: float = 0.0) -> Rule:
    """Return a rule whose detail says how much was used."""
    return Rule(what, state, f"{used:g} used", f"raise {what}", {"left": 3}, used)


def test_rules_become_steps_and_figures() -> None:
    """Steps of the explanation stay first; rules have the name of their protocol, and advice only if they refuse."""
    before = {"verdict": "admitted", "steps": [{"what": "jail", "state": "ok", "detail": "not jailed"}]}
    found = with_rules(before, {"echo": [rule("texts"), rule("rooms", "refuses", 2)]})
    assert found == {
        "verdict": "admitted",
        "steps": [
            {"what": "jail", "state": "ok", "detail": "not jailed"},
            {"what": "echo: texts", "state": "ok", "detail": "0 used"},
            {"what": "echo: rooms", "state": "refuses", "detail": "2 used"},
        ],
        "protocols": {
            "echo": {
                "refuses": ["rooms"],
                "rules": [
                    {"what": "texts", "state": "ok", "advice": None, "left": 3},
                    {"what": "rooms", "state": "refuses", "advice": "raise rooms", "left": 3},
                ],
            }
        },
    }
    assert before["steps"] == [{"what": "jail", "state": "ok", "detail": "not jailed"}]


@pytest.mark.parametrize(
    ("states", "verdict"), [([], "accepted"), (["ok", "info"], "accepted"), (["ok", "refuses"], "refused")]
)
def test_the_verdict_on_a_name(states: Sequence[State], verdict: str) -> None:
    """It is refused if any rule refuses."""
    found = named("room #1", {"echo": [rule(f"rule {state}", state) for state in states]})
    assert (found["name"], found["verdict"], len(found["steps"])) == ("room #1", verdict, len(states))


def test_which_rules_refuse() -> None:
    """In words, for each protocol that has some."""
    rules: Rules = {
        "echo": [rule("a", "refuses"), rule("b", "refuses")],
        "chat": [rule("c")],
        "pub": [rule("d", "refuses")],
    }
    assert refusing(rules) == "echo would refuse: a, b; pub would refuse: d"
    assert refusing({"echo": [rule("a")]}) == refusing({}) == ""


def test_what_is_used() -> None:
    """A client of which nothing is counted is not known."""
    assert is_used({"echo": [rule("a"), rule("b", used=0.5)]})
    assert not is_used({"echo": [rule("a")], "chat": []})


def test_the_worst_of_several_processes() -> None:
    """A rule that refuses somewhere refuses; otherwise it stands as where most was used. One that others lack stays."""
    merged = worst(
        [
            {"echo": [rule("a", used=1), rule("b", "refuses", 1), rule("c", used=9)]},
            {"echo": [rule("a", used=2), rule("b", used=5), rule("c", used=3)], "chat": [rule("d")]},
            {},
        ]
    )
    assert merged == {
        "echo": [rule("a", used=2), rule("b", "refuses", 1), rule("c", used=9)],
        "chat": [rule("d")],
    }
    assert worst([]) == {}


def test_rules_from_another_process() -> None:
    """They are the same after they have been JSON."""
    rules = {"echo": [rule("a", "refuses", 2.5)]}
    sent: Any = json.loads(json.dumps({"echo": [[*rule("a", "refuses", 2.5)]]}))
    assert rules_of(sent) == rules
