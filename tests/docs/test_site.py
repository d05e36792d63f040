"""The documentation as a site: its navigation, a build without a warning, and that it needs nothing from outside."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHROMIUM = shutil.which("chromium")
LINKS_ONLY = {"a"}
"""Elements that may lead to other hosts: they load nothing."""


def _navigation(index: str) -> list[Any]:
    found: list[Any] = runpy.run_path(str(DOCS / "navigation.py"))["navigation"](index)
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    """The navigation has a section for each one of the index, and every page in one of them."""
    navigation = _navigation((DOCS / "README.md").read_text(encoding="utf-8"))
    assert [next(iter(part)) for part in navigation] == ["Home", "Tutorial", "How-to", "Reference", "Explanation"]
    pages = [page for part in navigation[1:] for page in next(iter(part.values()))]
    assert sorted(pages) == sorted(set(pages))
    assert {*pages, "README.md"} == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_a_page_that_is_linked_twice_is_shown_once() -> None:
    """The first section that links to a page has it, and anchors do not count."""
    index = "## How-to guides\n[a](howto/a.md#b) [a](howto/a.md)\n## Reference: it\n[a](howto/a.md) [c](reference/c.md)"
    assert _navigation(index)[1:] == [{"How-to": ["howto/a.md"]}, {"Reference": ["reference/c.md"]}]


class _Loads(HTMLParser):
    """Collects what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the addresses of an element."""
        for name, value in attrs:
            if tag not in LINKS_ONLY and name in ("src", "href") and re.match(r"(https?:)?//", value or ""):
                self.found.append(f"<{tag} {name}={value}>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, in which every warning is an error."""
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    """No page loads a script, a font, a style or a picture from another host."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: chromium)")
def test_search_works_without_a_web_server(site: Path, tmp_path: Path) -> None:
    """In a browser that reaches no host, the pages in the folder can be searched."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--dump-dom"]
    command.append(f"{(site / 'index.html').as_uri()}?q=jail")
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    found = re.search(r"(\d+) matching documents", done.stdout)
    assert found, done.stderr[-2000:]
    assert int(found[1]) > 5
