"""What every relay is built on."""

from __future__ import annotations

from pathlib import Path
from threading import current_thread, main_thread

import pytest
from tests.support.capture import captured
from tests.support.service import Machine
from twisted.internet.defer import Deferred

from pyryrelay.admin.api import UpgradeOutcome
from pyryrelay.mounts import Settings
from pyryrelay.preflight.checks import NATIVE
from pyryrelay.protocol_options import Finding
from pyryrelay.service import foundation
from pyryrelay.service.foundation import Foundation, Times


def made(machine: Machine, base: Path | None, warnings: tuple[str, ...] | None) -> Foundation:
    """Return one with the settings of a plain relay."""
    return Foundation(Settings(listen=("tcp:81",)), machine, machine.seconds, Times(), None, base, warnings)


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

    monkeypatch.setattr("pyryrelay.runtime.process.deferToThreadPool", defer)
    made(machine, None, ())._in_thread(current_thread)
    assert asked == [(machine, machine.getThreadPool(), current_thread)]
    assert current_thread() is main_thread()


def test_what_a_reload_reads_by_default(machine: Machine, tmp_path: Path) -> None:
    """Without another source of settings, they stay those in force, and the list files are read again."""
    (tmp_path / "deny").write_text("192.0.2.0/24\n")
    settings = Settings(listen=("tcp:81",), deny_file=("deny",))
    found = Foundation(settings, machine, machine.seconds, Times(), None, tmp_path, ())
    assert found.reloader.settings is settings
    applied: list[tuple[object, int]] = []
    found.reloader._apply = lambda settings, lists: applied.append((settings, len(lists.networks[1])))
    found.reloader.begin()
    (tmp_path / "deny").write_text("192.0.2.0/24\n198.51.100.0/24\n")
    found.reloader.reload()
    assert applied == [(settings, 1), (settings, 2)]


def test_a_relay_of_another_program_hands_nothing_over(machine: Machine) -> None:
    """A relay that is part of another program cannot start another process."""
    outcomes: list[UpgradeOutcome] = []
    made(machine, None, ()).upgrade().addCallback(outcomes.append)
    assert [outcome.error for outcome in outcomes] == ["this relay is part of another program: restart that program"]


def test_where_it_can_be_reached(machine: Machine) -> None:
    """The log has a line for each endpoint, and the warnings."""
    found = made(machine, None, ("careful",))
    found.settings = Settings(listen=("tcp:81", "tcp:82"), admin_listen="tcp:83:interface=127.0.0.1")
    with captured() as log:
        found._tell_warnings()
        found._tell_where()
    assert log.texts[0] == "careful"
    assert [text.partition(" listens on ")[2] for text in log.texts[1:3]] == ["tcp:81", "tcp:82"]
    assert log.texts[3:] == ["metrics on tcp:83:interface=127.0.0.1"]
