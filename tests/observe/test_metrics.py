"""The metrics of the shared rooms: complete from the first scrape, monotonic, and labelled with fixed words only."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CONTENT_TYPE_LATEST
from tests.support.capture import captured
from tests.support.pyry import address
from tests.support.scrape import Samples, key, samples_of
from twisted.internet.task import Clock

import pyryrelay
from pyryrelay.config.guard_options import all_reasons
from pyryrelay.guard import Gate, Lease, Reason
from pyryrelay.guard.address.clientip import Via
from pyryrelay.mounts import Settings
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.metrics import CONTENT_TYPE, RelayCollector, exposition
from pyryrelay.observe.refusals import Refusals
from pyryrelay.refusal_words import RefusalWord

PACKAGE = Path(pyryrelay.__file__).parent
ENDPOINTS = ("server", "client")
WORDS = Settings.protocol_words()


class Metrics:
    """A gate, refusals, and the page with their metrics."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gate = Gate()
        now = self.clock.seconds
        self.refusals = Refusals(self.gate, EventLog("full", now), now)
        collector = RelayCollector(self.gate, self.refusals, ENDPOINTS, all_reasons(WORDS), now)
        self.scrape: Callable[[], bytes] = exposition([collector])

    def samples(self) -> Samples:
        """Return one parsed scrape: (name, labels) to value."""
        return samples_of(self.scrape().decode())

    def value(self, name: str, **labels: str) -> float:
        """Return one sample."""
        return self.samples()[key(name, labels)]


@pytest.fixture
def metrics() -> Metrics:
    """Metrics to which nothing has happened yet."""
    return Metrics()


def test_every_reason_exists_from_the_first_scrape(metrics: Metrics) -> None:
    """Every reason has a sample for each endpoint from the first scrape, and every sample is 0."""
    samples = metrics.samples()
    assert not any(samples.values())
    for endpoint in ("server", "client"):
        for reason in [*RefusalWord, *WORDS, *(reason.value for reason in Reason)]:
            assert ("pyryrelay_refused_upgrades_total", (("endpoint", endpoint), ("reason", reason))) in samples


def test_names_are_ours(metrics: Metrics) -> None:
    """Every name begins with the prefix of the package."""
    for name, _ in metrics.samples():
        assert name.startswith("pyryrelay_")


def test_the_content_type_is_of_the_format() -> None:
    """The content type of the page is that of the format that the library writes."""
    assert CONTENT_TYPE == CONTENT_TYPE_LATEST


def test_gauges(metrics: Metrics) -> None:
    """Gauges show the connections that are open and the uptime."""
    lease = metrics.gate.admit(address(), "client", 0.0)
    assert isinstance(lease, Lease)
    handshake = metrics.gate.arrive(address(), 0.0)
    assert isinstance(handshake, Lease)
    metrics.clock.advance(7)
    assert metrics.value("pyryrelay_connections", kind="client") == 1
    assert metrics.value("pyryrelay_connections", kind="server") == 0
    assert metrics.value("pyryrelay_connections", kind="handshake") == 1
    assert metrics.value("pyryrelay_tracked_addresses") == 1
    assert metrics.value("pyryrelay_uptime_seconds") == 7
    lease.release()
    handshake.release()
    assert metrics.value("pyryrelay_connections", kind="client") == 0
    assert metrics.value("pyryrelay_connections", kind="handshake") == 0


@pytest.mark.parametrize("endpoint", ["server", "client"])
@pytest.mark.parametrize("reason", ["bad_server_id", "missing_header", "repeated_header", "bad_handshake"])
def test_a_refused_upgrade_is_counted(metrics: Metrics, endpoint: str, reason: str) -> None:
    """A refused upgrade counts on its endpoint and in the sum, by its reason."""
    metrics.refusals.refused(endpoint, 400, reason, address())
    assert metrics.value("pyryrelay_refused_upgrades_total", endpoint=endpoint, reason=reason) == 1
    assert metrics.value("pyryrelay_refusals_total", reason=reason) == 1


@pytest.mark.parametrize("reason", [Reason.RATE_LIMIT, Reason.UNATTRIBUTABLE, Reason.GLOBAL_CAP, Reason.ADDRESS_CAP])
def test_a_refusal_of_the_gate_is_counted(metrics: Metrics, reason: Reason) -> None:
    """A refusal of the gate counts by its reason, as any other does."""
    metrics.refusals.refused("client", 429, reason, None)
    assert metrics.value("pyryrelay_refusals_total", reason=reason.value) == 1


def test_a_refusal_off_every_endpoint_is_no_attempt(metrics: Metrics) -> None:
    """A refusal on another path has its reason and its log line, and counts as no attempt."""
    with captured() as log:
        metrics.refusals.refused(None, 404, "unknown_path", address())
    assert metrics.value("pyryrelay_refusals_total", reason="unknown_path") == 1
    refused = [n for (name, _), n in metrics.samples().items() if name == "pyryrelay_refused_upgrades_total"]
    assert not any(refused)
    assert log.texts == ["refused 192.0.2.7 404 unknown_path on - (0 more left out)"]


# The set of reasons is closed.


