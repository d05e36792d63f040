"""Pin what the container image installs, with hashes: `make lock`.

    python requirements/lock.py [options of uv pip compile]

`runtime.txt` is what the relay needs at run time, with every extra that operators may want, for all platforms;
`build.txt` is what builds its wheel. Both hold the newest versions that setup.py and pyproject.toml admit. No file
names the index that the versions came from.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
CONTRIBUTORS: Final = {"bench", "dev", "docs", "test"}
"""Extras that no running relay needs."""
COLLECTIVE: Final = {"all"}
"""Extras that consist of others."""

_COMPILE: Final = (
    *("uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
)


def wanted() -> dict[str, list[str]]:
    """Return the requirements that each lock file pins, by its name."""
    direct, extras = _declared(ROOT / "setup.py")
    runtime = direct + [one for name in operators() for one in extras[name]]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    return {"runtime.txt": runtime, "build.txt": build}


def operators() -> list[str]:
    """Return the names of the extras that a running relay may need."""
    return sorted(set(_declared(ROOT / "setup.py")[1]) - CONTRIBUTORS - COLLECTIVE)


def _declared(setup: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the dependencies in a setup.py and those of its extras, read without setuptools.

    Lists are literals, in the call of `setup` or in a variable of the module.
    """
    tree = ast.parse(setup.read_text(encoding="utf-8"))
    named = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }

    def read(node: ast.expr) -> list[str]:
        found: list[str] = ast.literal_eval(named[node.id] if isinstance(node, ast.Name) else node)
        return found

    [call] = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"]
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    extras = arguments["extras_require"]
    if not isinstance(extras, ast.Dict):
        raise TypeError("extras_require must be a literal")
    pairs = zip(extras.keys, extras.values, strict=True)
    return read(arguments["install_requires"]), {ast.literal_eval(key): read(value) for key, value in pairs if key}


def main() -> None:
    """Write both files."""
    for name, requirements in wanted().items():
        command = [*_COMPILE, "--output-file", str(HERE / name), *sys.argv[1:], "-"]
        subprocess.run(command, input="\n".join(requirements), text=True, check=True)
        sys.stdout.write(f"written requirements/{name}\n")


if __name__ == "__main__":
    main()
