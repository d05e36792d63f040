"""`twistd` with a relay whose fixed times are replaced: short ones to wait for, or long ones that never pass.

    python -m tests.end_to_end.changed_times '{"head_timeout_s": 2}' -n pyryrelay [options]

Their names are those of `pyryrelay.service.Times`.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from twisted.scripts.twistd import run

from pyryrelay import service

if __name__ == "__main__":
    service.Times = partial(service.Times, **json.loads(sys.argv.pop(1)))  # type: ignore[misc,assignment]
    run()
