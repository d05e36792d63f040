"""The words about a cluster in an explanation; the other steps are tested with their verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from pyryrelay.admin.explain.steps import steps
from pyryrelay.guard import Gate, client_address

SERVER = {"name": "redis://10.0.0.9:6379", "problem": "", "away_s": 0.0}
AWAY = SERVER | {"problem": "connection refused", "away_s": 11.6}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "quotas, the jail and the cap per address are shared with 2 other members of cluster relay"),
        (
            {"members": 2},
            "quotas, the jail and the cap per address are shared with 1 other member of cluster relay",
        ),
        ({"members": 1}, "the only member of cluster relay now: nobody else shares its limits"),
        (
            {"servers": [SERVER, AWAY]},
            "server redis://10.0.0.9:6379 of cluster relay cannot be used for 12 s now: connection refused. Limits "
            "hold for this process alone; what it heard before still counts",
        ),
        (
            {"is_secret_shared": False},
            "another member of cluster relay has another secret, so they share nothing (--cluster-secret-file)",
        ),
    ],
)
def test_what_is_shared(changed: dict[str, Any], said: str) -> None:
    """With how many others; and why with nobody, if something is wrong."""
    cluster = {"name": "relay", "members": 3, "is_secret_shared": True, "servers": [SERVER]} | changed
    gate, client = Gate(), client_address("192.0.2.1")
    assert client is not None
    found = [*steps(gate, client, gate.standing(client, (), 0.0), 0.0, cluster)]
    assert [(step.what, step.state, step.detail) for step in found if step.what == "cluster"] == [
        ("cluster", "info", said)
    ]


def test_a_relay_in_no_cluster() -> None:
    """Nothing is said about one."""
    gate, client = Gate(), client_address("192.0.2.1")
    assert client is not None
    assert "cluster" not in [step.what for step in steps(gate, client, gate.standing(client, (), 0.0), 0.0)]
