"""The option that divides the relay among several processes."""

from __future__ import annotations

import os

import pytest

from pyryrelay.config.options.worker_options import MAX_WORKERS, usable_cpus
from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings


def read(text: str) -> Settings:
    return Settings.from_sources({}, {}, {"workers": [text]})


def test_one_process_is_the_default() -> None:
    """Nothing changes for those who do not ask."""
    assert Settings().worker_count == 1


def test_one_for_each_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the CPUs that this process may use, which may be fewer than the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5})
    assert read("auto").worker_count == 3
    assert read("AUTO").workers is None
    assert read("7").worker_count == 7


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a process cannot know which CPUs it may use, all count, up to what is accepted."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 999)
    assert usable_cpus() == MAX_WORKERS


@pytest.mark.parametrize("text", ["0", "-1", "129", "2.5", "many", ""])
def test_bad_numbers(text: str) -> None:
    """One line says what to write."""
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert str(caught.value).startswith(f"--workers (from command line): {text!r} ")
    assert "auto" in str(caught.value)
