"""The demonstration checks what it demonstrates, and its exit code tells whether all checks have passed."""

from __future__ import annotations

import sys

import pytest
from tests.support.demonstration import passes

import demo
from demo import ATTEMPTS, BURST, FRAMES, PHONES, Observed, paint, summary

REFUSED = 'pyryrelay_refusals_total{reason="rate_limit"}'
IGNORED = 'pyryrelay_refusals_total{reason="queue_full"}'
FORWARDED = "pyrycode_relay_frames_forwarded_total"


def _observed(**changes: object) -> Observed:
    """Return what a demonstration sees in which all goes well, except for `changes`."""
    frames = 2 * PHONES * FRAMES
    refused = ATTEMPTS - BURST
    well: dict[str, object] = {
        "to_binary_s": [0.001] * frames,
        "to_phone_s": [0.001] * frames,
        "admitted": BURST,
        "refused": refused,
        "retry_after_s": {6, 12, 386},
        "log_lines": ["refused 127.0.0.2 429 rate_limit on client (0 more left out)"],
        "metrics": [
            "# HELP pyryrelay_refusals_total Requests that were refused before an upgrade.",
            f'{FORWARDED}{{direction="phone_to_binary"}} {frames}.0',
            f'{FORWARDED}{{direction="binary_to_phone"}} {frames}.0',
            f"{REFUSED} 64.0",
            f"{IGNORED} {refused - 64}.0",
        ],
        "close_codes": [1001] * (1 + PHONES),
        "exit_code": 0,
    }
    return Observed(**{**well, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_demonstration_passes() -> None:
    """With a real relay all checks pass, without colour in a pipe, and the exit code is 0."""
    frames = 2 * PHONES * FRAMES
    latency = r"median \d+\.\d ms, worst \d+\.\d ms"
    patterns = (
        r"relay   twistd pyryrelay listens on 127\.0\.0\.1:\d+, metrics on 127\.0\.0\.1:\d+",
        r'binary  gets    {"conn_id": "client-demo-[0-9a-f]{8}", "frame": {"sent": [\d.e-]+}}',
        rf"passed phones to binary: {frames} frames, {latency}",
        rf"passed binary to phones: {frames} frames, {latency}",
        rf"passed flood: \d+ of {ATTEMPTS} were admitted, \d+ were refused with 429 and Retry-After of 6 to \d+ s",
        r" +refused 127\.0\.0\.2 429 rate_limit on client \(0 more left out\)",
        rf' +{FORWARDED}{{direction="phone_to_binary"}} {frames}\.0',
        r"passed end: all peers were closed with 1001, exit code 0",
        r"All checks passed, in \d+\.\d s\.",
    )
    passes(demo.__file__, patterns, PYRYRELAY_UPGRADE_QUOTA="1/hour")


def test_a_good_run_passes_every_check() -> None:
    """A run without a failure reports success."""
    assert [passed for passed, _, _ in summary(_observed())] == [True] * 6


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"to_binary_s": [0.001]}, "phones to binary"),
        ({"to_phone_s": [0.001]}, "binary to phones"),
        ({"admitted": BURST + 10, "refused": ATTEMPTS - BURST - 10}, "flood"),
        ({"admitted": BURST - 1}, "flood"),
        ({"log_lines": ["refused"] * ATTEMPTS}, "log"),
        ({"log_lines": []}, "log"),
        ({"metrics": []}, "metrics"),
        ({"close_codes": [1001, 1006, 1001]}, "end"),
        ({"exit_code": 1}, "end"),
    ],
)
def test_a_failed_check_is_shown(changes: dict[str, object], failed: str) -> None:
    """A check that has failed is shown in the summary."""
    shown = [line.partition(":")[0] for passed, line, _ in summary(_observed(**changes)) if not passed]
    assert failed in shown


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
