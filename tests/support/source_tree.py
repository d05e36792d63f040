"""The package's source, parsed: its modules, what each imports, and the graph of imports. Imports no module of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "pyryrelay"


@dataclass(frozen=True)
class Import:
    """One imported module (or name of a module), its line, and the function that imports it."""

    target: str
    line: int
    function: str | None


@dataclass(frozen=True)
class Tree:
    """Parsed modules by dotted name, and which of them are packages."""

    modules: Mapping[str, ast.Module]
    packages: frozenset[str] = frozenset()

    def imports(self, module: str) -> Iterator[Import]:
        """Yield everything that a module imports anywhere."""
        return imports_of(module, self.modules[module], is_package=module in self.packages)

    def arrows(self) -> set[tuple[str, str]]:
        """Return who imports whom among the modules, as pairs; typing-only imports and those in functions count."""
        found = set()
        for module in self.modules:
            for imported in self.imports(module):
                target = self.module_of(imported.target)
                if target not in (None, module):
                    found.add((module, target))
        return found

    def module_of(self, name: str) -> str | None:
        """Return the module that a dotted name is, or is a name of; None outside this tree."""
        while name not in self.modules:
            name, _, rest = name.rpartition(".")
            if not rest:
                return None
        return name


@cache
def sources() -> Tree:
    """Return all modules of the package."""
    modules, packages = {}, set()
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if parts[-1] == "__init__":
            packages.add(name)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return Tree(modules, frozenset(packages))


def imports_of(module: str, tree: ast.Module, *, is_package: bool = False) -> Iterator[Import]:
    """Yield everything that a module imports anywhere, names of ``from`` imports included, relative ones resolved."""
    package = module if is_package else module.rpartition(".")[0]

    def visit(node: ast.AST, function: str | None) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, function)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""]).strip(".") if node.level else node.module or ""
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, function)
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, None)


def within(name: str, *prefixes: str) -> bool:
    """Tell whether a dotted name is one of ``prefixes`` or below it."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def room_of(module: str) -> str:
    """Return the room that a module of the package belongs to: a folder of it, or a module beside the folders."""
    return module.split(".")[1] if "." in module else module
