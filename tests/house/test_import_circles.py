"""No file imports itself through others, for typing or in earnest."""

from __future__ import annotations

import ast

import pytest
from tests.support.source_tree import Tree, sources

EXCEPTIONS: set[frozenset[str]] = set()
"""Files that still import each other, directly or through others of the set. It may only shrink."""


def circles(arrows: set[tuple[str, str]]) -> set[frozenset[str]]:
    """Return the largest sets of modules in which each one imports each other, directly or through others."""
    targets: dict[str, set[str]] = {}
    for module, target in arrows:
        targets.setdefault(module, set()).add(target)

    def reached_from(module: str) -> set[str]:
        reached: set[str] = set()
        waiting = [module]
        while waiting:
            fresh = targets.get(waiting.pop(), set()) - reached
            reached |= fresh
            waiting += fresh
        return reached

    reached = {module: reached_from(module) for module in targets}
    return {
        frozenset(other for other in others if module in reached.get(other, ()))
        for module, others in reached.items()
        if module in others
    }


def test_no_files_import_each_other() -> None:
    """The graph of imports between files has no circle."""
    assert circles(sources().arrows()) - EXCEPTIONS == set()


def test_each_exception_is_needed() -> None:
    """A circle that is gone, or has become smaller, is no exception any more: take it out of `EXCEPTIONS`."""
    assert EXCEPTIONS - circles(sources().arrows()) == set()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"p.a": "import p.b", "p.b": "import p.c", "p.c": ""}, []),
        ({"p.a": "import p.b", "p.b": "from p import a"}, [{"p.a", "p.b"}]),
        ({"p.a": "import p.b", "p.b": "import p.c", "p.c": "def f():\n    from p.a import x"}, [{"p.a", "p.b", "p.c"}]),
        ({"p.a": "if TYPE_CHECKING:\n    from p.b import B", "p.b": "from p.a import A"}, [{"p.a", "p.b"}]),
        (
            {"p.a": "import p.b", "p.b": "import p.a, p.c", "p.c": "import p.d", "p.d": "import p.c"},
            [{"p.a", "p.b"}, {"p.c", "p.d"}],
        ),
    ],
)
def test_planted_circles_are_found(files: dict[str, str], found: list[set[str]]) -> None:
    """Circles of any length are found, and imports for typing or inside functions count."""
    tree = Tree({name: ast.parse(source) for name, source in files.items()})
    assert circles(tree.arrows()) == {frozenset(circle) for circle in found}
