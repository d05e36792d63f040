"""The guard's counters, gauges and histograms, and refusals that are dropped instead of answered."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tests.end_to_end.admin import told
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import GENEROUS, asynchronous, eventually, http_get, run_twistd
from tests.end_to_end.raw import ask, head, raw_peer, silence, statuses, upgrade

ATTEMPT = upgrade("/v1/client", "unclaimed")
NOTHING = head("/nothing", ("Host", "relay"))


@pytest.mark.parametrize(
    ("reason", "options", "request_"),
    [
        ("unknown_path", (), NOTHING),
        ("bad_server_id", (), upgrade("/v1/client", "not acceptable")),
        ("bad_head", (), b"nonsense\r\n\r\n"),
        ("rate_limit", ("--upgrade-quota", "1/hour burst 1"), ATTEMPT),
        ("http_rate_limit", ("--http-quota", "1/hour burst 1"), NOTHING),
        ("denied", ("--deny", "127.0.0.1"), ATTEMPT),
    ],
)
@asynchronous
async def test_refusals_that_are_dropped(
    reason: str, options: tuple[str, ...], request_: bytes, start_relay: StartRelay
) -> None:
    """A reason that is set to drop gets no answer, and is counted and logged; other reasons are answered."""
    relay = start_relay(*options, "--refusal", f"{reason}=drop")
    if "burst 1" in " ".join(options):
        await statuses(relay.address, request_, 1)
    assert await silence(relay.address, request_)
    assert relay.metrics()[f'pyryrelay_refusals_total{{reason="{reason}"}}'] == 1
    assert f" {reason} on " in relay.log()
    bad_method = head("/healthz", ("Host", "relay"), method="POST")
    assert (await ask(relay.address, bad_method, source="127.0.0.2")).status == 405


def test_a_refusal_of_no_known_reason(tmp_path: Path) -> None:
    """A misspelt reason stops the start."""
    outcome = run_twistd(tmp_path, "--refusal", "unknown_paths=drop")
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert "--refusal" in line
    assert "unknown_paths" in line


@asynchronous
async def test_gauges_of_the_guard(start_relay: StartRelay) -> None:
    """Gauges show jailed and remembered addresses, connections by kind, and connections per address."""
    relay = start_relay(*GENEROUS, "--jail-after", "60/minute", "--trust-x-forwarded-for")
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 0
    for client in ("192.0.2.1", "192.0.2.2"):
        told(relay, "jail", "add", client)
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 2
    told(relay, "jail", "release", "192.0.2.1")
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 1
    async with contextlib.AsyncExitStack() as stack:
        for number, client in enumerate(["198.51.100.1", *["198.51.100.2"] * 3, *["198.51.100.3"] * 5]):
            forwarded = ("X-Forwarded-For", client)
            await stack.enter_async_context(raw_peer(relay, f"server-{number}", "/v1/server", forwarded))
        metrics = relay.metrics()
        name = "pyryrelay_connections_per_address"
        bounds = ("1.0", "2.0", "4.0", "8.0", "+Inf")
        assert [metrics[f'{name}_bucket{{le="{bound}"}}'] for bound in bounds] == [1, 1, 2, 3, 3]
        assert (metrics[f"{name}_gcount"], metrics[f"{name}_gsum"]) == (3, 9)
        assert metrics['pyryrelay_connections{kind="server"}'] == 9
    await relay.all_leases_end()
    assert relay.metrics()['pyryrelay_connections_per_address_bucket{le="+Inf"}'] == 0


@asynchronous
async def test_the_jailed_gauge_is_of_now(start_relay: StartRelay) -> None:
    """An address whose ban has ended is remembered, and not counted as jailed."""
    relay = start_relay("--trust-x-forwarded-for", "--jail-after", "5/day", "--jail-time", "1", "--http-quota", "off")
    nothing = head("/nothing", ("Host", "relay"), ("X-Forwarded-For", "192.0.2.1"))
    assert await statuses(relay.address, nothing, 5) == [404] * 5
    gauge = "pyryrelay_jailed_addresses"
    await relay.log_will_have("jailed 192.0.2.1 for 1 s")
    await eventually(lambda: not told(relay, "jail", "list"), "the time is over")
    assert relay.metrics()[gauge] == 0


@asynchronous
async def test_time_to_decide(start_relay: StartRelay) -> None:
    """Every complete request head is one decision in the histogram."""
    relay = start_relay("--upgrade-quota", "1/hour burst 2")
    await statuses(relay.address, ATTEMPT, 5)
    await statuses(relay.address, NOTHING, 2)
    metrics = relay.metrics()
    assert metrics["pyryrelay_decision_seconds_count"] == 7
    assert 0 < metrics["pyryrelay_decision_seconds_sum"] < 7
    buckets = [value for name, value in metrics.items() if name.startswith("pyryrelay_decision_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 7


@asynchronous
async def test_no_address_is_a_label(start_relay: StartRelay) -> None:
    """Metrics hold no address, and nothing that a client sent."""
    limits = ("--jail-after", "5/day", "--upgrade-quota", "1/hour burst 1", "--max-connections-per-address", "1")
    relay = start_relay("--trust-x-forwarded-for", *limits)
    for number in range(8):
        fields = [("X-Forwarded-For", "192.0.2.77"), ("X-Secret", f"word-{number}")]
        with contextlib.suppress(Exception):
            await statuses(relay.address, upgrade("/v1/client", f"guess-{number}", *fields), 1)
    assert told(relay, "jail", "list")
    status, text = http_get(relay.admin_port, "/metrics")
    assert status == 200
    for word in ("192.0.2", "word-", "guess-"):
        assert word not in text
