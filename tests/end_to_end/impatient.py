"""`twistd` with a relay whose fixed times are short, for tests that wait for them.

python -m tests.end_to_end.impatient -n pyryrelay [options]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from twisted.scripts.twistd import run

from pyryrelay import service

PROGRAM: Sequence[str] = (sys.executable, "-m", __name__ if __name__ != "__main__" else "tests.end_to_end.impatient")
"""What runs it."""

if __name__ == "__main__":
    service.Times = partial(service.Times, head_timeout_s=2.0, ping_interval_s=2.0)  # type: ignore[misc,assignment]
    run()
