"""A refusal is counted, logged and a strike, once each; and proxies that hide their clients are detected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.capture import Captured
from tests.support.pyry import address
from twisted.internet.task import Clock

from pyryrelay.guard import Gate, GateConfig, JailPolicy, Reason
from pyryrelay.guard.address.clientip import Via
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.refusals import (
    FURTHER_HOPS,
    MAX_SUSPECTS,
    MIN_ATTEMPTS,
    PRIVATE_ADDRESS,
    UNTRUSTED_HEADERS,
    WINDOW_S,
    Histogram,
    ProxyDetector,
    ProxySign,
    Refusals,
    proxy_sign,
)
from pyryrelay.refusal_words import NOT_THE_CLIENTS_FAULT


class Relay:
    """Refusals with a clock and a gate that jails after three of them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gate = Gate(GateConfig(jail=JailPolicy(refusals=3, within_s=60.0), no_fault_reasons=NOT_THE_CLIENTS_FAULT))
        now = self.clock.seconds
        self.refusals = Refusals(self.gate, EventLog("full", now), now)

    def is_jailed(self, text: str = "192.0.2.7") -> bool:
        return self.gate.jail.is_jailed(address(text).key, self.clock.seconds())


@pytest.fixture
def relay() -> Relay:
    """Refusals to which nothing has happened yet."""
    return Relay()


# Refusals


def test_refusals_are_strikes(relay: Relay, log: Captured) -> None:
    """An address that is refused too often is jailed, with one line that has the duration."""
    for _ in range(3):
        assert not relay.is_jailed()
        relay.refusals.refused("server", 429, Reason.QUEUE_FULL, address())
    assert relay.is_jailed()
    assert not relay.is_jailed("192.0.2.8")
    assert log.texts == [
        "refused 192.0.2.7 429 queue_full on server (0 more left out)",
        "jailed 192.0.2.7 for 600 s, time 1 (0 more left out)",
    ]


def test_each_jailed_address_has_its_line(relay: Relay, log: Captured) -> None:
    """Two addresses that are jailed at the same moment are two lines."""
    for last in (1, 2):
        for _ in range(3):
            relay.refusals.refused(None, 404, "unknown_path", address(f"192.0.2.{last}"))
    assert [text for text in log.texts if text.startswith("jailed")] == [
        "jailed 192.0.2.1 for 600 s, time 1 (0 more left out)",
        "jailed 192.0.2.2 for 600 s, time 1 (0 more left out)",
    ]


def test_a_jailed_prefix_has_its_line(relay: Relay, log: Captured) -> None:
    """When twelve subnets of a /48 are refused once each, the whole /48 is jailed."""
    for number in range(12):
        relay.refusals.refused(None, 404, "unknown_path", address(f"2001:db8:1:{number}::1"))
    assert [text for text in log.texts if text.startswith("jailed")] == [
        "jailed 2001:db8:1::/48 for 600 s, time 1 (0 more left out)"
    ]


@pytest.mark.parametrize("reason", [Reason.RATE_LIMIT, Reason.GLOBAL_CAP, Reason.ROUTE_CAP, Reason.JAILED, "draining"])
def test_what_is_not_the_clients_fault_is_no_strike(relay: Relay, reason: str) -> None:
    """Refusals because the relay is full are no strikes."""
    for _ in range(10):
        relay.refusals.refused("server", 503, reason, address())
    assert not relay.is_jailed()
    assert relay.refusals.by_reason()[reason] == 10


def test_a_refusal_without_an_address(relay: Relay, log: Captured) -> None:
    """A refusal without an address is counted and logged, and jails no address."""
    for _ in range(10):
        relay.refusals.refused("client", 429, Reason.UNATTRIBUTABLE, None)
    assert len(relay.gate.jail) == 0
    assert relay.refusals.by_reason()["unattributable"] == 10
    assert len(log.texts) == 1


def test_a_refusal_is_counted_with_its_endpoint(relay: Relay) -> None:
    """Refusals are counted by endpoint and reason, and summed up by reason."""
    relay.refusals.refused("server", 429, Reason.ADDRESS_CAP, None)
    relay.refusals.refused("server", 400, "missing_header", None)
    relay.refusals.refused(None, 404, "unknown_path", None)
    relay.refusals.refused("elsewhere", 400, "missing_header", None)
    assert relay.refusals.counts == {
        ("server", "address_cap"): 1,
        ("server", "missing_header"): 1,
        (None, "unknown_path"): 1,
        ("elsewhere", "missing_header"): 1,
    }
    assert relay.refusals.by_reason() == {"address_cap": 1, "missing_header": 2, "unknown_path": 1}


# Proxies that hide their clients


def test_a_proxy_that_is_jailed_for_its_clients() -> None:
    """An address that forwards for others and is jailed is reported, once in a window."""
    detector = ProxyDetector()
    detector.attempted(address(), UNTRUSTED_HEADERS, 0.0)
    assert not detector.jailed(address("192.0.2.8"))
    assert detector.jailed(address()) is UNTRUSTED_HEADERS
    assert not detector.jailed(address())


