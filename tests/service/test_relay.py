"""The assembly: what listens where, how the parts are connected, and what happens when a listener fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.capture import Captured
from tests.support.service import Machine, body, pyry, status, text_frame
from twisted.internet.error import CannotListenError

from pyryrelay import __version__
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet, Quota
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.listen.listeners import ListenError
from pyryrelay.mounts import Settings
from pyryrelay.preflight.checks import NATIVE, OPEN_FILES
from pyryrelay.protocol_options import Finding
from pyryrelay.service import RelayService, Times, build
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.rpc import Rpc

PUBLIC, ADMIN = 8080, 9090


@pytest.fixture
def service(machine: Machine) -> RelayService:
    """A started relay with the default settings."""
    return started(machine)


def started(machine: Machine, **settings: Any) -> RelayService:
    """Return a running relay."""
    service = build(Settings(**settings), machine, machine.seconds)
    service.startService()
    return service


def context_of(factory: Any) -> ListenerContext:
    """Return the context of a listener, whatever wraps its factory."""
    while not hasattr(factory, "context"):
        factory = factory.wrappedFactory
    context = factory.context
    assert isinstance(context, ListenerContext)
    return context


# Listening


def test_build_listens_on_nothing(machine: Machine) -> None:
    """Before the service starts nothing is bound and no timer runs."""
    service = build(Settings(), machine, machine.seconds)
    assert machine.history == []
    assert machine.getDelayedCalls() == []
    assert not service.running


def test_each_endpoint_is_listened_on(machine: Machine) -> None:
    """Public endpoints are opened in their order, then the admin endpoint."""
    started(machine, listen=("tcp:81", "tcp:82", "unix:/run/relay"), admin_listen="tcp:83:interface=127.0.0.1")
    assert [place for _, place in machine.history] == [81, 82, "/run/relay", 83]
    assert all(machine.ports[81].factory is not machine.ports[place].factory for place in (82, 83))


def test_the_admin_listener_can_be_off(machine: Machine, log: Captured) -> None:
    """An empty admin endpoint opens no listener and logs no line."""
    started(machine, admin_listen="")
    assert machine.listening == [PUBLIC]
    assert not any("metrics on" in text for text in log.texts)


def test_a_listener_is_started_once(machine: Machine) -> None:
    """A listener is started once, whether twistd starts it early with privileges or not."""
    service = build(Settings(), machine, machine.seconds)
    service.privilegedStartService()
    assert machine.listening == [PUBLIC, ADMIN]
    service.startService()
    assert machine.history == [("listen", PUBLIC), ("listen", ADMIN)]
    assert service.running


@pytest.mark.parametrize(
    ("endpoint", "behind"),
    [
        ("tcp:8080", False),
        ("haproxy:tcp:8080", True),
        ("HAProxy:tcp:8080", True),
    ],
)
def test_a_listener_behind_the_proxy_protocol_is_known(machine: Machine, endpoint: str, behind: bool) -> None:
    """With Twisted's own PROXY endpoint, however it is written, the address at accept counts for no quota."""
    started(machine, listen=(endpoint,))
    assert context_of(machine.ports[8080].factory).behind_proxy_protocol is behind


@pytest.mark.parametrize(
    ("port", "option", "endpoint"),
    [(8081, "--listen", "tcp:8081:interface=127.0.0.1"), (ADMIN, "--admin-listen", "tcp:9090:interface=127.0.0.1")],
)
def test_a_port_in_use(machine: Machine, port: int, option: str, endpoint: str) -> None:
    """A port in use is one line with option, value, cause and fix."""
    machine.take(port)
    with pytest.raises(ListenError) as caught:
        started(machine, listen=("tcp:8080:interface=127.0.0.1", "tcp:8081:interface=127.0.0.1"))
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.startswith(f"{option} {endpoint!r}: ")
    assert "Address already in use" in line
    assert "choose another" in line


