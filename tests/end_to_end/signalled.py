"""Run the relay under twistd repeatedly, and send it a signal at another moment each time.

    python -m tests.end_to_end.signalled SIGNAL PHASE RUNS DIRECTORY REACTOR [options of the relay]

A moment is a call of any function in a phase; the moments of the runs are spread evenly over it. A SIGHUP must not end
the relay, so it is followed by a SIGTERM once the relay has reloaded. Prints a line of JSON for each run. Each run is a
fork of this process, which has imported what it can without choosing a reactor.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.scripts import twistd

from pyryrelay.listen.sockets import listening_socket
from pyryrelay.reload import _log_outcome
from pyryrelay.start.twistd import Options, TwistdService


def name_of(function: Callable[..., object]) -> str:
    """Return the name under which a profiler sees a function."""
    return f"{function.__name__} of {function.__module__}"


LISTENING = name_of(listening_socket)
RUNNING = name_of(TwistdService._running)
RELOADED = name_of(_log_outcome)
PHASES = {
    "options": (name_of(Options.read), LISTENING),
    "start": (LISTENING, RUNNING),
    "end": (name_of(TwistdService._end), ""),
}
"""The calls with which each phase begins and ends."""
DEADLINE_S = 60


class Moments:
    """A profiler that sends a signal at one moment of a phase, and SIGTERM once ``finished`` has returned."""

    def __init__(self, phase: tuple[str, str], moment: int, number: int, finished: str) -> None:
        self._begin, self._end = phase
        self._moment = moment
        self._number = number
        self._finished = finished
        self._is_counting = False
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count a call, and send the signal if it is the chosen one; see `sys.setprofile`."""
        if event not in ("call", "return"):
            return
        name = f"{frame.f_code.co_name} of {frame.f_globals.get('__name__')}"
        if event == "return":
            if name == self._finished:
                os.kill(os.getpid(), signal.SIGTERM)
        elif name == self._begin:
            self._is_counting = True
        elif name == self._end:
            self._is_counting = False
        elif self._is_counting:
            if self.count == self._moment:
                os.kill(os.getpid(), self._number)
            self.count += 1


def run(moments: Moments, directory: Path, arguments: Sequence[str]) -> int:
    """Run twistd in a fork, and return its exit code, or minus the signal. The file gets the number of moments."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.argv = ["twistd", *arguments]
    os.chdir(directory)
    signal.alarm(DEADLINE_S)
    sys.setprofile(moments)
    try:
        twistd.run()
    finally:
        (directory / "count").write_text(str(moments.count), encoding="ascii")
    sys.exit(0)


def main(number: signal.Signals, phase: str, runs: int, directory: Path, reactor: str, options: Sequence[str]) -> None:
    """Run the relay as the module's docstring says."""
    log, pid_file = directory / "log", directory / "pid"
    arguments = ["-n", "--pidfile", str(pid_file), "--logfile", str(log), "--reactor", reactor, "pyryrelay", *options]
    run(Moments(PHASES[phase], -1, number, RUNNING), directory, arguments)
    count = int((directory / "count").read_text(encoding="ascii"))
    finished = RELOADED if number == signal.SIGHUP and phase != "end" else RUNNING
    for index in range(runs):
        log.unlink(missing_ok=True)
        moment = index * count // runs
        code = run(Moments(PHASES[phase], moment, number, finished), directory, arguments)
        outcome = {"moment": moment, "of": count, "code": code, "pid_file": pid_file.exists(), "log": log.read_text()}
        sys.stdout.write(f"{json.dumps(outcome)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5], sys.argv[6:])
