"""What all fuzz targets share: imports under instrumentation, and a way to run without it.

A target is a module with one function, ``check(data: bytes) -> None``, that fails (raises anything) if its parser
breaks a promise. Under atheris the function is fuzzed; without atheris the files and folders that are named on the
command line are replayed, which needs nothing but the package itself.
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
    """Trace what is imported inside of this context, so that the fuzzer sees which branches an input takes."""
    if atheris is None:
        return nullcontext()
    context: AbstractContextManager[object] = atheris.instrument_imports(include=["pyryrelay", "ipaddress"])
    return context


def main(check: Check) -> None:
    """Fuzz, or replay where atheris is missing."""
    if atheris is not None:
        # To merge corpora the fuzzer starts itself anew, by giving its own name to a shell.
        itself = f"{shlex.quote(sys.executable)} {shlex.quote(sys.argv[0])}"
        atheris.Setup([itself, *sys.argv[1:]], check)
        atheris.Fuzz()
        return
    paths = list(_inputs(sys.argv[1:]))
    for path in paths:
        try:
            check(path.read_bytes())
        except BaseException:
            sys.stderr.write(f"{path} breaks a promise\n")
            raise
    sys.stderr.write(f"atheris is not installed: replayed {len(paths)} inputs, and all of them are fine\n")


def _inputs(arguments: list[str]) -> Iterator[Path]:
    """Yield the files that are named, and those in folders that are; flags are the fuzzer's."""
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            yield from sorted(child for child in path.iterdir() if child.is_file())
        elif not argument.startswith("-"):
            yield path


def ensure(promise: bool, what: str) -> None:
    """Fail unless a promise was kept; unlike ``assert`` it works under ``python -O`` as well."""
    if not promise:
        raise BrokenPromiseError(what)


class BrokenPromiseError(Exception):
    """A parser gave an answer that it must not give."""
