"""A network of machines for the chaos driver: each a network namespace, with a switch between them that can fail.

Machines in ``wired`` have a wire to the clients beside that, which never fails and costs less: for load that is to keep
instances busy, and not the switch.

The thread that uses it becomes a machine of its own, `CLIENTS`, and so does everything that it starts. The network of
the real machine is not touched. Needs root and iproute2. Names have the number of the process, so what a process has
left that was killed is found and removed by the next one. Times are seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.chaos.lateness.late import SWITCH, Late, from_machine
from tests.chaos.network import rules
from tests.chaos.network.rules import WELL, State, mac_of
from tests.end_to_end.harness import environment
from tests.end_to_end.network import built_or_skip, ip, within

__all__ = ["CLIENTS", "HAMMER", "STRANGERS", "Machines", "machines_or_skip", "remove_stale"]

CLIENTS: Final = "clients"
HAMMER: Final = "10.213.0.200"
"""A second address of the clients."""
STRANGERS: Final = tuple(f"10.213.0.{number}" for number in range(201, 209))
"""More addresses of the clients."""
_PREFIX: Final = "pyryrelay-chaos-"
_FOLDER: Final = Path("/run/netns")
_DEADLINE_S: Final = 20.0


class Machines:
    """See the module's docstring. ``names`` are the machines beside `CLIENTS`."""

    def __init__(self, names: Sequence[str], seed: int = 0, wired: Sequence[str] = ()) -> None:
        self.wired = tuple(wired)
        self.numbers = {name: number for number, name in enumerate((CLIENTS, *names), 1)}
        self._seed = seed
        self._middle = f"{_PREFIX}{os.getpid()}-switch"
        self._switch: subprocess.Popen[bytes] | None = None

    def namespace(self, name: str) -> str:
        """Return the namespace of a machine."""
        return f"{_PREFIX}{os.getpid()}-{name}"

    def address(self, name: str) -> str:
        """Return the address of a machine."""
        return f"10.213.0.{self.numbers[name]}"

    def wire(self, name: str) -> tuple[str, str]:
        """Return both addresses of the wire to a machine: that of the clients, and its own."""
        number = self.numbers[name]
        return f"10.214.{number}.1", f"10.214.{number}.2"

    def command(self, name: str) -> tuple[str, ...]:
        """Return the beginning of a command that runs on a machine, with the same process number."""
        return ("ip", "netns", "exec", self.namespace(name))

    def within(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Move this thread to a machine for a block."""
        return within(self.namespace(name))

    def build(self) -> None:
        """Make it. Raises `subprocess.CalledProcessError` where that is not permitted."""
        remove_stale()
        ip("netns", "add", self._middle)
        for name, number in self.numbers.items():
            namespace, port = self.namespace(name), f"p{number}"
            ip("netns", "add", namespace)
            ip("link", "add", port, "netns", self._middle, "type", "veth", "peer", "wire", "netns", namespace)
            mac = mac_of(number).hex(":")
            others = [(self.address(other), mac_of(self.numbers[other]).hex(":")) for other in self.numbers]
            others += [(more, mac_of(self.numbers[CLIENTS]).hex(":")) for more in (HAMMER, *STRANGERS)]
            addresses = [self.address(name), *((HAMMER, *STRANGERS) if name == CLIENTS else ())]
            _batch(
                namespace,
                "link set lo up",
                f"link set wire address {mac}",
                *(f"addr add {address}/24 dev wire" for address in addresses),
                "link set wire up",
                *(f"neigh add {address} lladdr {its} dev wire nud permanent" for address, its in others),
            )
            _batch(self._middle, f"link set {port} up")
        for name in self.wired:
            self._connect(name)
        self._start()

    def _connect(self, name: str) -> None:
        """Make a wire of its own between a machine and the clients."""
        here, there, end = self.namespace(CLIENTS), self.namespace(name), f"to{self.numbers[name]}"
        ip("link", "add", end, "netns", here, "type", "veth", "peer", "direct", "netns", there)
        near, far = self.wire(name)
        _batch(here, f"addr add {near}/30 dev {end}", f"link set {end} up")
        _batch(there, f"addr add {far}/30 dev direct", "link set direct up")

    def _start(self) -> None:
        ports = [f"p{number}={number}" for number in self.numbers.values()]
        command = ["ip", "netns", "exec", self._middle, sys.executable, "-m", "tests.chaos.network.switch"]
        self._switch = subprocess.Popen(
            [*command, str(self._seed), *ports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        self._answered(b"ready\n")

    def _answered(self, word: bytes) -> None:
        line = self._line()
        assert line == word, f"the switch answers {line!r}"

    def _line(self) -> bytes:
        assert self._switch is not None
        assert self._switch.stdout is not None
        return self._switch.stdout.readline()

    def _ask(self, words: Sequence[float]) -> None:
        assert self._switch is not None
        assert self._switch.stdin is not None
        self._switch.stdin.write(json.dumps(words).encode() + b"\n")
        self._switch.stdin.flush()

    @property
    def switch_pid(self) -> int:
        """Return the number of the process of the switch."""
        assert self._switch is not None
        return self._switch.pid

    def late(self) -> list[Late]:
        """Return when the switch was late, in seconds since 1970: at all, or with what comes from a machine."""
        self._ask(())
        names = {number: from_machine(name) for name, number in self.numbers.items()} | {0: SWITCH}
        return [Late(names[number], since, until) for number, since, until in json.loads(self._line())]

    def set(self, source: str, destination: str, state: State) -> None:
        """Change the path from one machine to another."""
        self._ask((*rules.Path(self.numbers[source], self.numbers[destination]), *state))
        self._answered(b"done\n")

    def set_both(self, one: str, other: str, state: State) -> None:
        """Change both paths between two machines."""
        self.set(one, other, state)
        self.set(other, one, state)

    def heal(self) -> None:
        """Let all paths work again."""
        for source in self.numbers:
            for destination in self.numbers:
                if source != destination:
                    self.set(source, destination, WELL)

    def remove(self) -> None:
        """Remove all parts of it, however far `build` came. Processes in it must have ended."""
        if self._switch is not None:
            assert self._switch.stdin is not None
            assert self._switch.stdout is not None
            self._switch.stdin.close()
            self._switch.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._switch.wait(_DEADLINE_S)
            self._switch.kill()
            self._switch.wait()
            self._switch = None
        for namespace in (self._middle, *map(self.namespace, self.numbers)):
            _delete(namespace)


def _batch(namespace: str, *lines: str) -> None:
    """Run several commands of `ip` at once."""
    subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"],
        input="\n".join(lines).encode(),
        check=True,
        capture_output=True,
        timeout=_DEADLINE_S,
    )


def _delete(namespace: str) -> None:
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False, timeout=_DEADLINE_S)


def remove_stale(folder: Path = _FOLDER) -> list[str]:
    """Remove the namespaces of processes that have ended without doing so; return their names."""
    found = []
    for path in sorted(folder.glob(f"{_PREFIX}*")):
        number = re.match(rf"{_PREFIX}(\d+)-", path.name)
        if number is not None and not Path(f"/proc/{number[1]}").exists():
            _delete(path.name)
            found.append(path.name)
    return found


@contextlib.contextmanager
def machines_or_skip(names: Sequence[str], seed: int = 0, wired: Sequence[str] = ()) -> Iterator[Machines]:
    """Make machines, with this thread on that of the clients, or skip with a reason."""
    machines = Machines(names, seed, wired)
    with built_or_skip(machines), machines.within(CLIENTS):
        yield machines
