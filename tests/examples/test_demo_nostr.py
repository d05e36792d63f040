"""The demonstration of the Nostr relay checks what it demonstrates, and its exit code tells whether all has passed."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter

import pytest
from coincurve import PublicKeyXOnly
from tests.support.demonstration import passes

import demo_nostr as demo
from demo_nostr import BURST, FORGED, NOTES, SPAM, Observed, Person, paint, summary

OVER_QUOTA = "rate-limited: too many events, try again in N s"
WRONG_SIGNATURE = "invalid: signature does not verify"
PRIVATE = ["CLOSED", "stored", "auth-required: these kinds are for their recipients"]


def _observed(**changes: object) -> Observed:
    """Return what a demonstration sees in which all goes well, except for `changes`."""
    well: dict[str, object] = {
        "quiet_s": [0.001] * NOTES,
        "spammed_s": [0.002] * NOTES,
        "answers": Counter({"OK": BURST, OVER_QUOTA: SPAM - BURST, WRONG_SIGNATURE: FORGED}),
        "strangers": [["AUTH", "challenge"], PRIVATE, ["EOSE", "stored", ["finish"]]],
        "promised": {"a", "b"},
        "found": {"a", "b"},
        "deleted": "c",
        "log_lines": ["refused EVENT of 127.0.0.2: rate_limit (0 more left out)"],
        "metrics": [
            'pyryrelay_nostr_events_stored{class="regular"} 2.0',
            "pyryrelay_nostr_subscriptions 1.0",
            "pyryrelay_nostr_database_bytes 4096.0",
        ],
        "farewells": [("error: the relay is shutting down", 1001)],
        "exit_code": 0,
    }
    return Observed(**{**well, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_demonstration_passes() -> None:
    """With a real relay all checks pass, without colour in a pipe, and the exit code is 0."""
    latency = r"median \d+\.\d ms, worst \d+\.\d ms"
    patterns = (
        r"relay   twistd pyryrelay --nostr listens on ws://127\.0\.0\.1:\d+, metrics on \d+",
        r'bob     follows alice, and gets \["EOSE", "alice", \["finish"\]\]',
        rf"alice   publishes {NOTES} notes; from her to bob, over the disk: {latency}",
        rf"spammer is told {FORGED} times: {WRONG_SIGNATURE}",
        r"bob     writes to alice in private; somebody asks for it, and gets \[\"CLOSED\", .*\]",
        rf"passed live, under spam: {NOTES} notes, {latency}",
        r" +refused EVENT of 127\.0\.0\.2: rate_limit \(0 more left out\)",
        rf"passed durability: all {2 * NOTES} promised events are there after the kill",
        r"passed end: clients were told, and closed with 1001, exit code 0",
        r"All checks passed, in \d+\.\d s\.",
    )
    passes(demo.__file__, patterns, PYRYRELAY_NOSTR_EVENT_QUOTA="1/hour")


def test_a_good_run_passes_every_check() -> None:
    """A run without a failure reports success."""
    assert [passed for passed, _, _ in summary(_observed())] == [True] * 10


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"quiet_s": [0.001]}, "live"),
        ({"spammed_s": [0.001]}, "live, under spam"),
        ({"answers": Counter({"OK": SPAM, WRONG_SIGNATURE: FORGED})}, "spam"),
        ({"answers": Counter({"OK": BURST, OVER_QUOTA: SPAM - BURST + FORGED})}, "forgery"),
        ({"strangers": [PRIVATE, ["EVENT", "stored", {}]]}, "privacy"),
        ({"strangers": [["EOSE", "stored"]]}, "privacy"),
        ({"found": {"a"}}, "durability"),
        ({"promised": set(), "found": set()}, "durability"),
        ({"deleted": "a"}, "deletion"),
        ({"log_lines": ["refused"] * SPAM}, "log"),
        ({"log_lines": []}, "log"),
        ({"metrics": []}, "metrics"),
        ({"farewells": [("", 1006)]}, "end"),
        ({"exit_code": 1}, "end"),
    ],
)
def test_a_failed_check_is_shown(changes: dict[str, object], failed: str) -> None:
    """A check that has failed is shown in the summary."""
    shown = [line.partition(":")[0] for passed, line, _ in summary(_observed(**changes)) if not passed]
    assert failed in shown


def test_events_are_those_of_nip_01() -> None:
    """The id of an event is the hash of its fields, and the signature is its author's."""
    event = Person().event('Grüße, "Nostr"\n', kind=1, tags=[["t", "x"]])
    fields = [0, *(event[name] for name in ("pubkey", "created_at", "kind", "tags", "content"))]
    digest = hashlib.sha256(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()).digest()
    assert event["id"] == digest.hex()
    assert PublicKeyXOnly(bytes.fromhex(event["pubkey"])).verify(bytes.fromhex(event["sig"]), digest)


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: str, coloured: bool
) -> None:
    """Escape sequences are written to terminals only, and never if NO_COLOR is set."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert paint(demo.GREEN, "passed") == ("\x1b[32mpassed\x1b[0m" if coloured else "passed")
