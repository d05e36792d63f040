"""Inputs from real scanners, probes and load balancers, and heads that a proxy lets through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.asking import HEALTH, answered, ask, status
from tests.support.capture import Captured
from tests.support.harness import ALICE, BOB, DATE, PATH, LogReader, World, client_of, request_head

from pyryrelay.guard import CidrSet, Gate, GateConfig, JailPolicy, Nat64Prefix, Quota, TrustPolicy
from pyryrelay.http.connection import READ_ON_BYTES
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.http.message import MAX_HEAD_BYTES
from pyryrelay.observe.log import INTERVAL_S, EventLog
from pyryrelay.observe.refusals import Refusals

INPUTS = Path(__file__).parent.parent / "inputs"
PROXY = "10.0.0.7"
PROXIES = CidrSet(["10.0.0.0/8"])
FORGED = b"\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
FORWARDING = TrustPolicy(True, proxies=PROXIES, trust_unix=True)
GUARDED = GateConfig(
    http_quota=Quota.parse("60/minute burst 120"),
    jail=JailPolicy(refusals=3, within_s=60.0),
    jail_exempt=PROXIES,
    deny=CidrSet([BOB]),
)


def read(name: str) -> bytes:
    """Return the bytes of an input."""
    return (INPUTS / name).read_bytes()


def new_refusals(gate: Gate, now: Callable[[], float]) -> Refusals:
    """Return the observer of a real relay."""
    return Refusals(gate, EventLog("full", now), now)


def refusals_of(world: World) -> Refusals:
    """Return the observer of a world that was made with `new_refusals`."""
    assert isinstance(world.context.observer, Refusals)
    return world.context.observer


# PROXY protocol, version 2


@pytest.mark.parametrize(
    ("name", "client"), [("pp2-local-inet-dummy-healthz.bin", PROXY), ("pp2-proxy-noop-and-vpc-tlv.bin", "203.0.113.9")]
)
def test_headers_of_balancers(name: str, client: str) -> None:
    """The address block of LOCAL, NOOP and custom TLVs are skipped, and the page asked for behind them is sent."""
    for cut in range(1, len(read(name))):
        world = World(proxy_protocol=True, trust=TrustPolicy(proxies=PROXIES))
        world.pages.clear()
        connection = world.connect(PROXY)
        connection.feed(read(name)[:cut])
        connection.feed(read(name)[cut:])
        assert world.observer.refusals == [(None, 404, "unknown_path", client)]
    world = World(proxy_protocol=True, trust=TrustPolicy(proxies=PROXIES))
    assert status(ask(world, read(name), PROXY)) == 200


# Probes and scanners


@pytest.mark.parametrize(("host", "trust"), [("127.0.0.1", TrustPolicy()), (PROXY, FORWARDING)])
def test_a_probe_of_a_balancer_jails_no_address(host: str, trust: TrustPolicy) -> None:
    """``OPTIONS / HTTP/1.0`` gets 404 any number of times."""
    world = World(gate=GUARDED, trust=trust, new_observer=new_refusals)
    refusals = refusals_of(world)
    assert status(ask(world, read("probe-options-http10.txt"), host)) == 404
    for _ in range(2_000):
        connection = ask(world, read("probe-options-http10.txt"), host)
        assert int(answered(connection).split()[1]) in (404, 429)
        connection.settle()
    assert len(world.gate.jail) == 0
    assert refusals.by_reason().keys() == {"unknown_path", "http_rate_limit"}


@pytest.mark.parametrize("name", ["scan-ssh-banner.bin", "scan-tls-client-hello-short.bin"])
@pytest.mark.parametrize("host", [ALICE, PROXY])
def test_scanners_are_worth_a_line(name: str, host: str, log: Captured) -> None:
    """Scanners cause no traceback, and at most one line for an address and a reason in 10 s."""
    world = World(gate=GUARDED, trust=FORWARDING, new_observer=new_refusals)
    observer = refusals_of(world)
    with LogReader() as reader:
        for _ in range(20):
            connection = ask(world, read(name), host)
            world.pass_time(HEAD_TIMEOUT_S + 1.0 if name.startswith("scan-ssh") else 0.25)
            assert connection.take().count(b"HTTP/1.1 ") <= 1
            connection.settle()
            assert connection.is_lost()
    assert reader.failures == []
    lines = [text for text in log.texts if text.startswith("refused")]
    # Behind a proxy a head that never ends has no client.
    named = "unknown" if host == PROXY and name.startswith("scan-ssh") else host
    assert lines[0].startswith(f"refused {named} 4")
    assert len(lines) <= 1 + (world.clock.seconds() - 1_000.0) / INTERVAL_S + len(observer.by_reason())
    world.assert_empty()


def test_what_can_be_no_head_is_not_waited_for() -> None:
    """A TLS handshake on a plain port is answered at once, and is no strike, since it may be a browser's."""
    world = World(gate=GUARDED)
    for _ in range(20):
        connection = ask(world, read("scan-tls-client-hello-short.bin"))
        assert status(connection) == 400
        connection.settle()
    assert world.observer.refusals == [(None, 400, "bad_head", ALICE)] * 20
    assert len(world.gate.jail) == 0
    world.assert_empty()


def test_a_field_in_utf_8() -> None:
    """RFC 9110 section 5.5: values are bytes, so that a CDN's field in UTF-8 does not prevent an upgrade."""
    world = World()
    connection = ask(world, read("upgrade-utf8-header.txt").replace(b"/v1/client", PATH.encode()))
    assert connection.take().startswith(b"HTTP/1.1 101 ")


