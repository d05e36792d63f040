"""Common code of the fuzz targets: instrumented imports, and replaying inputs without a fuzzer.

A target is a module with a function ``check(data: bytes) -> None`` that raises an exception if a property of its parser
does not hold. With atheris the function is fuzzed. Without atheris the files and folders on the command line are
replayed, which needs only the package itself.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

try:
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]
except ImportError:
    atheris = None

Check = Callable[[bytes], None]


def instrumented() -> AbstractContextManager[object]:
    """Instrument imports inside this context, so that the fuzzer sees the branches that an input takes."""
    if atheris is None:
        return nullcontext()
    context: AbstractContextManager[object] = atheris.instrument_imports(include=["pyryrelay", "ipaddress"])
    return context


def main(check: Check) -> None:
    """Fuzz a target, or replay inputs if atheris is missing."""
    if atheris is not None:
        # To merge corpora, the fuzzer starts itself again, by passing its own name to a shell.
        command = f"{shlex.quote(sys.executable)} {shlex.quote(sys.argv[0])}"
        atheris.Setup([command, *sys.argv[1:]], check)
        atheris.Fuzz()
        return
    paths = list(_inputs(sys.argv[1:]))
    for path in paths:
        try:
            check(path.read_bytes())
        except BaseException:
            sys.stderr.write(f"{path} fails\n")
            raise
    sys.stderr.write(f"atheris is not installed: replayed {len(paths)} inputs without a failure\n")


def _inputs(arguments: list[str]) -> Iterator[Path]:
    """Yield the given files, and the files in the given folders. Flags are for the fuzzer."""
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            yield from sorted(child for child in path.iterdir() if child.is_file())
        elif not argument.startswith("-"):
            yield path


def ensure(holds: bool, what: str) -> None:
    """Raise an error unless a property holds; unlike ``assert``, this also works with ``python -O``."""
    if not holds:
        raise PropertyError(what)


class PropertyError(Exception):
    """A property of a parser does not hold."""
