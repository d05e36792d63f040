"""The lock files of requirements/ satisfy what setup.py and pyproject.toml ask for, with hashes."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.support.source_tree import ROOT

LOCK = runpy.run_path(str(ROOT / "requirements" / "lock.py"))
LINE = re.compile(r"^([\w.-]+)==(\S+?)(?: ; (.+?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


@pytest.fixture(scope="module")
def wanted() -> Mapping[str, list[str]]:
    """What each lock file has to satisfy."""
    found: Mapping[str, list[str]] = LOCK["wanted"]()
    return found


@pytest.mark.parametrize("name", ["runtime.txt", "build.txt"])
def test_every_version_is_exact_and_has_hashes(name: str) -> None:
    """A lock file holds exact versions and their hashes, and no address that they came from."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pinned = [bool(LINE.match(line)) for line in lines]
    assert any(pinned)
    assert [line for line, is_pin in zip(lines, pinned, strict=True) if not is_pin and not HASH.match(line)] == []
    assert all(HASH.match(lines[number + 1]) for number, is_pin in enumerate(pinned) if is_pin)


@pytest.mark.parametrize("name", ["runtime.txt", "build.txt"])
def test_the_lock_satisfies_the_requirements(name: str, wanted: Mapping[str, list[str]]) -> None:
    """Each direct requirement is pinned to a version that it admits."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    pins: dict[str, list[str]] = {}
    for line in text.splitlines():
        if found := LINE.match(line):
            pins.setdefault(canonicalize_name(found[1]), []).append(found[2])
    for asked in map(Requirement, wanted[name]):
        versions = pins.get(canonicalize_name(asked.name), [])
        assert versions, f"{asked.name} is not in requirements/{name}: run make lock"
        assert all(asked.specifier.contains(version) for version in versions), f"{asked}: run make lock"


@pytest.mark.slow
def test_the_bill_of_materials_has_what_is_locked(tmp_path: Path) -> None:
    """It is valid, and has each package that this platform installs, in the locked version, with its licence."""
    pytest.importorskip("cyclonedx_py")
    target = tmp_path / "relay.cdx.json"
    script = str(ROOT / "requirements" / "sbom.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, script, str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads(target.read_text(encoding="utf-8"))
    assert written["metadata"]["component"]["name"] == "pyryrelay"
    found = {canonicalize_name(one["name"]): one for one in written["components"]}
    lock = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    pins = [match for line in lock.splitlines() if (match := LINE.match(line))]
    expected = {
        canonicalize_name(pin[1]): pin[2] for pin in pins if pin[3] is None or Marker(pin[3]).evaluate({"extra": ""})
    }
    assert {name: one["version"] for name, one in found.items()} == expected
    assert [name for name, one in found.items() if not one.get("licenses")] == []


def test_what_contributors_need_is_not_locked(wanted: Mapping[str, list[str]]) -> None:
    """The image has the extras of operators, and none of contributors."""
    assert "coincurve" in " ".join(wanted["runtime.txt"])
    assert not any(re.match(r"(pytest|mypy|ruff|tox)\b", one) for one in wanted["runtime.txt"])


def test_the_page_on_installing_has_every_extra() -> None:
    """docs/howto/install.md says what each extra for operators is for, and names no other."""
    page = (ROOT / "docs" / "howto" / "install.md").read_text(encoding="utf-8")
    table = page.partition("| extra | for |\n|---|---|\n")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == LOCK["operators"]()


def test_a_relay_starts_without_extras() -> None:
    """Nothing that every relay imports needs a package of an extra."""
    blocked = ["coincurve", "hiredis"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import pyryrelay.service, pyryrelay.start.worker"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
