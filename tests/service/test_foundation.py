"""What every relay is built on."""

from __future__ import annotations

from pathlib import Path
from threading import current_thread, main_thread

import pytest
from tests.support.service import Machine
from twisted.internet.defer import Deferred

from pyryrelay.mounts import Settings
from pyryrelay.preflight.checks import NATIVE
from pyryrelay.protocol_options import Finding
from pyryrelay.service import foundation
from pyryrelay.service.foundation import Foundation, Times


def made(machine: Machine, base: Path | None, warnings: tuple[str, ...] | None) -> Foundation:
    """Return one with the settings of a plain relay."""
    return Foundation(Settings(listen=("tcp:81",)), machine, machine.seconds, Times(), base, warnings)


def test_warnings_are_those_of_the_settings(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the caller has found them already. Files are looked for in the current folder, or in another one."""
    assert made(machine, None, ("careful",))._warnings == ("careful",)
    assert made(machine, None, ())._base == Path.cwd()
    monkeypatch.setattr(foundation, "of_settings", lambda settings, base: [])
    monkeypatch.setattr(foundation, "native_parts", lambda: [Finding(NATIVE, "it", "is slow", "build it")])
    found = made(machine, tmp_path, None)
    assert found._base == tmp_path
    assert list(found._warnings) == ["it: is slow; build it"]


def test_timers_follow_the_monotonic_clock_from_the_beginning(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is scheduled before that."""
    calls: list[object] = []
    monkeypatch.setattr(foundation, "follow_monotonic_clock", calls.append)
    made(machine, None, ())
    assert calls == [machine]


def test_calls_in_another_thread(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made by the reactor's threads."""
    asked: list[tuple[object, ...]] = []

    def defer(*arguments: object) -> Deferred[object]:
        asked.append(arguments)
        return Deferred()

    monkeypatch.setattr(foundation, "deferToThreadPool", defer)
    made(machine, None, ())._in_thread(current_thread)
    assert asked == [(machine, machine.getThreadPool(), current_thread)]
    assert current_thread() is main_thread()
