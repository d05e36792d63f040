"""The option that divides the relay among several processes. PURE."""

# `option` makes a dataclass field, which a linter cannot know.

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from pyryrelay.config.groups import LISTENING
from pyryrelay.config.sources import option
from pyryrelay.config.types import or_auto, whole_number

__all__ = ["MAX_WORKERS", "WorkerOptions", "usable_cpus"]

MAX_WORKERS: Final = 128


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How many processes serve connections."""

    workers: int | None = option(
        1,
        or_auto(whole_number(1, MAX_WORKERS)),
        LISTENING,
        help="How many processes serve connections; `auto` is one for each CPU that the relay may use. With more than "
        "one, another process supervises them: it opens the ports, starts a worker again that has died, and has the "
        "log and the admin listener of all. The connections of one address are all counted by the same worker. Behind "
        "a proxy, give each worker an endpoint of its own with `{worker}`.",
        restart=True,
        example="4",
        why="One process serves tens of thousands of peers. More of them need a CPU each, and memory.",
    )


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use, at most `MAX_WORKERS`."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    return min(os.cpu_count() or 1, MAX_WORKERS)
