"""Measures when Redis, the instances, the switch and the whole machine are late, in a process that does nothing else.

    python -m tests.chaos.lateness.watchdog ADDRESS:PORT...

Each tick it sleeps, reads how long processes have waited for a processor (``/proc/PID/schedstat``, which not every
kernel has), and asks each Redis, by loopback, so no fault of the network is in between. What Redis has worked meanwhile
is no lateness: it may be that the relay gives it too much to do. Nor is what this process has waited itself. If it
wakes up late although it has not waited, nothing ran on the machine.

Each line of the standard input is a JSON object: the numbers of processes, by place. Each line of the output is a JSON
array: place, since, until, in seconds since 1970. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.lateness.late import LEAST_S, MACHINE, REDIS, Late, Meter

__all__ = ["TICK_S", "Asker", "Schedule", "Watchdog", "main", "schedule_of", "starved_s"]

TICK_S: Final = 0.05
CONNECT_S: Final = 0.5
_PING: Final = b"PING\r\n"
_PONG: Final = b"+PONG\r\n"


class Schedule(NamedTuple):
    """For how long a process has run, and has waited for a processor, since its start."""

    worked_s: float
    waited_s: float


def schedule_of(pid: int | str) -> Schedule | None:
    """Return what is told of the first thread of a process; None if there is none, or nothing is told."""
    try:
        words = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    except OSError:
        return None
    return Schedule(int(words[0]) / 1e9, int(words[1]) / 1e9)


def waited_s() -> float:
    """Return how long this process has waited for a processor; 0 if nothing is told of that."""
    schedule = schedule_of("self")
    return 0.0 if schedule is None else schedule.waited_s


def starved_s(took_s: float, known_s: float) -> float:
    """Return for how long nobody has worked on something, if a part of the time that it took is known otherwise."""
    return max(0.0, took_s - max(0.0, known_s))


class Asker:
    """Asks one Redis whether it is there, again and again, on one connection.

    ``known_s`` is a sum that grows: how long Redis has worked, and this process has waited for a processor.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._asked: tuple[float, float] | None = None

    def fileno(self) -> int:
        """Return the socket on which an answer is due; -1 if none is."""
        return -1 if self._socket is None or self._asked is None else self._socket.fileno()

    def ask(self, now: float, known_s: float) -> None:
        """Ask, unless an answer is due, or there is no Redis."""
        if self._socket is None:
            with contextlib.suppress(OSError):
                self._socket = socket.create_connection(self._address, CONNECT_S)
        if self._socket is not None and self._asked is None:
            self._asked = now, known_s
            with contextlib.suppress(OSError):  # then its end is read
                self._socket.sendall(_PING)

    def answer(self, now: float, known_s: float) -> list[Late]:
        """Take the answer; return whether it was late."""
        assert self._socket is not None
        assert self._asked is not None
        asked_at, known_before_s = self._asked
        self._asked = None
        with contextlib.suppress(OSError):
            if self._socket.recv(64) == _PONG:
                late_s = starved_s(now - asked_at, known_s - known_before_s)
                return [Late(REDIS, now - late_s, now)] if late_s >= LEAST_S else []
        # It was ended: one that starts is not late.
        self.close()
        return []

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._asked = None


class Watchdog:
    """See the module's docstring."""

    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        self._askers = [Asker(address) for address in addresses]
        self._pids: dict[str, list[int]] = {}
        self._meters: dict[int, Meter] = {}
        self._waited_s = waited_s()

    def watch(self, pids: dict[str, list[int]]) -> None:
        """Watch these processes from now on."""
        self._pids = pids
        known = {pid: place for place, some in pids.items() for pid in some}
        self._meters = {pid: self._meters.get(pid) or Meter(place) for pid, place in known.items()}

    def tick(self, now: float, overslept_s: float) -> list[Late]:
        """Return what was late until now, if this process has slept too long by so much."""
        found: list[Late] = []
        before_s, self._waited_s = self._waited_s, waited_s()
        late_s = starved_s(overslept_s, self._waited_s - before_s)
        if late_s >= LEAST_S:
            found.append(Late(MACHINE, now - late_s, now))
        for pid, meter in self._meters.items():
            if (schedule := schedule_of(pid)) is not None:
                found += meter.next(now, schedule.waited_s)
        for asker in self._askers:
            asker.ask(now, self._known_s())
        return found

    def _known_s(self) -> float:
        schedules = map(schedule_of, self._pids.get(REDIS, ()))
        return sum(schedule.worked_s for schedule in schedules if schedule is not None) + waited_s()

    def sleep(self, until: float) -> Iterator[Late]:
        """Yield what is late until a time. Raises `EOFError` once the input has ended."""
        while (left_s := until - time.monotonic()) > 0:
            due = [asker for asker in self._askers if asker.fileno() >= 0]
            for ready in select.select([sys.stdin, *due], [], [], left_s)[0]:
                if isinstance(ready, Asker):
                    yield from ready.answer(time.monotonic(), self._known_s())
                    continue
                data = os.read(0, 1 << 16)
                if not data:
                    raise EOFError
                self.watch(json.loads(data.splitlines()[-1]))


def _tell(late: Late) -> None:
    ahead_s = time.time() - time.monotonic()
    os.write(1, json.dumps([late.place, late.since + ahead_s, late.until + ahead_s]).encode() + b"\n")


def main() -> None:
    """Watch until the standard input ends."""
    watchdog = Watchdog([(host, int(port)) for host, _, port in (word.rpartition(":") for word in sys.argv[1:])])
    with contextlib.suppress(EOFError):
        while True:
            due = time.monotonic() + TICK_S
            for late in watchdog.sleep(due):
                _tell(late)
            now = time.monotonic()
            for late in watchdog.tick(now, now - due):
                _tell(late)


if __name__ == "__main__":
    main()