# Heads that are too large


def large(at_the_end: str, size: int = 20_000) -> bytes:
    """Return a head of too many bytes, whose last field a proxy appended."""
    fill = [f"X-{number}: {'x' * 100}" for number in range(size // 106)]
    return request_head(PATH, "X-Forwarded-For: 6.6.6.6", *fill, f"X-Forwarded-For: {at_the_end}")


@pytest.mark.parametrize("piece", [1_000, 65_536])
def test_a_large_head_of_a_proxys_client(piece: int) -> None:
    """Such a head is read to its end, where the proxy's field may be: 431 for the client, 403 for a denied one."""
    for client, code, reason in ((ALICE, 431, "head_too_large"), (BOB, 403, "denied")):
        world = World(gate=GUARDED, trust=FORWARDING)
        connection = world.connect(PROXY)
        data = large(client)
        for at in range(0, len(data), piece):
            assert connection.take() == b""
            connection.feed(data[at : at + piece])
        assert status(connection) == code
        assert world.observer.refusals == [(None, code, reason, client)]


def test_a_jailed_client_gets_no_answer() -> None:
    """A jailed client gets no answer to a head that is too large or has a control character."""
    for head in (large(ALICE), request_head(PATH, f"X-Forwarded-For: {ALICE}", "A: \x01")):
        world = World(gate=GUARDED, trust=FORWARDING)
        client = FORWARDING.read(ALICE)
        assert client is not None
        world.gate.jail.add(client.key, 60.0, world.clock.seconds())
        connection = ask(world, head, PROXY)
        assert connection.is_cut_off()
        assert connection.take() == b""
        assert [entry[2] for entry in world.observer.refusals] == ["jailed"]


def test_a_head_without_an_end_names_no_client() -> None:
    """A head without an end is refused in the name of the proxy, which is not jailed."""
    world = World(gate=GUARDED, trust=FORWARDING)
    for _ in range(10):
        connection = ask(world, large(ALICE, 2 * READ_ON_BYTES)[: READ_ON_BYTES + 1], PROXY)
        assert status(connection) == 431
    assert world.observer.refusals == [(None, 431, "head_too_large", PROXY)] * 10
    assert len(world.gate.jail) == 0


def test_heads_of_known_clients_are_refused_at_the_bound() -> None:
    """A head of a client that is known is refused at the bound."""
    world = World(gate=GUARDED, trust=FORWARDING)
    connection = ask(world, b"x" * (MAX_HEAD_BYTES + 1), ALICE)
    assert answered(connection).startswith(b"HTTP/1.1 431 Request Header Fields Too Large" + DATE)
    assert world.observer.refusals == [(None, 431, "head_too_large", ALICE)]


def test_behind_a_transport_that_reads_proxy_headers() -> None:
    """The client is known from the first bytes behind the PROXY header, also for invalid heads."""
    world = World(gate=GUARDED, behind_proxy_protocol=True)
    connection = ask(world, b"\x16\x03\x01", ALICE)
    assert status(connection) == 400
    assert status(ask(world, b"x" * (MAX_HEAD_BYTES + 1), BOB)) == 403
    assert world.observer.refusals == [(None, 400, "bad_head", ALICE), (None, 403, "denied", BOB)]


def test_a_slow_head_of_a_proxys_client() -> None:
    """A slow head behind a proxy names no client, since the fields so far may be the client's own."""
    world = World(gate=GUARDED, trust=FORWARDING)
    connection = ask(world, request_head()[:-1], PROXY)
    world.pass_time(HEAD_TIMEOUT_S + 1.0)
    assert status(connection) == 408
    assert world.observer.refusals == [(None, 408, "slow_head", "None")]


# Translators


@pytest.mark.parametrize(
    "host", [f"64:ff9b::{ALICE}", f"::ffff:0:{ALICE}", "2002:c633:6407::1", f"2001:db8:64::{ALICE}"]
)
def test_a_client_behind_a_translator_is_the_ipv4_client(host: str) -> None:
    """A client behind a translator is jailed, denied, capped and counted as the IPv4 client."""
    trust = TrustPolicy(nat64=(Nat64Prefix.parse("2001:db8:64::/96"),))
    world = World(trust=trust)
    world.upgraded(host)
    assert world.tokens_spent(ALICE) == 1
    assert str(world.application.sessions[0].request.client) == ALICE
    world.gate.jail.add(client_of(ALICE).key, 60.0, world.clock.seconds())
    assert world.connect(host).is_cut_off()
    denying = World(trust=trust, gate=GateConfig(deny=CidrSet([ALICE])))
    assert status(ask(denying, request_head(), host)) == 403


@pytest.mark.parametrize("host", ["2002:7f00:1::1", "64:ff9b::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::10.0.0.7"])
def test_special_addresses_inside_make_no_difference(host: str) -> None:
    """A private address inside is neither exempt from jail or quota, nor trusted."""
    world = World(gate=replace(GUARDED, http_quota=Quota.parse("1/10s burst 3")), trust=FORWARDING)
    codes = [status(ask(world, HEALTH.replace(b"\r\n\r\n", FORGED), host)) for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    client = FORWARDING.read(host)
    assert client is not None
    world.gate.jail.add(client.key, 60.0, world.clock.seconds())
    assert world.connect(host).is_cut_off()
