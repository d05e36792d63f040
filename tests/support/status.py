"""An answer of ``GET /status``."""

from __future__ import annotations

from typing import Any

NOW = 1_800_000_000.0


def status(**changes: Any) -> dict[str, Any]:
    """Return figures of a relay, with some of them changed."""
    figures: dict[str, Any] = {
        "version": "26.11.0",
        "pid": 4242,
        "state": "running",
        "uptime_s": 90_000.0,
        "connections": {"server": 12, "client": 80},
        "handshakes": 3,
        "admitted": {"server": 100, "client": 900},
        "refused": {"rate_limit": 50, "jailed": 7_000, "denied": 0},
        "messages": {"in": 10_000, "out": 20_000},
        "bytes": {"in": 5_242_880, "out": 10_485_760},
        "tracked": 1_234,
        "jailed": 5,
        "memory_bytes": 90_000_000,
        "cpu_s": 75.0,
        "reactor_lag_s": 0.0026,
        "decision_s": None,
        "connections_per_address": [[1, 90], [None, 0]],
        "certificates": [{"names": ["relay.example"], "expires_at": NOW + 86_400 * 30, "source": "file a.pem"}],
        "limits": {"upgrade-quota": "10/minute burst 20", "deny": ""},
        "protocols": {"echo": {"echoes_total": 1_500_000, "kept_bytes": 2_048, "rooms": 0, "mood": "fine"}},
    }
    return figures | changes


def workers() -> list[dict[str, Any]]:
    """Return the rows of two workers, one of which is down."""
    running = {
        "index": 0,
        "pid": 4243,
        "boot": 1,
        "state": "running",
        "uptime_s": 90_000.0,
        "connections": 60,
        "memory_bytes": 40_000_000,
        "cpu_s": 60.0,
        "restarts": 0,
    }
    nothing = {"pid": 0, "uptime_s": 0.0, "connections": 0, "memory_bytes": 0, "cpu_s": 0.0}
    return [running, running | nothing | {"index": 1, "boot": 7, "state": "down", "restarts": 3}]
