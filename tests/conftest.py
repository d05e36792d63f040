"""Settings and fixtures that tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.capture import Captured, captured
from tests.support.service import Machine

# Without deadlines, so that a busy machine fails no property. In CI the examples are the same in every run.
settings.register_profile("pyryrelay", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("pyryrelay")

LONGEST = (
    "end_to_end/test_upgrade.py",
    "chaos/test_chaos.py",
    "end_to_end/test_workers.py",
    "house/test_packaging.py",
    "contrib/test_deb.py",
    "end_to_end/test_push.py",
    "end_to_end/nostr/test_attacks.py",
    "end_to_end/test_cluster.py",
    "end_to_end/test_slow_lines.py",
    "end_to_end/test_signals.py",
    "end_to_end/test_workers_limits.py",
)
"""The files that take longest. They come first, so that none of them runs alone at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of `LONGEST` first; their order is the same otherwise."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(autouse=True)
def no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the relay's variables from the environment of the tests."""
    for name in [name for name in os.environ if name.startswith("PYRYRELAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def ordinary_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the preflight find an ordinary user and a clock that is right, whatever the tests run on."""
    for name in ("privileges", "clock"):
        monkeypatch.setattr(f"pyryrelay.preflight.inspection.{name}", lambda *_: ())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A machine in an empty directory, with enough open files, whose clock Autobahn uses too."""
    monkeypatch.chdir(tmp_path)
    machine = Machine()
    monkeypatch.setattr("txaio.config.loop", machine)
    monkeypatch.setattr("pyryrelay.service.assembly.raise_open_files", lambda needed: None)
    return machine


@pytest.fixture
def log() -> Iterator[Captured]:
    """Everything that is logged during the test."""
    with captured() as log:
        yield log
