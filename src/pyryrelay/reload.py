"""Reload: read the configuration again, check all of it, and apply it, or change nothing.

List files are read in a thread. No peer is disconnected.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks, succeed
from twisted.logger import Logger

from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.config.derive import differences
from pyryrelay.config.list_files import Entries, ListFileError, ListFiles, list_options
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import SettingsError
from pyryrelay.config.types import NETWORKS
from pyryrelay.guard import CidrSet, GuardError

_log = Logger(namespace="pyryrelay")


SettingsT = TypeVar("SettingsT", bound=SharedSettings)


class Lists:
    """The lists of one set of settings, each from an option and its files together.

    Relative paths start at ``base``, because twistd changes the current directory.
    """

    def __init__(self, settings: SharedSettings, base: Path) -> None:
        self._files: dict[str, ListFiles[Any]] = {}
        for about, twin in list_options(settings):
            paths = [str(base / path) for path in getattr(settings, twin.field)]
            self._files[about.field] = ListFiles(getattr(settings, about.field), paths, Entries.of(about))

    @property
    def entries(self) -> dict[str, Any]:
        """The entries of all lists, by the fields of their options."""
        return {field: files.entries for field, files in self._files.items()}

    @property
    def networks(self) -> tuple[CidrSet, CidrSet]:
        """The allowed and the denied networks."""
        return self._files["allow"].entries, self._files["deny"].entries

    def merged(self, settings: SettingsT) -> SettingsT:
        """Return the settings of these lists with the entries of the files in their options, for protocols."""
        new = {field: entries for field, entries in self.entries.items() if entries != getattr(settings, field)}
        return replace(settings, **new) if new else settings

    def load(self) -> None:
        """Read all files. Raises `ListFileError`."""
        for files in self._files.values():
            files.load()

    def changed(self) -> bool:
        """Return whether a file has changed since it was read."""
        return any(files.changed() for files in self._files.values())

    def refresh(self) -> tuple[list[str], tuple[ListFileError, ...]]:
        """Read the files that changed. Returns the fields of the lists that have changed, and the errors."""
        results = {field: files.refresh() for field, files in self._files.items()}
        changed = [field for field, result in results.items() if result.entries is not None]
        return changed, tuple(error for result in results.values() for error in result.errors)


class Reloader(Generic[SettingsT]):
    """Reads settings and lists again and applies them with ``apply``.

    ``reread`` returns the new settings, or raises `SettingsError`. `settings` are those in force: options that a reload
    cannot change keep the value of the start. ``prepare`` reads in a thread what settings name besides lists, and
    returns what takes it into use; it may raise `SettingsError`. `failures` counts reloads that changed nothing, and
    files of lists that could not be applied. Call `begin` when ``apply`` can be called.
    """

    def __init__(
        self,
        settings: SettingsT,
        lists: Lists,
        base: Path,
        reread: Callable[[], SettingsT],
        apply: Callable[[SettingsT, Lists], None],
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        prepare: Callable[[SettingsT], Callable[[], None]] = lambda settings: lambda: None,
    ) -> None:
        self.settings = settings
        self._lists = lists
        self._base = base
        self._reread = reread
        self._apply = apply
        self._in_thread = in_thread
        self._prepare = prepare
        self._lock = DeferredLock()
        self.failures = 0

    def begin(self) -> None:
        """Apply the settings and lists of the start."""
        self._apply(self.settings, self._lists)

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and all list files again."""
        return run_reload(self._lock, self._reload)

    @inlineCallbacks
    def _reload(self) -> Generator[Deferred[Any], Any, ReloadOutcome]:
        try:
            outcome = yield from self._reload_or_raise()
        except (SettingsError, ListFileError, GuardError) as error:
            outcome = ReloadOutcome(error=str(error))
        except Exception:
            _log.failure("A reload failed")
            outcome = ReloadOutcome(error="the reload failed: see the log of the relay")
        self.failures += outcome.error is not None
        _log_outcome(outcome)
        return outcome

    def _reload_or_raise(self) -> Generator[Deferred[Any], Any, ReloadOutcome]:
        wanted = self._reread()
        pending = [name for name in differences(self.settings, wanted) if wanted.by_name()[name].restart]
        settings = _without(self.settings, wanted, pending)
        lists = Lists(settings, self._base)
        yield self._in_thread(lists.load)
        finish = yield self._in_thread(lambda: self._prepare(settings))
        names = differences(self.settings, settings)
        before, after = self._lists.entries, lists.entries
        for about, twin in list_options(settings):
            if before[about.field] != after[about.field] and not {about.name, twin.name} & {*names}:
                names.append(twin.name)
        self._apply(settings, lists)
        finish()
        self.settings, self._lists = settings, lists
        return ReloadOutcome(names, pending)

    def refresh_lists(self) -> Deferred[None]:
        """Apply list files that changed. Errors are logged, and the old list of such a file stays in force."""
        if self._lock.locked or not self._lists.changed():
            return succeed(None)
        return self._lock.run(self._refresh_lists)

    @inlineCallbacks
    def _refresh_lists(self) -> Generator[Deferred[Any], Any, None]:
        changed, errors = yield self._in_thread(self._lists.refresh)
        self.failures += len(errors)
        for error in errors:
            _log.error("list not applied: {warning}", warning=str(error))
        if not changed:
            return
        self._apply(self.settings, self._lists)
        if {"allow", "deny"} & {*changed}:
            _log.info("lists reloaded, {count} networks", count=sum(map(len, self._lists.networks)))
        entries = self._lists.entries
        for about, twin in list_options(self.settings):
            if about.field in changed and about.type is not NETWORKS:
                _log.info("{kind} reloaded, {count} entries", kind=twin.name, count=len(entries[about.field]))


def run_reload(lock: DeferredLock, reload: Callable[[], Deferred[ReloadOutcome]]) -> Deferred[ReloadOutcome]:
    """Reload while no other reload with the same lock runs. At most one waits for that; more are refused."""
    if lock.waiting:
        return succeed(ReloadOutcome(error="another reload is about to start, and will read the current configuration"))
    return lock.run(reload)


def _without(running: SettingsT, wanted: SettingsT, pending: Sequence[str]) -> SettingsT:
    """Return the wanted settings, with the running values of options that need a restart.

    Raises `SettingsError` if these contradict each other.
    """
    fields = [wanted.by_name()[name].field for name in pending]
    try:
        return replace(wanted, **{name: getattr(running, name) for name in fields})
    except SettingsError as error:
        name = pending[0]
        problem = f"cannot change without a restart, and the other changes need it ({error.problem})"
        raise wanted.error(name, problem, "restart the relay") from None


def _log_outcome(outcome: ReloadOutcome) -> None:
    """Log the outcome of a reload, and the options that need a restart."""
    if outcome.error is not None:
        _log.error("reload changed nothing: {warning}", warning=outcome.error)
        return
    _log.info("reloaded, changed: {kind}", kind=", ".join(outcome.changed) or "nothing")
    if outcome.needs_restart:
        _log.warn("changed in the configuration, but needs a restart: {kind}", kind=", ".join(outcome.needs_restart))
