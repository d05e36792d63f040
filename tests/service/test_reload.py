"""The running relay: what a reload changes, how the jail works at each depth, and what is left at the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from tests.support.capture import Captured
from tests.support.service import Connection, Machine, pyry, status

from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet, Nat64Prefix, Quota, client_address
from pyryrelay.guard.rate.quota import ByteQuota
from pyryrelay.listen.kernel.drop import KernelDropError
from pyryrelay.listen.listeners import Listeners
from pyryrelay.mounts import Settings
from pyryrelay.preflight.checks import OPEN_FILES
from pyryrelay.protocol_options import Finding
from pyryrelay.service import RelayService, Times, build
from pyryrelay.start.twistd import Options, makeService

PUBLIC, ADMIN = 8080, 9090
CLIENT = "192.0.2.7"


class Running:
    """A running relay, and the settings that a reload finds."""

    def __init__(self, machine: Machine, **given: Any) -> None:
        self.machine = machine
        self.wanted = Settings(**given)
        self.service = RelayService(self.wanted, machine, machine.seconds, Times(), lambda: self.wanted)
        self.service.startService()

    def reload(self, **given: Any) -> ReloadOutcome:
        """Reload with these settings."""
        self.wanted = Settings(**given)
        outcomes: list[ReloadOutcome] = []
        self.service.reload().addCallback(outcomes.append)
        return outcomes[0]

    def upgrade(self, host: str = CLIENT, path: str = "/v1/server", **fields: str) -> Connection:
        """Return a connection that was upgraded."""
        connection = self.machine.connect(PUBLIC, host)
        assert status(connection.upgrade(path, **fields)) == 101
        return connection

    def ask(self, host: str = CLIENT, **fields: str) -> int:
        """Return the status of the answer to an upgrade; 0 where the connection is dropped without an answer."""
        connection = self.machine.connect(PUBLIC, host)
        answer = connection.upgrade("/v1/server", f"sid-{host}-{self.machine.seconds()}", **fields)
        return status(answer) if answer else 0

    def jail(self, text: str, seconds: float = 600.0) -> None:
        """Jail an address through the gate."""
        client = client_address(text)
        assert client is not None
        self.service.gate.jail.add(client.key, seconds, self.machine.seconds())


def admin(machine: Machine, method: str, path: str, **fields: str) -> bytes:
    """Return the answer of the admin listener."""
    connection = machine.connect(ADMIN, "127.0.0.1")
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {fields[name]}" for name in fields)]
    connection.protocol.dataReceived("\r\n".join([*lines, "Connection: close", "Content-Length: 0", "", ""]).encode())
    return connection.received()


# What a reload changes


def test_quotas_change(machine: Machine) -> None:
    """A new quota counts from the next attempt on."""
    running = Running(machine, upgrade_quota=Quota(1, 60.0, 1))
    assert [running.ask(), running.ask()] == [101, 429]
    assert running.reload(upgrade_quota=None).changed == ["upgrade-quota"]
    assert running.ask() == 101


def test_caps_change_and_close_no_connection(machine: Machine) -> None:
    """A lower cap refuses new connections and closes none."""
    running = Running(machine)
    inside = [running.upgrade(server_id="a"), running.upgrade(server_id="b")]
    running.reload(max_connections_per_address=1)
    assert running.ask() == 429
    machine.advance(5)
    assert not any(connection.lost for connection in inside)
    assert running.service.gate.leases.connections == 2


def test_lists_change(machine: Machine) -> None:
    """Lists change with the options and with the files."""
    running = Running(machine)
    Path("deny.txt").write_text("192.0.2.8\n")
    outcome = running.reload(deny=CidrSet([CLIENT]), deny_file=("deny.txt",))
    assert outcome.changed == ["deny", "deny-file"]
    assert [running.ask(), running.ask("192.0.2.8"), running.ask("192.0.2.9")] == [403, 403, 101]


def test_trust_changes(machine: Machine) -> None:
    """A change of trust changes which address is the client."""
    running = Running(machine, deny=CidrSet(["198.51.100.1"]))
    forged = {"X_Forwarded_For": "198.51.100.1"}
    assert running.ask("10.0.0.1", **forged) == 101
    running.reload(
        deny=CidrSet(["198.51.100.1"]),
        trust_x_forwarded_for=True,
        trusted_proxy=TrustedProxies(CidrSet(["10.0.0.0/8"])),
    )
    assert running.ask("10.0.0.1", **forged) == 403
    assert running.ask("192.0.2.9", **forged) == 101


def test_the_jail_changes(machine: Machine) -> None:
    """A reload changes when addresses are jailed, and keeps those that are."""
    running = Running(machine, upgrade_quota=Quota(1, 60.0, 1), jail_after=None)
    assert [running.ask() for _ in range(100)][1:] == [429] * 99
    running.reload(upgrade_quota=Quota(1, 60.0, 1), jail_after=Quota(3, 60.0, 3))
    assert [running.ask() for _ in range(5)] == [429, 429, 429, 0, 0]
    running.reload(upgrade_quota=Quota(1, 60.0, 1), jail_after=None)
    assert running.ask() == 0


def test_throttles_change(machine: Machine) -> None:
    """New throttles count for open connections as well."""
    running = Running(machine)
    running.upgrade()
    size = ByteQuota(1024, 60.0, 1024)
    running.reload(byte_quota=size, binary_frame_quota=Quota(5, 60.0, 5))
    binaries, phones, *_ = (factory.context.throttle for factory in running.service.factories)
    assert (binaries.quota("frames"), phones.quota("bytes")) == (Quota(5, 60.0, 5), size)


def test_answers_change(machine: Machine) -> None:
    """A reload changes which refusals are answered."""
    running = Running(machine)
    assert status(machine.connect(PUBLIC).ask("/nothing")) == 404
    running.reload(refusal={"unknown_path": "drop"})
    assert machine.connect(PUBLIC).ask("/nothing") == b""


def test_the_relay_changes(machine: Machine, log: Captured) -> None:
    """Grace, number of phones and the form of logged addresses change."""
    running = Running(machine)
    running.reload(grace_s=7.0, max_phones=3, log_client_address="none")
    registry = pyry(running.service).registry
    assert (registry.grace_s, registry.max_phones) == (7.0, 3)
    assert running.service.settings == running.wanted
    running.upgrade()
    machine.advance(0)
    assert log.texts[-1].endswith("from -, connection 1")


def test_a_larger_cap_needs_more_files(machine: Machine, monkeypatch: pytest.MonkeyPatch, log: Captured) -> None:
    """A larger cap raises the limit of open files, and warns if that fails; without a change nothing is logged."""
    running = Running(machine)
    needed: list[int] = []

    def too_small(files: int) -> Finding:
        needed.append(files)
        return Finding(OPEN_FILES, "the limit", "it is too small", "raise it")

    monkeypatch.setattr("pyryrelay.service.assembly.raise_open_files", too_small)
    running.reload(grace_s=1.0)
    assert needed == []
    running.reload(max_connections=50_000)
    assert needed[0] > 50_000
    assert "the limit: it is too small; raise it" in log.texts


def test_what_needs_a_restart_stays(machine: Machine, log: Captured) -> None:
    """Options that need a restart keep their value and are named."""
    running = Running(machine)
    outcome = running.reload(listen=("tcp:1",), grace_s=2.0)
    assert outcome == ReloadOutcome(["grace"], ["listen"])
    assert machine.listening == [PUBLIC, ADMIN]
    assert "changed in the configuration, but needs a restart: listen" in log.texts


def test_what_the_guard_refuses_changes_nothing(machine: Machine) -> None:
    """Settings that the guard refuses leave everything as it was, like all settings that are refused."""
    running = Running(machine)
    before, trust = running.service.settings, running.service.trust
    outcome = running.reload(max_tracked=0, trust_x_forwarded_for=True)
    assert outcome.error is not None
    assert running.service.settings is before
    assert running.service.trust is trust


def test_a_service_made_in_code_reloads_its_lists(machine: Machine) -> None:
    """A service made in code has no configuration to read again, and reloads its list files."""
    Path("deny.txt").write_text("")
    service = build(Settings(deny_file=("deny.txt",)), machine, machine.seconds)
    service.startService()
    Path("deny.txt").write_text(f"{CLIENT}\n")
    outcomes: list[ReloadOutcome] = []
    service.reload().addCallback(outcomes.append)
    assert outcomes == [ReloadOutcome(["deny-file"], [])]
    assert status(machine.connect(PUBLIC).upgrade("/v1/server")) == 403


def test_list_files_are_watched(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed list files are applied without a request, whatever the current directory is."""
    Path("deny.txt").write_text("")
    running = Running(machine, deny_file=("deny.txt",))
    path = Path("deny.txt").resolve()
    monkeypatch.chdir("/")
    path.write_text(f"{CLIENT}\n")
    assert running.ask() == 101
    machine.pump([1.0] * 3)
    assert running.ask() == 403


