"""How long tasks of the machine have waited for processors and disks, by ``/proc/pressure``. Times are seconds."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Pressure"]

FOLDER = Path("/proc/pressure")


@dataclass(frozen=True)
class Pressure:
    """Sums at a time, by resource: how long some task has waited for it. There are none where the kernel has none."""

    at: float
    waited_s: dict[str, float]

    @classmethod
    def now(cls, folder: Path = FOLDER) -> Pressure:
        """Read them."""
        found = {}
        for name in ("cpu", "io"):
            try:
                match = re.search(r"some .*total=(\d+)", (folder / name).read_text(encoding="ascii"))
            except OSError:
                continue
            if match is not None:
                found[name] = int(match[1]) / 1e6
        return cls(time.monotonic(), found)

    def since(self, before: Pressure) -> str:
        """Return for people in which part of the time since then something had to wait."""
        wall_s = max(self.at - before.at, 1e-6)
        shares = {
            name: (waited_s - before.waited_s[name]) / wall_s
            for name, waited_s in self.waited_s.items()
            if name in before.waited_s
        }
        return ", ".join(f"something waited for {name} in {share:.0%} of the time" for name, share in shares.items())