def test_a_proxy_that_hides_its_clients(relay: Relay, log: Captured) -> None:
    """A proxy that hides its clients is reported once in a window, as soon as there are enough attempts."""
    for _ in range(MIN_ATTEMPTS - 1):
        relay.refusals.attempted(address(), Via.UNTRUSTED_HEADERS)
    assert log.texts == []
    for _ in range(500):
        relay.refusals.attempted(address(), Via.UNTRUSTED_HEADERS)
    (line,) = log.texts
    assert "come from 192.0.2.7, which sends forwarding headers that are not trusted" in line
    assert "--trusted-proxy" in line
    relay.clock.advance(WINDOW_S)
    for _ in range(MIN_ATTEMPTS):
        relay.refusals.attempted(address(), Via.UNTRUSTED_HEADERS)
    assert len(log.texts) == 2


@pytest.mark.parametrize(
    ("client", "via", "sign"),
    [
        ("192.0.2.7", Via.DIRECT, None),
        ("192.0.2.7", Via.UNTRUSTED_HEADERS, UNTRUSTED_HEADERS),
        ("10.0.0.7", Via.UNTRUSTED_HEADERS, UNTRUSTED_HEADERS),
        ("192.0.2.7", Via.FURTHER_HOPS, FURTHER_HOPS),
        ("172.17.0.1", Via.DIRECT, PRIVATE_ADDRESS),
        ("10.0.0.7", Via.DIRECT, PRIVATE_ADDRESS),
        ("192.168.1.1", Via.DIRECT, PRIVATE_ADDRESS),
        ("fd00::1", Via.DIRECT, PRIVATE_ADDRESS),
        ("172.15.0.1", Via.DIRECT, None),
        ("127.0.0.1", Via.DIRECT, None),
        ("::1", Via.DIRECT, None),
    ],
)
def test_signs(client: str, via: Via, sign: ProxySign | None) -> None:
    """Signs of a proxy are headers of an untrusted peer, a chain that goes on, and a private address."""
    assert proxy_sign(address(client), via) is sign


@pytest.mark.parametrize(
    ("client", "via", "what"),
    [
        ("198.51.100.250", Via.FURTHER_HOPS, "while the forwarding header names further addresses behind it"),
        ("172.17.0.1", Via.DIRECT, "which is a private address and sends no forwarding headers"),
    ],
)
def test_a_proxy_is_reported_before_it_is_jailed(relay: Relay, log: Captured, client: str, via: Via, what: str) -> None:
    """With the defaults a proxy is reported before it is jailed: 20 attempts pass and 60 are refused."""
    for _ in range(79):
        relay.refusals.attempted(address(client), via)
    (line,) = log.texts
    assert f"come from {client}, {what}: all clients behind it share one quota." in line
    assert "--trusted-proxy" in line


def test_a_proxy_that_is_jailed_early_is_reported(relay: Relay, log: Captured) -> None:
    """A proxy that a stricter jail bans early is reported with the ban."""
    for _ in range(3):
        relay.refusals.attempted(address("172.17.0.1"), Via.DIRECT)
        relay.refusals.refused("client", 429, Reason.ADDRESS_CAP, address("172.17.0.1"))
    assert log.texts[-1].startswith(
        "172.17.0.1 is jailed, which is a private address and sends no forwarding headers: all clients"
    )


@pytest.mark.parametrize(("of_one", "of_others", "warned"), [(90, 10, False), (91, 9, True), (100, 0, True)])
def test_the_share_must_be_over_nine_tenths(of_one: int, of_others: int, warned: bool) -> None:
    """An address with 90 of 100 attempts is not reported."""
    detector = ProxyDetector()
    others = [detector.attempted(address(f"192.0.2.{100 + i}"), None, 0.0) for i in range(of_others)]
    assert not any(others)
    assert any(detector.attempted(address(), UNTRUSTED_HEADERS, 0.0) for _ in range(of_one)) is warned


def test_clients_that_do_not_forward_are_not_suspected() -> None:
    """A busy client that forwards for no other is not reported."""
    detector = ProxyDetector()
    assert not any(detector.attempted(address(), None, 0.0) for _ in range(1000))


def test_a_new_window_starts_at_zero() -> None:
    """Attempts of an earlier window do not count."""
    detector = ProxyDetector()
    assert not any(detector.attempted(address(), UNTRUSTED_HEADERS, 0.0) for _ in range(MIN_ATTEMPTS - 1))
    assert not any(detector.attempted(address(), UNTRUSTED_HEADERS, WINDOW_S) for _ in range(MIN_ATTEMPTS - 1))
    assert detector.attempted(address(), UNTRUSTED_HEADERS, WINDOW_S)


def test_suspects_are_bounded() -> None:
    """Past the bound no new address is remembered, since none of so many can have nine tenths."""
    detector = ProxyDetector()
    for number in range(1000):
        assert not detector.attempted(address(f"198.51.{number // 250}.{number % 250}"), UNTRUSTED_HEADERS, 0.0)
    assert len(detector._suspects) == MAX_SUSPECTS


# Histogram


@given(st.lists(st.floats(0, 10)))
def test_a_histogram_counts_every_value_once(values: list[float]) -> None:
    """Each value is counted under the first bound that it does not exceed."""
    histogram = Histogram((1.0, 2.0, 5.0))
    for value in values:
        histogram.observe(value)
    below = [sum(value <= bound for value in values) for bound in (1.0, 2.0, 5.0, 10.0)]
    assert [sum(histogram.counts[: i + 1]) for i in range(4)] == below
    assert histogram.total == pytest.approx(sum(values))


def test_decisions_are_observed(relay: Relay) -> None:
    """The time that each decision took is in the histogram."""
    relay.refusals.decided(0.25)
    assert (relay.refusals.decisions.total, relay.refusals.decisions.counts[-1]) == (0.25, 1)
