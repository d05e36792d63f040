"""Run the relay with a timer in the same reactor that measures stalls.

Usage: ``_probe.py PORT OPTION...``, with the options of ``twistd pyryrelay``. It runs the same service without twistd.
A timer runs every millisecond. A client that connects to ``PORT`` gets two numbers and a newline: the most CPU time of
the reactor's thread, and the longest time, between two ticks since the last such connection, in milliseconds.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Protocol, ServerFactory

from pyryrelay.start.twistd import Options, makeService

TICK_S = 0.001


class Clock:
    """Measures the longest time between two of its ticks."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._longest_cpu_s = self._longest_s = 0.0
        self._cpu_s, self._now_s = time.thread_time(), time.perf_counter()

    def tick(self) -> None:
        """Record a tick, and schedule the next one."""
        cpu_s, now_s = time.thread_time(), time.perf_counter()
        self._longest_cpu_s = max(self._longest_cpu_s, cpu_s - self._cpu_s)
        self._longest_s = max(self._longest_s, now_s - self._now_s - TICK_S)
        self._cpu_s, self._now_s = cpu_s, now_s
        self._reactor.callLater(TICK_S, self.tick)

    def take(self) -> bytes:
        """Return the two numbers, and start again."""
        answer = f"{self._longest_cpu_s * 1000:.3f} {self._longest_s * 1000:.3f}\n"
        self._longest_cpu_s = self._longest_s = 0.0
        return answer.encode()


class Reporter(Protocol):
    """Sends the two numbers to each client."""

    transport: Any
    clock: Clock

    def connectionMade(self) -> None:
        """Send the numbers, and close."""
        self.transport.write(self.clock.take())
        self.transport.loseConnection()


def main(loop: Any = reactor) -> None:
    """Run until a signal arrives."""
    options = Options()
    options.parseOptions(sys.argv[2:])
    service: Any = makeService(options, loop)
    Reporter.clock = Clock(loop)
    factory: Any = ServerFactory.forProtocol(Reporter)
    loop.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    service.privilegedStartService()
    service.startService()
    loop.addSystemEventTrigger("before", "shutdown", service.stopService)
    loop.callWhenRunning(Reporter.clock.tick)
    loop.run()


if __name__ == "__main__":
    main()