# How to request a reload


def test_the_admin_listener_reloads(machine: Machine) -> None:
    """POST /reload answers with the options that changed."""
    running = Running(machine)
    running.wanted = Settings(grace_s=1.0, listen=("tcp:1",))
    answer = admin(machine, "POST", "/reload", Host="127.0.0.1:9090", X_Pyryrelay_Admin="1")
    assert status(answer) == 200
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "changed": ["grace"],
        "needs_restart": ["listen"],
        "error": None,
    }


def test_the_admin_listener_explains(machine: Machine) -> None:
    """GET /whoami explains the client address under the current options, for the Host that is allowed."""
    running = Running(machine)
    running.reload(admin_host=("relay.internal",), trust_x_forwarded_for=True)
    answer = admin(machine, "GET", "/whoami?peer=192.0.2.1&header=198.51.100.4", Host="relay.internal:9090")
    assert status(answer) == 200
    assert b"entry 1 from the right, 198.51.100.4, is the client" in answer
    assert status(admin(machine, "GET", "/whoami", Host="elsewhere.example")) == 421


def test_the_admin_listener_releases(machine: Machine) -> None:
    """A jailed address can be released."""
    running = Running(machine)
    running.jail(CLIENT)
    assert running.ask() == 0
    assert status(admin(machine, "DELETE", f"/jail/{CLIENT}", Host="localhost", X_Pyryrelay_Admin="1")) == 200
    assert running.ask() == 101


