"""The relay, and in the same reactor a clock that notes how long it was held up.

Usage: ``_probe.py PORT OPTION...``, the options being those of ``twistd pyryrelay``; it is that service without twistd.
A timer runs every millisecond. Whoever connects to ``PORT`` gets two numbers and a newline, in milliseconds of
the reactor's thread and since somebody last asked: the most CPU time, and the longest time, between two ticks of it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Protocol, ServerFactory

from pyryrelay.twistd import Options, makeService

TICK_S = 0.001


class Clock:
    """Notes the longest time between two of its ticks."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._longest_cpu_s = self._longest_s = 0.0
        self._cpu_s, self._now_s = time.thread_time(), time.perf_counter()

    def tick(self) -> None:
        """One tick; the next one follows."""
        cpu_s, now_s = time.thread_time(), time.perf_counter()
        self._longest_cpu_s = max(self._longest_cpu_s, cpu_s - self._cpu_s)
        self._longest_s = max(self._longest_s, now_s - self._now_s - TICK_S)
        self._cpu_s, self._now_s = cpu_s, now_s
        self._reactor.callLater(TICK_S, self.tick)

    def take(self) -> bytes:
        """The answer; begins anew."""
        answer = f"{self._longest_cpu_s * 1000:.3f} {self._longest_s * 1000:.3f}\n"
        self._longest_cpu_s = self._longest_s = 0.0
        return answer.encode()


class Teller(Protocol):
    """Tells who connects."""

    transport: Any
    clock: Clock

    def connectionMade(self) -> None:
        """Answer and close."""
        self.transport.write(self.clock.take())
        self.transport.loseConnection()


def main(loop: Any = reactor) -> None:
    """Serve until told to end."""
    options = Options()
    options.parseOptions(sys.argv[2:])
    service: Any = makeService(options, loop)
    Teller.clock = Clock(loop)
    factory: Any = ServerFactory.forProtocol(Teller)
    loop.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    service.privilegedStartService()
    service.startService()
    loop.addSystemEventTrigger("before", "shutdown", service.stopService)
    loop.callWhenRunning(Teller.clock.tick)
    loop.run()


if __name__ == "__main__":
    main()
