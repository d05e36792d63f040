"""`twistd` with a relay whose fixed times are others: short ones to wait for, or long ones that never pass.

    python -m tests.end_to_end.impatient '{"head_timeout_s": 2}' -n pyryrelay [options]

`pyryrelay.service.Times` has their names.
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
