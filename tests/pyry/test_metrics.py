"""The metrics of binaries and phones: those of the specification, complete from the first scrape and monotonic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.capture import captured
from tests.support.panels import check_panel
from tests.support.pyry import A, World, envelope
from tests.support.scrape import Samples, key, samples_of

from pyryrelay.guard import Reason
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.metrics import exposition
from pyryrelay.pyry.applications import REFUSAL_WORDS
from pyryrelay.pyry.log import PyryLog
from pyryrelay.pyry.metrics import PANEL, PyryCollector, figures
from pyryrelay.pyry.relay import ENDPOINTS
from pyryrelay.refusal_words import RefusalWord

TOKEN = "a-token-that-must-stay-secret"
UPGRADES = "pyrycode_relay_ws_upgrade_attempts_total"

SPECIFIED: dict[str, list[dict[str, str]]] = {
    "pyrycode_relay_connected_binaries": [{}],
    "pyrycode_relay_connected_phones": [{}],
    "pyrycode_relay_ws_upgrade_attempts_total": [
        {"endpoint": endpoint, "outcome": outcome}
        for endpoint in ("server", "client")
        for outcome in (
            "accept",
            "reject_headers",
            "reject_409",
            "reject_404",
            "reject_429",
            "reject_rate_limit",
        )
    ],
    "pyrycode_relay_register_failures_total": [
        {"kind": kind} for kind in ("no_server", "server_in_use", "phones_at_cap", "ratelimit")
    ],
    "pyrycode_relay_frames_forwarded_total": [
        {"direction": direction} for direction in ("phone_to_binary", "binary_to_phone")
    ],
    "pyrycode_relay_grace_expiries_total": [{}],
}


class Metrics:
    """A relay, the refusals that are counted for it, and the page with its metrics."""

    def __init__(self) -> None:
        self.world = World()
        self.refused: Counter[tuple[str | None, str]] = Counter()
        self.scrape: Callable[[], bytes] = exposition([PyryCollector(self.world.relay, lambda: self.refused)])

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


def test_the_specified_names_exist_from_the_first_scrape(metrics: Metrics) -> None:
    """Every specified metric exists from the first scrape with all its label values, at 0."""
    samples = metrics.samples()
    for name, labels in SPECIFIED.items():
        found = [dict(key) for found, key in samples if found == name]
        assert sorted(found, key=str) == sorted(labels, key=str)
    wakes = {dict(key)["outcome"] for name, key in samples if name == "pyrycode_relay_push_wakes_total"}
    assert "dropped" in wakes
    assert not any(samples.values())


def test_names_are_ours(metrics: Metrics) -> None:
    """Every name begins with the prefix of the specification or of the package."""
    for name, _ in metrics.samples():
        assert name.startswith(("pyrycode_relay_", "pyryrelay_"))


def test_gauges(metrics: Metrics) -> None:
    """Gauges show the peers that are connected."""
    world = metrics.world
    binary = world.binary()
    world.phone()
    world.phone()
    assert metrics.value("pyrycode_relay_connected_binaries") == 1
    assert metrics.value("pyrycode_relay_connected_phones") == 2
    binary.drops()
    assert metrics.value("pyrycode_relay_connected_binaries") == 0


def test_what_the_relay_counts(metrics: Metrics) -> None:
    """Upgrades, failures, frames, drops, wakes and expired graces are counted."""
    world = metrics.world
    world.phone()
    binary, phone = world.binary(), world.phone()
    phone.says(b"1", b"2")
    binary.says(envelope(phone.conn_id, b"1"), b"nope", b'{"push_wake":{"platform":"fcm","token":"t"}}')
    binary.drops()
    world.clock.advance(30)
    assert metrics.value(UPGRADES, endpoint="server", outcome="accept") == 1
    assert metrics.value(UPGRADES, endpoint="client", outcome="accept") == 1
    assert metrics.value(UPGRADES, endpoint="client", outcome="reject_404") == 1
    assert metrics.value("pyrycode_relay_register_failures_total", kind="no_server") == 1
    assert metrics.value("pyrycode_relay_frames_forwarded_total", direction="phone_to_binary") == 2
    assert metrics.value("pyrycode_relay_frames_forwarded_total", direction="binary_to_phone") == 1
    assert metrics.value("pyryrelay_envelopes_dropped_total", kind="malformed") == 1
    assert metrics.value("pyrycode_relay_push_wakes_total", outcome="dropped") == 1
    assert metrics.value("pyrycode_relay_grace_expiries_total") == 1


@pytest.mark.parametrize("endpoint", ["server", "client"])
@pytest.mark.parametrize("reason", ["bad_server_id", "missing_header", "repeated_header", "bad_handshake"])
def test_a_refused_header_is_an_attempt(metrics: Metrics, endpoint: str, reason: str) -> None:
    """A refused header counts as reject_headers on its endpoint, and not as a rate limit."""
    metrics.refused[endpoint, reason] += 1
    assert metrics.value(UPGRADES, endpoint=endpoint, outcome="reject_headers") == 1
    assert metrics.value("pyrycode_relay_register_failures_total", kind="ratelimit") == 0


@pytest.mark.parametrize("reason", [*Reason, RefusalWord.DRAINING])
def test_a_refusal_of_the_gate_is_an_attempt(metrics: Metrics, reason: str) -> None:
    """A refusal of the gate counts as reject_rate_limit on its endpoint, and as a failure to register."""
    metrics.refused["client", reason] += 1
    assert metrics.value(UPGRADES, endpoint="client", outcome="reject_rate_limit") == 1
    assert metrics.value("pyrycode_relay_register_failures_total", kind="ratelimit") == 1


def test_a_refusal_off_every_endpoint_is_no_attempt(metrics: Metrics) -> None:
    """A refusal on another path counts as no attempt."""
    metrics.refused[None, "unknown_path"] += 1
    assert not any(metrics.samples().values())


def test_an_attempt_is_counted_with_its_endpoint(metrics: Metrics) -> None:
    """Reasons of the gate are counted as rate limits, all others as headers, on the endpoints of this protocol."""
    for route, reason in (
        ("server", Reason.ADDRESS_CAP),
        ("server", "missing_header"),
        (None, "unknown_path"),
        ("elsewhere", "missing_header"),
    ):
        metrics.refused[route, reason] += 1
    outcomes = {key: value for (name, key), value in metrics.samples().items() if name == UPGRADES and value}
    assert outcomes == {
        (("endpoint", "server"), ("outcome", "reject_rate_limit")): 1,
        (("endpoint", "server"), ("outcome", "reject_headers")): 1,
    }


def test_the_endpoints_are_those_of_the_specification() -> None:
    """The specification calls the paths of binaries and phones ``server`` and ``client``."""
    assert ENDPOINTS == ("server", "client")


# Properties


ACTIONS: list[Callable[[Metrics, str], object]] = [
    lambda metrics, text: metrics.world.binary(version=text or "x"),
    lambda metrics, text: metrics.world.phone(fields={"x-pyrycode-device-name": text, "x-pyrycode-token": TOKEN}),
    lambda metrics, text: metrics.world.phone("unknown", {"x-pyrycode-token": TOKEN}),
    lambda metrics, text: metrics.world.clock.advance(31),
    lambda metrics, text: metrics.world.binary().drops(),
    lambda metrics, text: metrics.world.binary().says(text.encode("utf-8", "replace"), b"{}"),
    lambda metrics, text: metrics.refused.update([("server", Reason.RATE_LIMIT)]),
    lambda metrics, text: metrics.refused.update([(None, "unknown_path")]),
]


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.text(max_size=20)), max_size=20))
def test_counters_only_grow_and_labels_never_change(
    history: list[tuple[Callable[[Metrics, str], object], str]],
) -> None:
    """Whatever clients send, no label appears or vanishes, and no total decreases."""
    metrics = Metrics()
    before = metrics.samples()
    for action, text in history:
        action(metrics, text)
        after = metrics.samples()
        assert after.keys() == before.keys()
        assert all(after[key] >= before[key] for key in before if key[0].endswith("_total"))
        before = after
    assert TOKEN.encode() not in metrics.scrape()
    assert A.encode() not in metrics.scrape()


def test_the_token_is_neither_logged_nor_exposed(metrics: Metrics) -> None:
    """A whole session with the real log leaves no trace of its token."""
    world = metrics.world
    world.relay.events = PyryLog(EventLog("full", world.clock.seconds))
    with captured() as log:
        binary = world.binary(**{"x-pyrycode-token": TOKEN})
        phone = world.phones
        assert phone.name == "client"
        world.phone(fields={"x-pyrycode-token": TOKEN}).says(b'{"t":"%s"}' % TOKEN.encode(), b"nope" + TOKEN.encode())
        binary.says(b'{"push_wake":{"platform":"fcm","token":"%s"}}' % TOKEN.encode())
        binary.says(b'{"conn_id":"%s","frame":1,"token":"%s"}' % (TOKEN.encode(), TOKEN.encode()))
        binary.drops()
        world.clock.advance(60)
    assert len(log.lines) >= 5
    assert TOKEN not in repr(log.events) + "\n".join(log.lines)
    assert TOKEN.encode() not in metrics.scrape()


def test_figures() -> None:
    """What operators watch has a fixed set of names, and follows the counters."""
    world = World()
    before = figures(world.relay)
    binary = world.binary(A)
    phone = world.phone(A)
    phone.says(b"1")
    binary.says(envelope("no-such-id", b"1"))
    after = figures(world.relay)
    assert before.keys() == after.keys()
    assert (after["binaries"], after["phones"]) == (1, 1)
    assert after["frames_total.phone_to_binary"] == 1
    assert after["envelopes_dropped_total.unknown_conn_id"] == 1


def test_the_panel() -> None:
    """The plots of the dashboard show figures that there are, and the refusal words are explained."""
    check_panel(PANEL, figures(World().relay), REFUSAL_WORDS)
