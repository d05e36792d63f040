"""SQL statements have placeholders that every supported Python accepts."""

from __future__ import annotations

import re

from tests.support.source_tree import SOURCE


def test_no_placeholder_has_a_number() -> None:
    """Python 3.12 warns of ``?1`` with a sequence of values, and 3.14 refuses it; other versions say nothing."""
    found = [
        f"{path.name}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"[ (=]\?\d", line)
    ]
    assert found == []