@pytest.mark.parametrize(
    "error",
    [
        CannotListenError(None, "/run/relay", OSError(13, "Permission denied")),
        PermissionError(13, "Permission denied"),
    ],
)
def test_a_socket_that_cannot_be_made(machine: Machine, error: Exception) -> None:
    """A socket that cannot be made for another reason is a `ListenError` with that reason."""
    machine.taken["/run/relay"] = error
    with pytest.raises(ListenError, match=r"^--listen 'unix:/run/relay': .*Permission denied"):
        started(machine, listen=("unix:/run/relay",))


@pytest.mark.parametrize("endpoint", ["nosuch:1", "systemd:domain=INET:index=9", "tcp:8080:x=1"])
def test_an_endpoint_that_twisted_refuses(machine: Machine, endpoint: str) -> None:
    """An endpoint that Twisted refuses is a `ListenError` as well, for settings made in code."""
    with pytest.raises(ListenError, match="--listen"):
        started(machine, listen=(endpoint,))


# Assembly


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_binary_and_its_phone_meet(machine: Machine, service: RelayService, version: str) -> None:
    """A binary and its phone are paired on either version of the paths."""
    binary, phone = machine.connect(PUBLIC), machine.connect(PUBLIC, "192.0.2.8")
    assert status(binary.upgrade(f"/{version}/server")) == 101
    assert status(phone.upgrade(f"/{version}/client")) == 101
    phone.send(b'{"hello":1}')
    envelope = binary.received()
    conn_id = json.loads(envelope[2:])["conn_id"]
    assert envelope == text_frame(b'{"conn_id":"%s","frame":{"hello":1}}' % conn_id.encode())
    binary.send(b'{"conn_id":"%s","frame":[2]}' % conn_id.encode())
    assert phone.received() == text_frame(b"[2]")


def test_public_pages(machine: Machine, service: RelayService) -> None:
    """Public listeners serve the health page and no metrics."""
    machine.advance(5)
    answer = body(machine.connect(PUBLIC).ask("/healthz"))
    assert answer["status"] == "ok"
    assert answer["uptime_seconds"] == 5
    assert status(machine.connect(PUBLIC).ask("/metrics")) == 404


def test_admin_pages(machine: Machine, service: RelayService) -> None:
    """The admin listener serves both pages, which include the events of public listeners."""
    machine.connect(PUBLIC).ask("/nothing")
    scrape = machine.connect(ADMIN).ask("/metrics", Connection="close")
    assert b'pyryrelay_refusals_total{reason="unknown_path"} 1.0\n' in scrape
    assert b"pyryrelay_uptime_seconds 0.0\n" in scrape
    assert status(machine.connect(ADMIN).ask("/healthz", Connection="close")) == 200


def test_refusals_are_counted_and_logged(machine: Machine, service: RelayService, log: Captured) -> None:
    """Refused requests are in the metrics and in the log."""
    assert status(machine.connect(PUBLIC).upgrade("/v1/server", "s" * 129)) == 400
    assert service.refusals.counts["server", "bad_server_id"] == 1
    machine.advance(0)
    assert any("400 bad_server_id on server" in text for text in log.texts)


def test_settings_reach_the_guard(machine: Machine) -> None:
    """Quotas, caps, lists and the prefix length of IPv6 clients are enforced."""
    service = started(
        machine,
        upgrade_quota=Quota.parse("1/minute burst 2"),
        max_connections=3,
        max_connections_per_address=2,
        max_tracked=1234,
        allow=CidrSet(["192.0.2.0/24"]),
        deny=CidrSet(["198.51.100.0/24"]),
        ipv6_prefix=48,
    )
    asked = {
        host: [status(machine.connect(PUBLIC, host).upgrade("/v1/server", f"{host}-{i}")) for i in range(3)]
        for host in ("203.0.113.1", "192.0.2.1")
    }
    assert asked == {"203.0.113.1": [101, 101, 429], "192.0.2.1": [101, 503, 503]}
    assert status(machine.connect(PUBLIC, "198.51.100.1").ask("/healthz")) == 403
    assert service.gate.config.max_tracked == 1234
    assert context_of(machine.ports[PUBLIC].factory).live.trust.ipv6_prefix == 48