def test_sighup_reloads(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SIGHUP reads the file of the command line again, although twistd has changed the directory."""
    handlers: dict[int, Callable[[int, object], Any]] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    path = tmp_path / "relay.toml"
    path.write_text("grace = 5\n")
    options = Options(environ={}, reactor=machine)
    options.parseOptions(["--config", "relay.toml"])
    service = makeService(options, machine)
    assert isinstance(service, RelayService)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    service.startService()
    for call, arguments, keywords in machine.whenRunningHooks:
        call(*arguments, **keywords)
    path.write_text("grace = 6\n")
    handlers[signal.SIGHUP](signal.SIGHUP, None)
    assert pyry(service).registry.grace_s == 6.0
    path.write_text("grace = soon\n")
    handlers[signal.SIGHUP](signal.SIGHUP, None)
    assert pyry(service).registry.grace_s == 6.0
    assert (tmp_path / "pyryrelay-jail.sqlite").exists()


# The jail


def test_the_jail_survives_a_restart(machine: Machine, log: Captured) -> None:
    """The jail is kept in a file in the run directory."""
    running = Running(machine)
    running.jail(CLIENT)
    machine.pump([1.0] * 2)
    done: list[object] = []
    running.service.stopService().addBoth(done.append)
    assert done == [None]
    again = Machine()
    running = Running(again)
    assert running.ask() == 0
    assert running.ask("192.0.2.8") == 101


def test_a_jail_by_hand_survives_too(machine: Machine) -> None:
    """Bans from the admin listener are kept even if the relay itself jails no address."""
    running = Running(machine, jail_after=None)
    running.jail(CLIENT)
    machine.pump([1.0] * 2)
    assert Path("pyryrelay-jail.sqlite").stat().st_size > 0
    assert Running(Machine(), jail_after=None).ask() == 0


def test_no_jail_file(machine: Machine) -> None:
    """With an empty name there is no file."""
    running = Running(machine, jail_file="")
    running.jail(CLIENT)
    machine.pump([1.0] * 2)
    assert list(Path().iterdir()) == []


def test_a_directory_where_nothing_can_be_written(machine: Machine, log: Captured) -> None:
    """Where the jail file cannot be written, as after --uid, one line says so and the relay runs."""
    Path("run").write_text("a file, so that nothing can be in it")
    running = Running(machine, jail_file="run/jail.sqlite")
    (line,) = [text for text in log.texts if "jail file" in text]
    assert line.startswith(f"jail file {str(Path.cwd() / 'run/jail.sqlite')!r} cannot be used: ")
    assert line.endswith("; bans are kept in memory only")
    assert running.ask() == 101


def test_forged_clients_are_not_dropped_at_accept(machine: Machine) -> None:
    """An address that a forged header got jailed is dropped behind the header only, and not at accept.

    At accept the relay drops TCP peers that are jailed, so the victim's own connections are still accepted.
    """
    running = Running(
        machine,
        trust_x_forwarded_for=True,
        upgrade_quota=Quota(1, 60.0, 1),
        max_connections_per_address=1,
        jail_after=Quota(3, 60.0, 3),
    )
    forged = {"X_Forwarded_For": CLIENT}
    answers = [running.ask("203.0.113.1", **forged) for _ in range(10)]
    assert answers[-1] == 0
    assert not machine.connect(PUBLIC, CLIENT).lost
    assert running.ask(CLIENT, X_Forwarded_For="192.0.2.99") == 101


def test_a_proxy_is_never_jailed(machine: Machine) -> None:
    """A trusted proxy is never jailed: requests of its jailed clients are dropped by their head, others are served."""
    running = Running(
        machine,
        trust_x_forwarded_for=True,
        trusted_proxy=TrustedProxies(CidrSet(["10.0.0.1"])),
        upgrade_quota=Quota(1, 60.0, 1),
        max_connections_per_address=1,
        jail_after=Quota(3, 60.0, 3),
    )
    answers = [running.ask("10.0.0.1", X_Forwarded_For=CLIENT) for _ in range(10)]
    assert answers[-1] == 0
    assert [running.ask("10.0.0.1") for _ in range(10)][1:] == [429] * 9
    assert running.ask("10.0.0.1", X_Forwarded_For="192.0.2.8") == 101


TRANSLATORS = ["64:ff9b::/96", "::ffff:0:0:0/96"]


class Kernel:
    """A stand-in for `KernelDrop`."""

    def __init__(self, history: list[tuple[object, ...]], refuses: bool = False) -> None:
        self.history = history
        self.refuses = refuses
        self.is_on = self.filters_sockets = True
        self.jail_exempt: list[str] = []

    def __call__(self, drop_sockets: Any, sockets: Any) -> Kernel:
        self.sockets = list(sockets)
        return self

    def set_exempt(self, networks: Any) -> None:
        self.jail_exempt = [str(network) for network in networks]

    def start(self) -> None:
        if self.refuses:
            self.is_on = False
            raise KernelDropError(1, "jailed sources are dropped at accept, not in the kernel: because")

    def update(self, networks: Any) -> int:
        self.history.append(("kernel drops", *map(str, networks)))
        return len(networks)

    def remove_failed(self) -> None:
        pass

    def stop(self) -> None:
        self.history.append(("kernel drops nothing",))


def test_the_kernel_drops(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops jailed addresses, never exempt ones, also after a reload, and none once the relay stops."""
    kernel = Kernel(machine.history)
    monkeypatch.setattr("pyryrelay.listen.kernel.drop.KernelDrop", kernel)
    detached: list[object] = []
    for module in ("service.assembly", "listen.kernel.drop"):
        monkeypatch.setattr(f"pyryrelay.{module}.detach", detached.append)
    monkeypatch.setattr("tests.support.service.Transport.getHandle", lambda self: "a socket", raising=False)
    running = Running(machine, kernel_drop=True, allow=CidrSet(["192.0.2.128/25"]))
    assert kernel.jail_exempt == ["192.0.2.128/25", "127.0.0.0/8", "::1/128", *TRANSLATORS]
    running.upgrade("192.0.2.9")
    assert detached == ["a socket"]
    running.jail(CLIENT)
    machine.pump([1.0] * 2)
    prefixes = (Nat64Prefix.parse("2001:db8:64::/96"),)
    running.reload(kernel_drop=True, allow=CidrSet(["198.51.100.0/24"]), nat64_prefix=prefixes)
    machine.pump([1.0] * 2)
    assert kernel.jail_exempt == ["198.51.100.0/24", "127.0.0.0/8", "::1/128", *TRANSLATORS, "2001:db8:64::/96"]
    running.service.stopService()
    told = [
        event for event in machine.history if event[0] in ("kernel drops", "kernel drops nothing", "stop listening")
    ]
    assert told == [
        ("kernel drops", f"{CLIENT}/32"),
        ("kernel drops", f"{CLIENT}/32"),
        ("kernel drops nothing",),
        ("stop listening", PUBLIC),
    ]


@pytest.mark.parametrize(
    "forbidding",
    [
        {"trust_x_forwarded_for": True},
        {"refusal": {"jailed": "answer"}},
    ],
)
def test_when_the_kernel_drops_nothing_by_default(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, forbidding: dict[str, Any]
) -> None:
    """By default the kernel drops nothing where jailed clients are answered or addresses can be forged."""
    kernel = Kernel(machine.history)
    monkeypatch.setattr("pyryrelay.listen.kernel.drop.KernelDrop", kernel)
    running = Running(machine, **forbidding)
    assert kernel.jail_exempt == ["0.0.0.0/0", "::/0"]
    running.reload()
    machine.pump([1.0] * 2)
    assert kernel.jail_exempt == ["127.0.0.0/8", "::1/128", *TRANSLATORS]
    running.reload(**forbidding)
    machine.pump([1.0] * 2)
    assert kernel.jail_exempt == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("wanted", [None, True])
def test_sockets_that_were_handed_down(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, log: Captured, wanted: bool | None
) -> None:
    """Sockets from systemd get a filter on request; without, one line names them and an old filter is removed."""
    detached: list[object] = []
    kernel = Kernel(machine.history)
    monkeypatch.setattr("pyryrelay.listen.kernel.drop.KernelDrop", kernel)
    for module in ("service.assembly", "listen.kernel.drop"):
        monkeypatch.setattr(f"pyryrelay.{module}.detach", detached.append)
    with socket() as sock:
        monkeypatch.setattr(Listeners, "sockets", [sock])

        def none(self: Listeners) -> list[object]:
            self.without_drop_socket[sock] = "because"
            return []

        monkeypatch.setattr(Listeners, "open_drop_sockets", none)
        Running(machine, kernel_drop=wanted)
        assert kernel.sockets == ([sock] if wanted else [])
        assert detached == [sock]
    line = "jailed sources are dropped at accept on 1 of the sockets, not in the kernel: because"
    assert (line in log.texts) is not wanted


def test_a_kernel_that_refuses(machine: Machine, monkeypatch: pytest.MonkeyPatch, log: Captured) -> None:
    """If the kernel refuses the filter, one line says so and jailed addresses are dropped at accept."""
    monkeypatch.setattr("pyryrelay.listen.kernel.drop.KernelDrop", Kernel(machine.history, refuses=True))
    running = Running(machine, kernel_drop=True)
    assert [text for text in log.texts if text.startswith("--kernel-drop: ")] == [
        "--kernel-drop: jailed sources are dropped at accept, not in the kernel: because"
    ]
    running.jail(CLIENT)
    assert running.ask() == 0
    assert running.ask("192.0.2.9") == 101
