"""Install the lowest versions that setup.py admits: `tox -e lowest`.

    python tests/lowest.py [options of pip install]

Each direct dependency of the relay and of its extras for operators gets exactly its lower bound; pip chooses what these
need besides. Whoever raises a bound in setup.py thereby changes what is tested.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[1]


def lowest(requirements: list[str]) -> list[str]:
    """Return each requirement with its lower bound as the only version. Raises `ValueError` if it has none."""
    found = []
    for requirement in map(Requirement, requirements):
        bounds = [one.version for one in requirement.specifier if one.operator in (">=", "==", "~=")]
        if len(bounds) != 1:
            raise ValueError(f"{requirement} needs one lower bound")
        found.append(f"{requirement.name}=={bounds[0]}")
    return found


def main() -> None:
    """Install them into the environment of this interpreter."""
    lock = runpy.run_path(str(ROOT / "requirements" / "lock.py"))
    pins = lowest(lock["wanted"]()["runtime.txt"])
    package = f"{ROOT}[{','.join([*lock['operators'](), 'test'])}]"
    sys.stdout.write(" ".join(pins) + "\n")
    sys.stdout.flush()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        command = [sys.executable, "-m", "pip", "install", *sys.argv[1:], "--constraint", file.name, "-e", package]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
