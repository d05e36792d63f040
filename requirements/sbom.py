"""Write the bill of materials of a relay with the pinned versions, in the format of CycloneDX: `make sbom`.

    python requirements/sbom.py FILE

The versions of runtime.txt are installed into an environment of their own, which is then described with licences and
dependencies. What is written is valid, and the same for the same versions.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import metadata
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _root_component() -> str:
    """Return a project file about the relay itself, which setup.py describes and the tool cannot read."""
    ours = metadata("pyryrelay")
    values = {"name": ours["Name"], "version": ours["Version"], "description": ours["Summary"], "license": "MIT"}
    direct: list[str] = runpy.run_path(str(HERE / "lock.py"))["wanted"]()["runtime.txt"]
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in [*values.items(), ("dependencies", direct)]]
    return "[project]\n" + "".join(lines)


def write(target: Path) -> None:
    """Write the bill of materials to a file. Raises `subprocess.CalledProcessError` if a tool fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        venv.create(environment, symlinks=True)
        python = environment / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python, "install")
        _run(*pip, "--require-hashes", "--requirement", HERE / "runtime.txt")
        project = Path(folder) / "pyproject.toml"
        project.write_text(_root_component(), encoding="utf-8")
        describe = (sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--validate")
        _run(*describe, "--pyproject", project, "--output-file", target, python)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
