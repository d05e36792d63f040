"""`twistd` whose journal is at another address, and whose standard output is said to lead there.

python -m tests.end_to_end.with_journal SOCKET -n pyryrelay [options]
"""

from __future__ import annotations

import os
import sys

from twisted.scripts.twistd import run

from pyryrelay.observe import log_observer
from pyryrelay.observe.log_formats.journal import JournalObserver

if __name__ == "__main__":
    address = sys.argv.pop(1)
    log_observer.JournalObserver = lambda fallback: JournalObserver(fallback, address)  # type: ignore[assignment,attr-defined,misc]
    stream = os.fstat(1)
    os.environ["JOURNAL_STREAM"] = f"{stream.st_dev}:{stream.st_ino}"
    run()
