"""Explain what the gate decides about one client: ``GET /explain``. It spends nothing and changes nothing.

Times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from pyryrelay.admin.explain.advice import advice
from pyryrelay.admin.explain.steps import TLS_REASONS, Cluster, Step, steps
from pyryrelay.guard.address.clientip import ClientAddress
from pyryrelay.guard.address.keys import AddressKey, network_of
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.jail import Sentence
from pyryrelay.guard.rate.buckets import Level
from pyryrelay.guard.refusal import Reason, Refusal
from pyryrelay.guard.standing import Standing
from pyryrelay.protocol.explaining import level_figures

__all__ = ["Explanation", "explanation"]

Verdict = Literal["admitted", "refused", "jailed", "denied", "exempt"]

_VERDICTS: Final[Mapping[Reason, Verdict]] = {Reason.JAILED: "jailed", Reason.DENIED: "denied"}


class Explanation(NamedTuple):
    """The verdict on an upgrade of a client at this moment, what to do about it, and the steps that lead to it.

    ``quotas``, ``connections`` and ``sentence`` have the figures of these steps, and ``cluster`` what is shared.
    """

    address: str
    network: str
    verdict: Verdict
    reason: str | None
    retry_after_s: float | None
    advice: str | None
    steps: Sequence[Step]
    quotas: Sequence[Mapping[str, object]]
    connections: Mapping[str, object]
    sentence: Mapping[str, object] | None
    cluster: Cluster | None

    def as_json(self) -> dict[str, Any]:
        """Return it as the body of an answer."""
        return self._asdict() | {"steps": [step._asdict() for step in self.steps]}


def explanation(
    gate: Gate, client: ClientAddress, routes: Sequence[str], now: float, cluster: Cluster | None = None
) -> Explanation:
    """Explain what the gate would decide now about an upgrade of ``client`` on one of these routes."""
    standing = gate.standing(client, routes, now)
    refusal = _refusal(standing)
    if refusal is not None:
        verdict = _VERDICTS.get(refusal.reason, "refused")
    else:
        verdict = "admitted" if standing.allowed is None else "exempt"
    held = standing.held
    return Explanation(
        str(client),
        str(network_of(client.key)),
        verdict,
        None if refusal is None else refusal.reason.value,
        None if refusal is None else refusal.retry_after_s,
        None if refusal is None else advice(refusal.reason, standing.sentence, is_shared=cluster is not None),
        [*steps(gate, client, standing, now, cluster)],
        [*_quotas(standing)],
        {
            "here": held.connections,
            "elsewhere": held.elsewhere,
            "most": gate.config.limits.max_connections_per_address,
        },
        None if standing.sentence is None else _sentence(standing.sentence, now),
        cluster,
    )


def _refusal(standing: Standing) -> Refusal | None:
    """Return the first refusal that the client would meet, if it meets one on every route."""
    if standing.arrival is not None:
        return standing.arrival
    if standing.allowed is None and not standing.is_proxy and not standing.is_loopback:
        for name, level in [*standing.prefix_levels.items(), *standing.levels.items()]:
            if name in TLS_REASONS and level is not None and level.wait_s:
                return Refusal(429, TLS_REASONS[name], level.wait_s, level.quota)
    refusals = list(standing.refusals.values())
    return refusals[0] if refusals and all(refusals) else None


def _quotas(standing: Standing) -> Iterator[Mapping[str, object]]:
    levels: Mapping[str, Level[AddressKey] | None] = {**standing.levels, **standing.prefix_levels}
    for name, level in levels.items():
        if level is not None:
            option = f"--{name.replace('_', '-')}"
            yield {**level_figures(level, option), "network": str(network_of(level.key))}


def _sentence(sentence: Sentence, now: float) -> Mapping[str, object]:
    return {
        "network": str(sentence.network),
        "left_s": round(sentence.until_s - now, 3),
        "times": sentence.times,
        "origin": sentence.origin,
    }
