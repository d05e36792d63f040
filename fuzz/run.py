"""Fuzz the parsers: each target for a number of CPU seconds, as many at once as there are cores.

    python fuzz/run.py [--seconds N] [--jobs N] [--minimise] [TARGET ...]

Targets start from ``fuzz/corpus/<target>``. What a run finds interesting goes to ``fuzz/work/<target>``, and its log
beside that; inputs that break a promise go to ``fuzz/crashes``. With ``--minimise`` the interesting inputs that
reach something new, the smallest first, join the corpus afterwards. Exits with 1 if anything was broken.
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

MAX_INPUT_BYTES: Final = {"envelope": 2048, "proxyproto": 5000}
DEFAULT_MAX_INPUT_BYTES: Final = 1024
INPUT_TIMEOUT_S: Final = 10
"""One input may not take longer; a healthy one takes milliseconds."""
MEMORY_MIB: Final = 1024

KEPT_INPUT_BYTES: Final = 600
"""Larger inputs do not join a corpus,"""
KEPT_CORPUS_BYTES: Final = 40_000
"""nor do any beyond this sum for each target."""

POLL_S: Final = 0.5
STOP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """How one target fared."""

    target: str
    executions: int
    cpu_s: float
    broken: bool
    found: Sequence[Path]


def main(arguments: Sequence[str]) -> int:
    """Run, report, and say whether all is well."""
    options = _options(arguments)
    if find_spec("atheris") is None:
        sys.stderr.write("atheris is missing: install it with 'pip install atheris' (see fuzz/README.md)\n")
        return 2
    CRASHES.mkdir(exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda target: _fuzz(target, options.seconds), options.targets or TARGETS))
        if options.minimise:
            list(pool.map(_minimise, (result.target for result in results if not result.broken)))
    return int(any(result.broken for result in results))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz the parsers.")
    parser.add_argument("--seconds", type=float, default=600, help="CPU seconds for each target (600)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once (one for each core)")
    parser.add_argument("--minimise", action="store_true", help="let small interesting inputs join the corpus")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(TARGETS)} (all)")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no such target: {', '.join(unknown)}; use any of {', '.join(TARGETS)}")
    return options


def _fuzz(target: str, cpu_limit_s: float) -> Result:
    """Run one target until its time is used up, or it breaks."""
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
    broken = bool(found) or not (stopped or process.returncode == 0)
    result = Result(target, _executions(log_path), cpu_s, broken, found)
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
    """Put this checkout first, so that no installed copy is fuzzed instead."""
    paths = [str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _watch(process: subprocess.Popen[bytes], cpu_limit_s: float) -> tuple[bool, float]:
    """Wait until the process ends, or end it; return whether that was us, and its CPU seconds."""
    started = time.monotonic()
    cpu_s = 0.0
    try:
        while process.poll() is None and cpu_s < cpu_limit_s:
            time.sleep(POLL_S)
            cpu_s = _cpu_seconds(process.pid, cpu_s, time.monotonic() - started)
        if process.poll() is not None:
            return False, cpu_s
        # The fuzzer answers this signal with its statistics.
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    return True, cpu_s


def _cpu_seconds(pid: int, last_s: float, elapsed_s: float) -> float:
    """Return the CPU time of a process, where the system tells; else the time since it was started."""
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
    verdict = "BROKEN" if result.broken else "fine"
    sys.stdout.write(f"{result.target}: {result.executions} inputs in {result.cpu_s:.0f} CPU s: {verdict}\n")
    for path in result.found:
        sys.stdout.write(f"    {path.relative_to(HERE.parent)}\n")
    if result.broken:
        sys.stdout.write(f"    see {log_path.relative_to(HERE.parent)}\n")
    sys.stdout.flush()


def _minimise(target: str) -> None:
    """Let what reaches something new join the corpus, as long as it is small, and empty the working folder."""
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
