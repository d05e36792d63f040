"""What the relay provides to a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyryrelay.protocol.services import Services


def test_a_relay_is_one_process_alone_by_default() -> None:
    """Without workers and a cluster, a protocol is worker 0 of 1, and nobody need hear of a key that it gives up."""
    unused: Any = None
    services = Services(
        now=lambda: 0.0,
        call_later=unused,
        in_thread=unused,
        log=unused,
        refused=dict,
        reload_failures=lambda: 0,
        start_child=unused,
        start_shared=unused,
        strike=unused,
        is_exempt=unused,
        agent=unused,
        base=Path(),
    )
    assert (services.worker_index, services.worker_count) == (0, 1)
    assert (services.broadcast, services.share_quotas) == (None, None)
    services.vacated("any key")
