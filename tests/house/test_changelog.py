"""The changelog of the next release, built from the fragments in a copy of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.source_tree import ROOT

DATE = "2026-11-28"
PUBLISHED = ("feature", "bugfix", "security", "removal", "doc")

NEXT = "9999.1.0"
"""A version that has no changelog yet."""


def _fragments() -> list[Path]:
    return sorted(path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md")


def test_the_names_of_fragments() -> None:
    """A fragment is ISSUE.TYPE.md or ISSUE.TYPE.NUMBER.md; towncrier mistakes words in place of the number."""
    types = "|".join([*PUBLISHED, "misc"])
    wrong = [
        one.name for one in _fragments() if not re.fullmatch(rf"(\d+|\+[\w-]+)\.({types})(\.[\w-]+)?\.md", one.name)
    ]
    assert wrong == []


def test_the_changelog_can_be_built(tmp_path: Path) -> None:
    """towncrier puts the text of every fragment that is published below the version, and removes the fragments."""
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "changelog.d", tmp_path / "changelog.d")
    command = [sys.executable, "-m", "towncrier", "build", "--yes", "--version", NEXT, "--date", DATE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    before, title, built = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8").partition(f"## {NEXT} ({DATE})")
    assert title
    assert "towncrier release notes start" in before
    words = " ".join(built.split())
    for fragment in _fragments():
        text = " ".join(fragment.read_text(encoding="utf-8").split())
        assert (text in words) is (".misc." not in fragment.name), fragment.name
    assert [path.name for path in (tmp_path / "changelog.d").iterdir()] == ["README.md"]


@pytest.mark.parametrize("wanted", ["towncrier build", "make release", "twine upload", "git tag"])
def test_the_guide_names_each_step_of_a_release(wanted: str) -> None:
    """CONTRIBUTING.md has the steps of a release."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Make a release\n")[2]
    assert wanted in section.partition("\n## ")[0]
