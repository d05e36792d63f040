"""Fuzz the parsers: each target for a number of CPU seconds, one target per core at a time.

    python fuzz/run.py [--seconds N] [--jobs N] [--minimise] [TARGET ...]

Targets start from ``fuzz/corpus/<target>``. A run writes interesting inputs to ``fuzz/work/<target>``, its log beside
that, and failing inputs to ``fuzz/crashes``. With ``--minimise``, inputs that reach new code are then added to the
corpus, the smallest first. Exits with 1 if any target has failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CRASHES: Final = HERE / "crashes"
WORK: Final = HERE / "work"
CORPUS: Final = HERE / "corpus"
TARGETS: Final = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py")))

MAX_INPUT_BYTES: Final = {"envelope": 2048, "nostr_events": 2048, "nostr_messages": 2048, "proxyproto": 5000}
DEFAULT_MAX_INPUT_BYTES: Final = 1024
INPUT_TIMEOUT_S: Final = 10
"""Longest time for one input; normal inputs take milliseconds."""
MEMORY_MIB: Final = 1024

KEPT_INPUT_BYTES: Final = 600
"""Larger inputs are not added to a corpus."""
KEPT_CORPUS_BYTES: Final = 40_000
"""Largest total size of a corpus to which inputs are added."""

POLL_S: Final = 0.5
STOP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one target."""

    target: str
    executions: int
    cpu_s: float
    failed: bool
    found: Sequence[Path]


def main(arguments: Sequence[str]) -> int:
    """Run the targets, report the results, and return the exit code."""
    options = _options(arguments)
    if find_spec("atheris") is None:
        sys.stderr.write("atheris is missing: install it with 'pip install atheris' (see fuzz/README.md)\n")
        return 2
    CRASHES.mkdir(exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda target: _fuzz(target, options.seconds), options.targets or TARGETS))
        if options.minimise:
            list(pool.map(_minimise, (result.target for result in results if not result.failed)))
    return int(any(result.failed for result in results))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz the parsers.")
    parser.add_argument("--seconds", type=float, default=600, help="CPU seconds per target (600)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets that run at once (one per core)")
    parser.add_argument("--minimise", action="store_true", help="add small interesting inputs to the corpus")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(TARGETS)} (all)")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no such target: {', '.join(unknown)}; use any of {', '.join(TARGETS)}")
    return options


def _fuzz(target: str, cpu_limit_s: float) -> Result:
    """Run one target until its time is used up or it fails."""
    before = set(_crashes(target))
    log_path = WORK / f"{target}.log"
    (WORK / target).mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            _command(target, WORK / target, CORPUS / target, "-print_final_stats=1"),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )
        stopped, cpu_s = _watch(process, cpu_limit_s)
    found = sorted(set(_crashes(target)) - before)
    failed = bool(found) or not (stopped or process.returncode == 0)
    result = Result(target, _executions(log_path), cpu_s, failed, found)
    _report(result, log_path)
    return result


def _command(target: str, *arguments: str | Path) -> list[str]:
    limits = (
        f"-max_len={MAX_INPUT_BYTES.get(target, DEFAULT_MAX_INPUT_BYTES)}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={CRASHES / target}-",
        f"-dict={HERE / 'dictionaries' / target}.dict",
    )
    return [sys.executable, str(HERE / f"fuzz_{target}.py"), *limits, *map(str, arguments)]


def _environment() -> dict[str, str]:
    """Return an environment in which this checkout is imported, not an installed copy."""
    paths = [str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _watch(process: subprocess.Popen[bytes], cpu_limit_s: float) -> tuple[bool, float]:
    """Wait for a process, and stop it at the limit; return whether it was stopped, and its CPU seconds."""
    started = time.monotonic()
    cpu_s = 0.0
    try:
        while process.poll() is None and cpu_s < cpu_limit_s:
            time.sleep(POLL_S)
            cpu_s = _cpu_seconds(process.pid, cpu_s, time.monotonic() - started)
        if process.poll() is not None:
            return False, cpu_s
        # On this signal, the fuzzer prints its statistics.
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    return True, cpu_s


def _cpu_seconds(pid: int, last_s: float, elapsed_s: float) -> float:
    """Return the CPU time of a process if the system reports it, else the time since its start."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except FileNotFoundError:
        return last_s if Path("/proc/self/stat").exists() else elapsed_s


def _crashes(target: str) -> list[Path]:
    return list(CRASHES.glob(f"{target}-*"))


def _executions(log_path: Path) -> int:
    log = log_path.read_text(encoding="utf-8", errors="replace")
    return max(map(int, re.findall(r"(?m)^(?:#|stat::number_of_executed_units: +)([0-9]+)", log)), default=0)


def _report(result: Result, log_path: Path) -> None:
    verdict = "FAILED" if result.failed else "passed"
    sys.stdout.write(f"{result.target}: {result.executions} inputs in {result.cpu_s:.0f} CPU s: {verdict}\n")
    for path in result.found:
        sys.stdout.write(f"    {path.relative_to(HERE.parent)}\n")
    if result.failed:
        sys.stdout.write(f"    see {log_path.relative_to(HERE.parent)}\n")
    sys.stdout.flush()


def _minimise(target: str) -> None:
    """Add small inputs that reach new code to the corpus, and empty the working folder."""
    corpus, work, merged = CORPUS / target, WORK / target, WORK / f"{target}.merged"
    shutil.rmtree(merged, ignore_errors=True)
    shutil.copytree(corpus, merged)
    command = _command(target, "-merge=1", f"-max_len={KEPT_INPUT_BYTES}", merged, work)
    with (WORK / f"{target}.merge.log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(), check=True)
    kept_bytes = sum(path.stat().st_size for path in corpus.iterdir())
    for path in sorted(set(merged.iterdir()), key=lambda path: (path.stat().st_size, path.name)):
        size = path.stat().st_size
        if (corpus / path.name).exists() or size > KEPT_INPUT_BYTES or kept_bytes + size > KEPT_CORPUS_BYTES:
            continue
        shutil.copy(path, corpus / path.name)
        kept_bytes += size
    shutil.rmtree(merged)
    shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
