"""Sizes that keep the code readable, and a test module for each module."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.source_tree import ROOT, SOURCE, sources

MAX_FUNCTION_LINES = 60
MAX_MODULES_IN_A_FOLDER = 12

UNTESTED: set[str] = set()
"""Modules without a test module of their own, which others' tests cover. It may only shrink."""
GENERATED = {"_version.py"}


def long_functions(modules: Mapping[str, ast.Module], limit: int) -> Iterator[str]:
    """Yield the functions of more than ``limit`` lines, as ``module.function``."""
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > limit:
                yield f"{module}.{node.name}"


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines from ``def`` to the end, including comments and the docstring."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def without_tests(source: Path, tests: Path) -> set[str]:
    """Return the modules below ``source`` that have no test module at the same place below ``tests``."""
    missing = set()
    for path in source.rglob("*.py"):
        folder = tests / path.parent.relative_to(source)
        found = [*folder.glob(f"test_{path.stem}.py"), *folder.glob(f"test_{path.stem}_*.py")]
        if path.name != "__init__.py" and not found:
            missing.add(path.relative_to(source).as_posix())
    return missing


def test_no_function_is_long() -> None:
    """No function of the package is longer than 60 lines."""
    assert list(long_functions(sources().modules, MAX_FUNCTION_LINES)) == []


def test_no_folder_is_crowded() -> None:
    """No folder of the package has more than twelve modules."""
    counts = Counter(path.parent for path in SOURCE.rglob("*.py") if path.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > MAX_MODULES_IN_A_FOLDER} == {}


def test_every_module_has_its_test_module() -> None:
    """``<room>/<module>.py`` is tested in ``tests/<room>/test_<module>.py`` or ``test_<module>_<aspect>.py``."""
    assert without_tests(SOURCE, ROOT / "tests") - UNTESTED - GENERATED == set()


def test_each_exception_is_needed() -> None:
    """A module that is gone or has its test module is no exception any more: take it out of `UNTESTED`."""
    assert UNTESTED - without_tests(SOURCE, ROOT / "tests") == set()


def test_planted_long_functions_are_found() -> None:
    """Functions are measured from ``def`` to their last line, wherever they stand."""
    source = "class A:\n    @decorated\n    async def f(self):\n        '''Do.'''\n        pass\n\ndef g():\n    pass\n"
    assert list(long_functions({"m": ast.parse(source)}, 2)) == ["m.f"]
    assert list(long_functions({"m": ast.parse(source)}, 3)) == []


def test_missing_test_modules_are_found(tmp_path: Path) -> None:
    """A test module of the same name counts only at the same place."""
    for name in ("src/room/a.py", "src/room/b.py", "src/room/c.py", "src/room/__init__.py", "src/top.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("tests/room/test_a.py", "tests/room/test_b_limits.py", "tests/test_c.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert without_tests(tmp_path / "src", tmp_path / "tests") == {"room/c.py", "top.py"}
