"""Instances as operators see them: health all the time, and figures of the cluster in the end. Times are seconds."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
from typing import Final

from tests.chaos.stage import Stage
from tests.end_to_end.harness import Relay

__all__ = ["figures_of", "is_settled", "missed", "watch"]

LOOK_S: Final = 0.5
MAX_LEASE_AGE_S: Final = 4.0


async def watch(stage: Stage, name: str) -> None:
    """Check all the time that an instance says that it is well and ready, unless something was done to it."""
    while True:
        await asyncio.sleep(LOOK_S)
        if not stage.is_up(name):
            continue
        relay = stage.relay(name)
        for path in ("/healthz", "/readyz"):
            problem = await asyncio.to_thread(_problem, relay, path)
            # It may have been stopped or ended while it was asked.
            if problem and stage.is_up(name) and stage.relay(name) is relay:
                stage.problem("health", f"{path} of {name}: {problem}")


def _problem(relay: Relay, path: str) -> str:
    try:
        status, text = relay.admin_get(path, 20.0)
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    return "" if status == 200 else f"{status} {text}"


def figures_of(relay: Relay) -> dict[str, float]:
    """Return the figures of the cluster at an instance; of several workers the worst."""
    wanted = ("pyryrelay_cluster_up", "pyryrelay_cluster_lease_age_seconds", "pyryrelay_cluster_keys_unconfirmed")
    metrics = relay.metrics()
    found: dict[str, float] = {}
    for name in wanted:
        values = [value for label, value in metrics.items() if label.partition("{")[0] == name]
        if values:
            found[name.removeprefix("pyryrelay_cluster_")] = min(values) if name.endswith("_up") else max(values)
    return found


def is_settled(relay: Relay) -> bool:
    """Tell whether an instance uses Redis, and everything there is in order. It was not started again for that."""
    figures = figures_of(relay)
    return (
        json.loads(relay.admin_get("/readyz")[1])["status"] == "ready"
        and figures.get("up") == 1
        and figures.get("lease_age_seconds", math.inf) < MAX_LEASE_AGE_S
        and figures.get("keys_unconfirmed") == 0
    )


def missed(relay: Relay) -> float:
    """Return how many times an instance has missed events of others, because they were deleted before it read them."""
    return sum(value for label, value in relay.metrics().items() if "_missed" in label)
