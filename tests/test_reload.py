"""Reloading: all settings or none, one reload at a time, and options that need a restart are named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.capture import Captured
from tests.support.service import Threads

from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.config.list_files import ListFileError
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet, LimitError
from pyryrelay.mounts import Settings
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.reload import Lists, Reloader


class World:
    """A reloader whose settings and files a test changes, and what it applied."""

    def __init__(self, base: Path, **given: Any) -> None:
        self.base = base
        self.wanted: Settings | Exception = Settings(**given)
        self.applied: list[tuple[Settings, CidrSet, CidrSet]] = []
        self.refuses: Exception | None = None
        self.threads = Threads()
        lists = Lists(Settings(**given), base)
        lists.load()
        self.reloader = Reloader(Settings(**given), lists, base, self.reread, self.apply, self.threads.defer)

    def reread(self) -> Settings:
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted

    def apply(self, settings: Settings, lists: Lists) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.applied.append((settings, *lists.networks))

    def reload(self, **given: Any) -> ReloadOutcome:
        """Reload with these settings, and return the outcome, which is there at once."""
        if given:
            self.wanted = Settings(**given)
        done: list[ReloadOutcome] = []
        self.reloader.reload().addCallback(done.append)
        return done[0]

    def look(self) -> None:
        """Check the list files."""
        done: list[object] = []
        self.reloader.refresh_lists().addBoth(done.append)
        assert done == [None]

    def write(self, name: str, text: str) -> None:
        """Change a list file."""
        (self.base / name).write_text(text)


def test_what_changed_is_applied_and_named(tmp_path: Path, log: Captured) -> None:
    """Changed options are applied, and named in the order of the reference in the answer and in one line."""
    world = World(tmp_path)
    outcome = world.reload(grace_s=3.0, deny=CidrSet(["192.0.2.1"]), max_connections=5)
    assert outcome == ReloadOutcome(["deny", "max-connections", "grace"], [])
    ((settings, allow, deny),) = world.applied
    assert settings == world.reloader.settings == world.wanted
    assert (len(allow), deny) == (0, CidrSet(["192.0.2.1"]))
    assert log.texts == ["reloaded, changed: deny, max-connections, grace"]


def test_nothing_changed(tmp_path: Path, log: Captured) -> None:
    """A reload without a change is logged as well."""
    world = World(tmp_path)
    assert world.reload() == ReloadOutcome([], [])
    assert world.reloader.failures == 0
    assert log.texts == ["reloaded, changed: nothing"]


def test_invalid_settings_change_nothing(tmp_path: Path, log: Captured) -> None:
    """Invalid settings change nothing, and the line has the error."""
    world = World(tmp_path)
    with pytest.raises(ValueError, match="grace") as caught:
        Settings.from_sources({"grace": "soon"}, {}, {}, toml_name="r.toml")
    world.wanted = caught.value
    outcome = world.reload()
    assert outcome.error == str(caught.value)
    assert world.applied == []
    (line,) = log.texts
    assert line.startswith("reload changed nothing: --grace (from r.toml: grace): 'soon' is not a number")


def test_a_bad_list_changes_nothing(tmp_path: Path, log: Captured) -> None:
    """A bad list file is named with its line, and other settings are not applied either."""
    world = World(tmp_path)
    world.write("deny.txt", "192.0.2.0/24\nnonsense\n")
    outcome = world.reload(deny_file=("deny.txt",), grace_s=1.0)
    assert outcome.error is not None
    assert f"{tmp_path}/deny.txt:2: 'nonsense' is not a network" in outcome.error
    assert world.applied == []
    assert world.reloader.settings == Settings()
    assert len(log.texts) == 1
    assert world.reloader.failures == 1


def test_what_the_guard_refuses_changes_nothing(tmp_path: Path) -> None:
    """Settings that only the guard refuses change nothing."""
    world = World(tmp_path)
    world.refuses = LimitError("too small: raise it")
    assert world.reload(grace_s=1.0).error == "too small: raise it"
    assert world.reloader.settings == Settings()


def test_an_unexpected_error_is_logged(tmp_path: Path, log: Captured) -> None:
    """An unexpected error is logged with its traceback and answered, and the next reload is tried."""
    world = World(tmp_path)
    world.refuses = ZeroDivisionError()
    outcome = world.reload(grace_s=1.0)
    assert outcome.error == "the reload failed: see the log of the relay"
    assert log.texts == ["A reload failed", f"reload changed nothing: {outcome.error}"]
    world.refuses = None
    assert world.reload().changed == ["grace"]


def test_what_needs_a_restart_is_named_in_one_line(tmp_path: Path, log: Captured) -> None:
    """Options that need a restart are named in each reload until then; all others are applied."""
    world = World(tmp_path)
    for changed in (["max-phones"], []):
        outcome = world.reload(listen=("tcp:1",), max_message_bytes=1024, max_phones=3)
        assert outcome == ReloadOutcome(changed, ["listen", "max-message-bytes"])
    assert world.reloader.settings == Settings(max_phones=3)
    assert log.texts[1::2] == ["changed in the configuration, but needs a restart: listen, max-message-bytes"] * 2


def test_what_contradicts_an_option_that_needs_a_restart(tmp_path: Path) -> None:
    """Settings that contradict an option that needs a restart are refused as a whole."""
    proxies = TrustedProxies(CidrSet(["10.0.0.0/8"]))
    world = World(tmp_path, trust_x_forwarded_for=True, trusted_proxy=proxies, kernel_drop=True)
    outcome = world.reload(trust_x_forwarded_for=True)
    assert outcome.error is not None
    assert (
        "--kernel-drop (from default): cannot change without a restart, and the other changes need it" in outcome.error
    )
    assert "('true' without --trusted-proxy would let clients have others dropped" in outcome.error
    assert outcome.error.endswith("; restart the relay")
    assert world.applied == []


def test_files_are_named_from_the_directory_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """List files are relative to the directory of the start, which twistd changes later."""
    (tmp_path / "allow.txt").write_text("192.0.2.1\n")
    world = World(tmp_path, allow_file=("allow.txt",))
    monkeypatch.chdir("/")
    world.write("allow.txt", "192.0.2.2\n")
    assert world.reload().changed == ["allow-file"]
    assert world.applied[0][1] == CidrSet(["192.0.2.2"])


def test_a_file_and_its_name_are_one_change(tmp_path: Path) -> None:
    """A changed list file that is also renamed in the options is named once."""
    world = World(tmp_path)
    world.write("deny.txt", "192.0.2.1\n")
    assert world.reload(deny_file=("deny.txt",)).changed == ["deny-file"]


# One reload at a time


def test_one_reload_waits_for_another(tmp_path: Path) -> None:
    """A second reload waits and then reads the current configuration; a third is told that one is waiting."""
    world = World(tmp_path)
    world.threads.held = True
    outcomes: list[ReloadOutcome] = []
    world.wanted = Settings(grace_s=1.0)
    for _ in range(3):
        world.reloader.reload().addCallback(outcomes.append)
    (told,) = outcomes
    assert told.error == "another reload is about to start, and will read the current configuration"
    world.wanted = Settings(grace_s=2.0)
    world.threads.go_on()
    assert [outcome.changed for outcome in outcomes[1:]] == [["grace"], ["grace"]]
    assert [settings.grace_s for settings, _, _ in world.applied] == [1.0, 2.0]


def test_a_check_of_the_files_leaves_a_reload_alone(tmp_path: Path) -> None:
    """While a reload runs, which reads all files, a check of the files does nothing."""
    (tmp_path / "deny.txt").write_text("192.0.2.1\n")
    world = World(tmp_path, deny_file=("deny.txt",))
    world.write("deny.txt", "192.0.2.2 # changed\n")
    world.threads.held = True
    world.reloader.reload()
    world.look()
    world.threads.go_on()
    assert len(world.applied) == 1


def test_a_reload_waits_for_a_check_of_the_files(tmp_path: Path) -> None:
    """A reload during a check of the files runs after it."""
    (tmp_path / "deny.txt").write_text("192.0.2.1\n")
    world = World(tmp_path, deny_file=("deny.txt",))
    world.write("deny.txt", "192.0.2.2 # changed\n")
    world.threads.held = True
    world.reloader.refresh_lists()
    outcomes: list[ReloadOutcome] = []
    assert isinstance(world.wanted, Settings)
    world.wanted = replace(world.wanted, grace_s=1.0)
    world.reloader.reload().addCallback(outcomes.append)
    assert outcomes == []
    world.threads.go_on()
    assert outcomes == [ReloadOutcome(["grace"], [])]
    assert world.applied[-1][2] == CidrSet(["192.0.2.2"])


# List files


def test_lists_that_change_are_taken_over(tmp_path: Path, log: Captured) -> None:
    """Changed list files are applied without a request, with one line."""
    (tmp_path / "allow.txt").write_text("")
    (tmp_path / "deny.txt").write_text("192.0.2.1\n")
    world = World(tmp_path, deny=CidrSet(["192.0.2.9"]), deny_file=("deny.txt",), allow_file=("allow.txt",))
    world.look()
    assert world.applied == []
    world.write("deny.txt", "192.0.2.2\n192.0.2.3 # and more\n")
    world.look()
    ((settings, allow, deny),) = world.applied
    assert (settings, len(allow)) == (world.reloader.settings, 0)
    assert deny == CidrSet(["192.0.2.9", "192.0.2.2", "192.0.2.3"])
    assert log.texts == [f"lists reloaded, {len(deny)} networks"]


def test_a_bad_line_keeps_the_old_list(tmp_path: Path, log: Captured) -> None:
    """A bad list file is reported once and keeps its old list; the other list is applied."""
    (tmp_path / "allow.txt").write_text("192.0.2.1\n")
    (tmp_path / "deny.txt").write_text("192.0.2.1\n")
    world = World(tmp_path, deny_file=("deny.txt",), allow_file=("allow.txt",))
    world.write("deny.txt", "nonsense, and a lot of it\n")
    for _ in range(3):
        world.look()
    assert world.applied == []
    (line,) = log.texts
    assert line.startswith(f"list not applied: {tmp_path}/deny.txt:1: 'nonsense, and a lot of it' is not a network")
    world.write("allow.txt", "198.51.100.0/24\n")
    world.look()
    assert world.applied[0][1:] == (CidrSet(["198.51.100.0/24"]), CidrSet(["192.0.2.1"]))
    assert world.reloader.failures == 1


@dataclass(frozen=True, kw_only=True)
class NostrSettings(NostrOptions, SharedSettings):
    """Settings with lists that belong to a protocol."""


def test_lists_of_protocols(tmp_path: Path, log: Captured) -> None:
    """Lists of protocols are in the settings that these get, also after a file has changed, and named by a reload."""
    (tmp_path / "kinds.txt").write_text("1 # notes\n30000-30001\n")
    settings = NostrSettings(nostr_deny_kind=frozenset({7}), nostr_deny_kind_file=("kinds.txt",))
    lists, seen = Lists(settings, tmp_path), []
    assert lists.merged(settings) is settings
    lists.load()
    reloader = Reloader(
        settings,
        lists,
        tmp_path,
        lambda: settings,
        lambda given, now_in_force: seen.append(now_in_force.merged(given).nostr_deny_kind),
        Threads().defer,
    )
    assert lists.merged(settings).nostr_deny_kind == {1, 7, 30000, 30001}
    (tmp_path / "kinds.txt").write_text("2 # changed\n")
    reloader.refresh_lists()
    assert seen == [{2, 7}]
    (tmp_path / "kinds.txt").write_text("3, no\n")
    reloader.refresh_lists()
    assert log.texts[0] == "nostr-deny-kind-file reloaded, 2 entries"
    assert log.texts[1].startswith(f"list not applied: {tmp_path}/kinds.txt:1: '3, no' is not a kind")
    (tmp_path / "kinds.txt").write_text("4 # for a reload\n")
    outcomes: list[ReloadOutcome] = []
    reloader.reload().addCallback(outcomes.append)
    assert outcomes == [ReloadOutcome(["nostr-deny-kind-file"], [])]
    assert seen == [{2, 7}, {4, 7}]


def test_a_bad_list_at_the_start(tmp_path: Path) -> None:
    """A bad list file at the start is an error of the caller."""
    with pytest.raises(ListFileError, match=r"nowhere\.txt"):
        World(tmp_path, allow_file=("nowhere.txt",))
