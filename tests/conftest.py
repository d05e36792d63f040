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
