"""Two workers without a supervisor: one accepts every connection, and keeps or hands over what comes.

Usage: ``two_workers.py PORT``. Quotas and caps are off.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _rig import GENEROUS


def main() -> None:
    """Run until a signal arrives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    port = parser.parse_args().port
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    child = os.fork()
    # After the fork: two processes must not share the descriptor of one reactor.
    from twisted.internet import reactor
    from twisted.python import log

    from pyryrelay.runtime.process import tune_gc, tune_malloc
    from pyryrelay.service import RelayService, Times
    from pyryrelay.start.twistd import Options
    from pyryrelay.workers.place import MeshEnds, WorkerPlace
    from pyryrelay.workers.rpc import Rpc

    index = 0 if child else 1
    listen = f"tcp:{port}:interface=127.0.0.1" if child else "unix:other.sock"
    options = Options()
    options.parseOptions(["--listen", listen, "--admin-listen", "", "--jail-file", "", *GENEROUS])
    ends = MeshEnds(pairs[index][0], [sending for _, sending in pairs])
    place = WorkerPlace(index, 2, index + 1, Rpc(), mesh=ends)
    service = RelayService(options.settings, reactor, time.monotonic, Times(), warnings=(), place=place)
    log.startLogging(sys.stderr, setStdout=False)
    service.startService()
    service.serve()
    tune_gc()
    tune_malloc()
    reactor.run()
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
