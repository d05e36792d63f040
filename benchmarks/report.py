"""Run every benchmark in turn, and write docs/performance.md and its plots.

Each script runs in a process of its own and writes its rows to ``build/bench``. ``--reuse`` measures nothing, and
writes the page from the existing rows. ``--quick`` measures shorter and less exactly, in about six minutes, and writes
nothing. The plots need matplotlib; without it they are not updated. Exits with 1 if a script failed. A missed target
is shown, but is no failure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import _page
import _plots
from _results import Row
from _rig import ROOT, machine

PAGE, IMAGES, RESULTS = ROOT / "docs/performance.md", ROOT / "docs/images", ROOT / "build/bench"
FLOOD = "flood"
DURATIONS_S = {
    "startup": (20, 4),
    "upgrades": (30, 5),
    "hand_over": (30, 6),
    "workers": (85, 35),
    "refusals": (45, 7),
    "memory": (45, 6),
    "tracked": (25, 5),
    "lists": (12, 2),
    "shared_limits": (60, 40),
    "cluster": (45, 15),
    "heads": (12, 3),
    "stalls": (25, 5),
    "fairness": (80, 30),
    "tls": (110, 45),
    "streaming": (145, 9),
    "roundtrips": (60, 5),
    "growth": (45, 5),
    "slow_lines": (95, 35),
    "nostr_ingest": (75, 20),
    "nostr_queries": (200, 35),
    "nostr_fanout": (90, 15),
    "nostr_hosts": (60, 20),
    "nostr_memory": (45, 20),
    FLOOD: (150, 12),
}
"""The scripts in order, with their approximate durations in seconds, in full and with ``--quick``."""


def run(script: str, extra: Sequence[str], expected_s: float) -> str:
    """Run a script, show its progress, and return its output."""
    rows, printed = RESULTS / f"{script}.json", RESULTS / f"{script}.txt"
    rows.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), "--json", str(rows), *extra]
    began_s = time.monotonic()
    with printed.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output)
        try:
            while process.poll() is None:
                if sys.stderr.isatty():
                    spent_s = time.monotonic() - began_s
                    print(f"\r    {spent_s:3.0f} of about {expected_s:.0f} s ", end="", file=sys.stderr, flush=True)
                time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    return printed.read_text(encoding="utf-8")


def run_all(extra: Sequence[str], *, quick: bool) -> None:
    """Run all scripts, and show the remaining time."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    left_s = {script: durations_s[quick] for script, durations_s in DURATIONS_S.items()}
    for number, script in enumerate(DURATIONS_S, 1):
        total_s = sum(left_s.values())
        expected_s = left_s.pop(script)
        began_s = time.monotonic()
        progress = f"[{number}/{len(DURATIONS_S)}] {script}"
        print(f"==> {progress}: about {expected_s} s, {_minutes(total_s)} for all remaining", flush=True)
        text = run(script, extra if script != FLOOD else [word for word in extra if word == "--quick"], expected_s)
        print(f"\n{text.strip()}\n\n    took {time.monotonic() - began_s:.0f} s\n", flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def rows_of(script: str) -> list[Row]:
    """Return the rows of a script, if there are any."""
    file = RESULTS / f"{script}.json"
    if not file.exists():
        return []
    return [_page.read_row(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def write(found: dict[str, list[Row]]) -> None:
    """Write the generated sections of the page, and the plots."""
    parts = {script: _page.short_table(rows) for script, rows in found.items() if rows and script != FLOOD}
    if found[FLOOD]:
        parts[FLOOD] = _page.tables((RESULTS / f"{FLOOD}.txt").read_text(encoding="utf-8"))
    every_row = [row for rows in found.values() for row in rows]
    described = re.sub(r"(Linux \d+\.\d+)[^;]*", r"\1", machine())
    parts["machine"] = f"{described}; {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    parts["targets"] = _page.tally(every_row)
    PAGE.write_text(_page.fill(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")
    print(f"==> wrote {PAGE.relative_to(ROOT)}")
    try:
        plots = _plots.draw(every_row, IMAGES)
    except ImportError:
        print("==> the plots were not updated: matplotlib is not installed")
    else:
        print(f"==> wrote {', '.join(plots)} in {IMAGES.relative_to(ROOT)}")


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="measure shorter and less exactly, and write nothing")
    parser.add_argument("--rounds", metavar="N", help="number of rounds in which rivals are measured in turn")
    parser.add_argument("--peer", metavar="URL", help="a running relay to compare with")
    parser.add_argument("--reuse", action="store_true", help="measure nothing, write the page from the last results")
    options = parser.parse_args()
    extra = ["--quick"] if options.quick else []
    for name in ("rounds", "peer"):
        if (value := getattr(options, name)) is not None:
            extra += [f"--{name}", value]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and stop the running script
    if not options.reuse:
        run_all(extra, quick=options.quick)
    found = {script: rows_of(script) for script in DURATIONS_S}
    print(_page.tally([row for rows in found.values() for row in rows]))
    if not options.quick:
        write(found)
    failed = [script for script, rows in found.items() if not rows]
    if failed:
        print(f"without results: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
