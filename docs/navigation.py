"""Hooks of MkDocs for the documentation as a site: `make site`.

The navigation is what docs/README.md says: a tab for each of its sections, with the pages of that section's table.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

_SECTION: Final = re.compile(r"^## (\w[\w-]*)", re.MULTILINE)
_PAGE: Final = re.compile(r"\]\(([\w/-]+\.md)(?:#[\w-]+)?\)")


def navigation(index: str) -> list[Any]:
    """Return the navigation that the index describes: a section for each heading, with each page once."""
    found: list[Any] = [{"Home": "README.md"}]
    titles = _SECTION.split(index)
    seen: set[str] = set()
    for title, text in zip(titles[1::2], titles[2::2], strict=True):
        pages = [page for page in dict.fromkeys(_PAGE.findall(text)) if page not in seen]
        seen.update(pages)
        found.append({title: pages})
    return found


def on_config(config: Any) -> Any:
    """Set the navigation before anything is read."""
    config["nav"] = navigation(Path(config["docs_dir"], "README.md").read_text(encoding="utf-8"))
    return config
