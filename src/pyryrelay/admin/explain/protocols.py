"""What protocols add to an explanation: rules of theirs, about a client or about something else that they know.

In an explanation, each rule is a step, and its figures are below ``protocols``, by the name of the protocol. Several
processes have the same rules, of which some are one rule for all of them; `worst` says how that one stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from pyryrelay.admin.explain.steps import Step
from pyryrelay.guard.address.clientip import ClientAddress
from pyryrelay.protocol.explaining import Named, Rule

__all__ = ["Explainer", "Found", "Rules", "is_used", "named", "refusing", "rules_of", "with_rules", "worst"]

Rules: TypeAlias = Mapping[str, Sequence[Rule]]
"""The rules of each protocol, by the name of the protocol."""


class Explainer(Protocol):
    """A protocol in one running relay: a `pyryrelay.protocol.RunningProtocol`."""

    def explain_client(self, client: ClientAddress) -> Sequence[Rule]:
        """Return the rules that hold for a client."""

    def explain_name(self, name: str) -> Named | None:
        """Explain something else that operators name."""


class Found(NamedTuple):
    """What one process knows about what an operator asks for: its answer, and the rules of protocols in it.

    ``name`` is what the protocol calls it, None for a client. ``is_known`` tells whether the process has seen the
    client lately, or has counted anything for what has that name.
    """

    explanation: Mapping[str, object]
    rules: Rules
    is_known: bool
    name: str | None = None


def is_used(rules: Rules) -> bool:
    """Return whether anything was used of what the rules allow."""
    return any(rule.used > 0 for some in rules.values() for rule in some)


def rules_of(answer: Mapping[str, Sequence[Sequence[Any]]]) -> dict[str, list[Rule]]:
    """Return rules that came as JSON from another process."""
    return {name: [Rule(*fields) for fields in rules] for name, rules in answer.items()}


def with_rules(explanation: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Add the rules of protocols to an explanation."""
    steps = [*explanation["steps"], *(step._asdict() for name in rules for step in _steps(name, rules[name]))]
    return {**explanation, "steps": steps, "protocols": {name: _figures(rules[name]) for name in rules}}


def named(name: str, rules: Rules) -> dict[str, Any]:
    """Return the explanation of something that is no client."""
    verdict = "refused" if any(map(_refusing, rules.values())) else "accepted"
    return with_rules({"name": name, "verdict": verdict, "steps": []}, rules)


def refusing(rules: Rules) -> str:
    """Return which protocols refuse something by which rules, in words; "" if none does."""
    refused = {name: _refusing(some) for name, some in rules.items()}
    return "; ".join(f"{name} would refuse: {', '.join(whats)}" for name, whats in refused.items() if whats)


def worst(answers: Iterable[Rules]) -> Rules:
    """Return each rule as it stands where it refuses or, if it refuses nowhere, where most is used of it."""
    merged: dict[str, dict[str, Rule]] = {}
    for answer in answers:
        for name, rules in answer.items():
            known = merged.setdefault(name, {})
            for rule in rules:
                known[rule.what] = max(known.get(rule.what, rule), rule, key=_badness)
    return {name: [*rules.values()] for name, rules in merged.items()}


def _badness(rule: Rule) -> tuple[bool, float]:
    return rule.state == "refuses", rule.used


def _refusing(rules: Iterable[Rule]) -> list[str]:
    return [rule.what for rule in rules if rule.state == "refuses"]


def _steps(protocol: str, rules: Iterable[Rule]) -> list[Step]:
    return [Step(f"{protocol}: {rule.what}", rule.state, rule.detail) for rule in rules]


def _figures(rules: Sequence[Rule]) -> dict[str, Any]:
    return {"refuses": _refusing(rules), "rules": [_as_json(rule) for rule in rules]}


def _as_json(rule: Rule) -> dict[str, Any]:
    advice = rule.advice if rule.state == "refuses" and rule.advice else None
    return {"what": rule.what, "state": rule.state, "advice": advice, **rule.figures}