def test_settings_reach_the_trust_in_proxies(machine: Machine) -> None:
    """A trusted proxy names the client, and other peers do not."""
    started(
        machine,
        trust_x_forwarded_for=True,
        trusted_proxy=TrustedProxies(CidrSet(["10.0.0.0/8"])),
        deny=CidrSet(["198.51.100.1/32"]),
    )
    forwarded = {"X_Forwarded_For": "198.51.100.1"}
    assert status(machine.connect(PUBLIC, "10.1.1.1").upgrade("/v1/server", **forwarded)) == 403
    assert status(machine.connect(PUBLIC, "192.0.2.1").upgrade("/v1/server", **forwarded)) == 101


def test_settings_reach_the_relay(machine: Machine) -> None:
    """Grace, number of phones and size of messages are enforced."""
    service = started(machine, grace_s=4.0, max_phones=1, max_message_bytes=1024)
    assert (pyry(service).registry.grace_s, pyry(service).registry.max_phones) == (4.0, 1)
    assert {factory.context.max_message_bytes for factory in service.factories} == {1024}


# The start


def test_the_start_logs_addresses(machine: Machine, log: Captured) -> None:
    """The start logs one line for each address that the relay listens on."""
    local = ":interface=127.0.0.1"
    started(machine, listen=(f"tcp:81{local}", f"tcp:82{local}"))
    assert [text.rpartition(" on ")[2] for text in log.texts] == [f"tcp:{port}{local}" for port in (81, 82, 9090)]
    assert __version__ in log.texts[0]


def test_the_start_warns(machine: Machine, log: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start warns of settings that are probably a mistake, and of a machine with too few open files."""
    needed: list[int] = []

    def too_small(files: int) -> Finding:
        needed.append(files)
        return Finding(OPEN_FILES, "the limit", "it is too small", "raise it")

    monkeypatch.setattr("pyryrelay.service.assembly.raise_open_files", too_small)
    started(machine, listen=("tcp:81",), trust_x_forwarded_for=True, max_connections=5000)
    warnings = [str(event["warning"]) for event in log.events if event["log_level"].name == "warn"]
    assert len(warnings) == 2
    assert warnings[0].startswith("--trust-x-forwarded-for without --trusted-proxy on 'tcp:81'")
    assert warnings[1] == "the limit: it is too small; raise it"
    assert needed[0] > 5000
    log.events.clear()
    place = WorkerPlace(1, 2, 7, Rpc())
    RelayService(Settings(workers=2), Machine(), machine.seconds, Times(), warnings=(), place=place).startService()
    assert len(needed) == 2
    assert log.events == []  # the supervisor has told so


def test_missing_native_parts_are_logged(machine: Machine, log: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start warns if Autobahn has no native parts."""
    monkeypatch.setattr(
        "pyryrelay.service.foundation.native_parts", lambda: [Finding(NATIVE, "it", "is slow", "build it")]
    )
    started(machine)
    assert "it: is slow; build it" in log.texts


def test_buckets_are_swept(machine: Machine, service: RelayService) -> None:
    """An address whose bucket has been full for long takes no memory."""
    machine.connect(PUBLIC).upgrade("/v1/server")
    assert service.gate.tracked == 2  # The address, and its /24.
    assert service.settings.upgrade_quota is not None
    machine.pump([1.0] * round(3 * service.settings.upgrade_quota.full_after_s))
    assert service.gate.tracked == 0


def test_what_was_left_out_of_the_log_is_summed_up(machine: Machine, service: RelayService, log: Captured) -> None:
    """Refusals that were left out of the log are summed up every 10 s."""
    for _ in range(5):
        machine.connect(PUBLIC).ask("/nothing")
    machine.pump([1.0] * 20)
    assert "4 more refusals and drops since the last lines about them" in log.texts
