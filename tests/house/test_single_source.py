"""Names that the source spells in one place only."""

from __future__ import annotations

import ast
from collections import Counter

from tests.support.source_tree import sources

from pyryrelay.guard.address.clientip import FORWARDING_HEADERS


def spellings(words: set[str], modules: dict[str, ast.Module]) -> Counter[str]:
    """Count the string constants that are one of these words."""
    return Counter(
        node.value
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in words
    )


def test_forwarding_headers_are_named_once() -> None:
    """A header that names clients is added, and spelled, in one place."""
    found = spellings(set(FORWARDING_HEADERS), dict(sources().modules))
    assert found == Counter(set(FORWARDING_HEADERS))