POSITIONS = {"HttpRefusal": 1}
TRANSPORT = ("http", "listen", "websocket")
POSITIONS_IN_TRANSPORT = POSITIONS | {"_drop": 0, "_refuse": 1, "refuse": 3, "refuse_unread": 4, "refused": 2}


def reasons_in(path: Path) -> Iterator[ast.expr]:
    """Return every expression given as the reason of a refusal: the argument after a status."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        position = POSITIONS_IN_TRANSPORT.get(name) if path.parent.name in TRANSPORT else POSITIONS.get(name)
        if position is not None:
            yield from node.args[position : position + 1]
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "reason")


def reasons_of(*rooms: str) -> list[ast.expr]:
    """Return the expressions of all modules of these rooms."""
    return [reason for room in rooms for path in (PACKAGE / room).glob("*.py") for reason in reasons_in(path)]


REASONS = reasons_of(*TRANSPORT, *(protocol.name for protocol in Settings.protocols))


def fixed_word(reason: ast.expr) -> str | None:
    """Return the word that an expression always is, as a literal or as a `RefusalWord`; None if it is not fixed."""
    if isinstance(reason, ast.Constant):
        return str(reason.value)
    if isinstance(reason, ast.Attribute) and ast.unparse(reason.value) == RefusalWord.__name__:
        return RefusalWord[reason.attr].value
    return None


def test_every_reason_has_a_sample(metrics: Metrics) -> None:
    """The reasons in the exposition are exactly those that the source can refuse with."""
    given = {word for reason in REASONS if (word := fixed_word(reason)) is not None}
    labels = {dict(key)["reason"] for name, key in metrics.samples() if name == "pyryrelay_refusals_total"}
    assert labels == given | {reason.value for reason in Reason}
    assert given == {*RefusalWord, *WORDS}


def test_reasons_are_fixed_words() -> None:
    """A reason that is no fixed word is the reason of another refusal, passed on."""
    assert len(REASONS) > 10
    others = {ast.unparse(reason) for reason in REASONS if fixed_word(reason) is None}
    assert all(other == "reason" or other.endswith(".reason") for other in others)


def test_the_transport_gives_its_reasons_by_their_names() -> None:
    """No reason of the transport is written as a literal: `RefusalWord` is the only place that spells it."""
    assert [reason.value for reason in reasons_of(*TRANSPORT) if isinstance(reason, ast.Constant)] == []


def test_jailed_addresses(metrics: Metrics) -> None:
    """The gauge counts addresses that are jailed now, and not those whose time is over."""
    metrics.gate.jail.add(address().key, 60.0, 0.0)
    assert metrics.value("pyryrelay_jailed_addresses") == 1
    metrics.clock.advance(60)
    assert metrics.value("pyryrelay_jailed_addresses") == 0


def test_connections_per_address(metrics: Metrics) -> None:
    """The histogram shows how many addresses hold how many connections, under fixed bounds."""
    for last, held in ((1, 1), (2, 2), (3, 3), (4, 20)):
        for _ in range(held):
            assert isinstance(metrics.gate.leases.take_connection(address(f"192.0.2.{last}").key, "client"), Lease)
    name = "pyryrelay_connections_per_address"
    found = {le: metrics.value(f"{name}_bucket", le=le) for le in ("1.0", "2.0", "4.0", "16.0", "32.0", "+Inf")}
    assert found == {"1.0": 1, "2.0": 2, "4.0": 3, "16.0": 3, "32.0": 4, "+Inf": 4}
    assert metrics.value(f"{name}_gcount") == 4
    assert metrics.value(f"{name}_gsum") == 26


def test_time_to_decide(metrics: Metrics) -> None:
    """The histogram of decisions is cumulative, and has their count and sum."""
    for seconds in (10e-6, 20e-6, 300e-6, 1.0):
        metrics.refusals.decided(seconds)
    name = "pyryrelay_decision_seconds"
    found = {le: metrics.value(f"{name}_bucket", le=le) for le in ("2e-05", "0.0002", "0.0005", "0.01", "+Inf")}
    assert found == {"2e-05": 2, "0.0002": 2, "0.0005": 3, "0.01": 3, "+Inf": 4}
    assert metrics.value(f"{name}_count") == 4
    assert metrics.value(f"{name}_sum") == pytest.approx(1.00033)


# Properties


ACTIONS: list[Callable[[Metrics], object]] = [
    lambda metrics: metrics.clock.advance(31),
    lambda metrics: metrics.refusals.refused("server", 429, Reason.RATE_LIMIT, address()),
    lambda metrics: metrics.refusals.refused(None, 404, "unknown_path", None),
    lambda metrics: metrics.refusals.attempted(address(), Via.UNTRUSTED_HEADERS),
    lambda metrics: metrics.refusals.decided(0.001),
    lambda metrics: metrics.gate.admit(address(), "server", metrics.clock.seconds()),
]


@given(st.lists(st.sampled_from(ACTIONS), max_size=20))
def test_counters_only_grow_and_labels_never_change(history: list[Callable[[Metrics], object]]) -> None:
    """Whatever happens, no label appears or vanishes, and no total decreases."""
    metrics = Metrics()
    before = metrics.samples()
    for action in history:
        action(metrics)
        after = metrics.samples()
        assert after.keys() == before.keys()
        assert all(after[key] >= before[key] for key in before if key[0].endswith("_total"))
        before = after
