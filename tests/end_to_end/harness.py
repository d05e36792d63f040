"""A real `twistd pyryrelay` in a process of its own: started, observed, stopped, and its log checked.

Invariants: a port is reserved from before a process starts until it has ended, so that no other test run can take it;
tests wait for conditions only, each with a deadline; only processes that were started here are ended, by their pid. A
relay that stops must exit with 0, and its log must hold no traceback. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tests.support.ports import free_port

from pyryrelay.workers.sockets.seeds import VARIABLE as SEED

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
REACTOR = os.environ.get("TEST_REACTOR", "epoll")
LOCALHOST = "127.0.0.1"
DEADLINE_S = 60.0
"""Long enough that a busy machine fails no test; a quick test does not wait for it."""
SCENARIO_S = 300.0
NEVER_S = 3600.0
"""Longer than any test may take, for times of the relay that must not pass meanwhile."""
QUOTAS = ("upgrade", "prefix", "http", "tls", "tls-prefix", "frame", "byte", "ping")
SLOW = ("--upgrade-quota", "20/day burst 20")
"""The default burst, of which no token comes back during a test, however slow the machine is."""
GENEROUS = (
    *(word for quota in QUOTAS for word in (f"--{quota}-quota", "off")),
    *("--max-connections-per-address", "2000", "--max-connections-per-prefix", "off"),
    *("--max-binaries-per-address", "off", "--jail-after", "off"),
)
"""Quotas for relays that are shared by tests about other things."""

_FAULTS = ("Traceback", "Unhandled")
_SAMPLE = re.compile(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


def until(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Poll until ``condition`` returns something true, and return that. Fail with ``what`` at the deadline."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)
    return value


async def eventually(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Do what `until` does in a coroutine, while other peers go on."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(0.02)
    return value


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a plain test of a coroutine function.

    The event loop gets a thread of its own: under ``--reactor=asyncio`` the one of the test is running already.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        failures: list[BaseException] = []

        async def limited() -> None:
            async with asyncio.timeout(SCENARIO_S) as limit:
                await test(*args, **kwargs)
            # Code that waits for what it has cancelled itself may take this for the end of that.
            assert not limit.expired(), f"not within {SCENARIO_S:g} s"

        def scenario() -> None:
            try:
                asyncio.run(limited())
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=scenario)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    return run


def reserve_port(host: str = LOCALHOST, port: int = 0) -> socket.socket:
    """Return a bound socket that does not listen: its port can be taken only with SO_REUSEADDR.

    Without ``port`` it is one that nobody else has, and none that the kernel gives to clients: one of those may have it
    when the socket is closed before a program listens there.
    """
    while True:
        held = socket.socket()
        try:
            if port:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((host, port or free_port()))
        except OSError:
            held.close()
            if port:
                raise
        else:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return held


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: the plugin on its path, and none of the relay's variables but two.

    One accepts what the preflight may find about the machine of the tests, and one fixes the worker of an address.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYRYRELAY_")}
    path = [str(ROOT), str(ROOT / "src"), *filter(None, [own.get("PYTHONPATH")])]
    accepted = {"PYRYRELAY_ACCEPT_FINDING": "clock root capabilities plain-listener", SEED: "0"}
    return own | accepted | {"PYTHONPATH": os.pathsep.join(path)} | dict(extra or {})


def twistd() -> str:
    """Return the `twistd` of the interpreter that runs the tests."""
    return str(Path(sys.executable).parent / "twistd")


def run(*command: str | Path, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of this tree until it ends by itself, and return its result, whatever it is."""
    return subprocess.run(
        command,
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def run_twistd(directory: Path, *arguments: str, reactor: str = REACTOR) -> subprocess.CompletedProcess[str]:
    """Run the relay until it ends by itself."""
    options = ("--pidfile", directory / "twistd.pid", "--reactor", reactor)
    return run(twistd(), "-n", *options, "pyryrelay", *arguments, directory=directory)


def http_get(
    port: int, path: str, *, source: str = "", host: str = LOCALHOST, deadline_s: float = DEADLINE_S
) -> tuple[int, str]:
    """Return status and body of a plain request, from the address ``source`` if there is one."""
    connection = http.client.HTTPConnection(host, port, deadline_s, (source, 0))
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def answers(port: int, path: str = "/healthz", *, host: str = LOCALHOST, deadline_s: float = DEADLINE_S) -> bool:
    """Tell whether a request there is answered with 200."""
    try:
        return http_get(port, path, host=host, deadline_s=deadline_s)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def assert_clean(log: str) -> None:
    """Check that the log holds no fault of the relay's own."""
    for word in _FAULTS:
        assert word not in log, f"{word!r} in the log:\n{log[-8000:]}"


@dataclass(frozen=True)
class Launch:
    """How a relay is started, beyond its options.

    ``listen`` are endpoints in which ``{port}`` and ``{directory}`` are filled in. ``prefix`` is a command that ends by
    executing its arguments. Descriptors in ``pass_fds`` are inherited. ``times`` replace some of the relay's fixed
    times; see `changed_times`. ``program`` takes the place of `twistd`. ``host`` is the address at which the relay is
    reached, and ``within`` a block for this thread in which its loopback is: both are those of another network
    namespace, if ``prefix`` runs the relay there.
    """

    listen: Sequence[str] = (f"tcp:{{port}}:interface={LOCALHOST}",)
    prefix: Sequence[str] = ()
    pass_fds: Sequence[int] = ()
    environment: Mapping[str, str] | None = None
    times: Mapping[str, float] = field(default_factory=dict)
    program: Sequence[str] = ()
    reactor: str = REACTOR
    host: str = LOCALHOST
    within: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


class Relay:
    """A running relay. ``port`` is the public one, ``admin_port`` the one of metrics."""

    def __init__(self, directory: Path, options: Sequence[str] = (), launch: Launch = Launch()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.host, self._within = launch.host, launch.within
        self._held = contextlib.ExitStack()
        self.port, self.admin_port = (self._held.enter_context(reserve_port()).getsockname()[1] for _ in range(2))
        self._log_path = directory / "log"
        program = (sys.executable, "-m", "tests.end_to_end.changed_times", json.dumps(launch.times))
        arguments = [
            *launch.prefix,
            *(program if launch.times else launch.program or (twistd(),)),
            "-n",
            "--pidfile",
            str(directory / "twistd.pid"),
        ]
        arguments += ["--reactor", launch.reactor, "pyryrelay"]
        for endpoint in launch.listen:
            arguments += ["--listen", endpoint.format(port=self.port, directory=directory)]
        arguments += ["--admin-listen", f"tcp:{self.admin_port}:interface={LOCALHOST}", *options]
        log = self._held.enter_context(self._log_path.open("wb"))
        self.process = subprocess.Popen(
            arguments,
            cwd=directory,
            env=environment(launch.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(launch.pass_fds),
        )
        try:
            until(self._is_ready, "the relay answers /healthz")
        except BaseException as error:
            self.discard()
            error.add_note(f"its log:\n{self._written()[-4000:]}")
            raise

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"the relay ended at once:\n{self.log()}"
        with self._within():
            return answers(self.admin_port)

    def admin_get(self, path: str, deadline_s: float = DEADLINE_S) -> tuple[int, str]:
        """Return status and body of a page of the admin listener."""
        with self._within():
            return http_get(self.admin_port, path, deadline_s=deadline_s)

    @property
    def address(self) -> tuple[str, int]:
        """Return the address on which it listens for peers."""
        return self.host, self.port

    @property
    def uri(self) -> str:
        """Return `address` as the beginning of a WebSocket URI."""
        return f"ws://{self.host}:{self.port}"

    def log(self) -> str:
        """Return all that was logged, up to the end of the turn in which the relay sent its last answer.

        This is enough for what the relay does before it answers. Wait with `log_has` for what it does by itself.
        """
        # Lines are written at the end of a turn, and a second request is answered in a later one.
        with contextlib.suppress(OSError, http.client.HTTPException):
            for _ in range(2 if self.process.poll() is None else 0):
                self.admin_get("/healthz")
        return self._written()

    def _written(self) -> str:
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def _has(self, words: Sequence[str], times: int) -> Callable[[], list[str]]:
        """Return a condition for `until`: ``times`` lines that hold all ``words``."""

        def lines() -> list[str]:
            found = [line for line in self._written().splitlines() if all(word in line for word in words)]
            return found if len(found) >= times else []

        return lines

    def log_has(self, *words: str, times: int = 1) -> list[str]:
        """Poll until ``times`` lines or more hold all ``words``, and return those lines."""
        return until(self._has(words, times), f"{times} lines with {words} in the log of {self.directory}")

    async def log_will_have(self, *words: str, times: int = 1) -> list[str]:
        """Do what `log_has` does, in a coroutine."""
        return await eventually(self._has(words, times), f"{times} lines with {words} in the log of {self.directory}")

    def metrics(self) -> dict[str, float]:
        """Return one scrape: ``name{labels}`` to value.

        This is enough for what the relay counts before it answers. Wait with `metric_becomes` for what it does by
        itself.
        """
        status, text = self.admin_get("/metrics")
        assert status == 200
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def refusals(self, *reasons: str) -> float:
        """Return how many requests were refused for any of these reasons."""
        found = self.metrics()
        return sum(found[f'pyryrelay_refusals_total{{reason="{reason}"}}'] for reason in reasons)

    def metric_becomes(self, name: str, value: float) -> None:
        """Poll until a sample has this value."""
        until(lambda: self.metrics()[name] == value, f"{name} is {value:g}")

    async def metric_will_be(self, name: str, value: float) -> None:
        """Do what `metric_becomes` does, in a coroutine."""
        await eventually(lambda: self.metrics()[name] == value, f"{name} is {value:g}")

    def connections(self) -> dict[str, float]:
        """Return the gauges of current leases, by kind. A lease ends some time after its peer has left."""
        name = "pyryrelay_connections{"
        return {key: value for key, value in self.metrics().items() if key.startswith(name)}

    async def all_leases_end(self) -> None:
        """Poll until no lease is held any more."""
        await eventually(lambda: not any(self.connections().values()), "every lease is given back")

    def rss_bytes(self) -> int:
        """Return the resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def wait(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait for the end, which must be orderly."""
        try:
            code = self.process.wait(deadline_s)
            assert code == 0, f"exit code {code}:\n{self.log()[-8000:]}"
            assert_clean(self.log())
            assert not (self.directory / "twistd.pid").exists()
        finally:
            self.discard()

    def stop(self) -> None:
        """End it in an orderly way, unless it has ended."""
        if self.process.poll() is None:
            self.signal()
        self.wait()

    def discard(self) -> None:
        """Leave no process running, and the ports free."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._held.close()
