"""The command line of ``twistd pyryrelay``: `usage.Options` made from the options of a class of settings.

Invariants: every error is exactly one line on standard error and exit code 2, never a traceback (twistd itself would
print the whole help and exit with 0 or 1). No port is bound before the service starts. ``--check`` changes nothing, and
prints the same each time.
"""

from __future__ import annotations

import datetime
import getopt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from twisted.python import usage

from pyryrelay import __version__
from pyryrelay.admin.tokens import check_token_file
from pyryrelay.cli.output import write
from pyryrelay.cli.start_checks import check_certificates, check_endpoints, check_lists, explain_clients
from pyryrelay.cluster.secret import check_instance, check_secret_file
from pyryrelay.config.reference import (
    CHECK_HELP,
    CONFIG_HELP,
    CONFIG_VARIABLE,
    EXAMPLES,
    HELP_HELP,
    VERSION_HELP,
    WHOAMI_HELP,
    help_text,
)
from pyryrelay.config.settings import SharedSettings, effective
from pyryrelay.config.sources import COMMAND_LINE, SEE_HELP, Option, SettingsError, did_you_mean
from pyryrelay.config.toml_file import parse_toml, toml_content
from pyryrelay.preflight.cluster.listening import reachable
from pyryrelay.preflight.cluster.servers import cluster_servers
from pyryrelay.preflight.files import twistd_folders
from pyryrelay.preflight.inspection import Situation, endpoints, inspect
from pyryrelay.preflight.report import Report, report
from pyryrelay.runtime.process import EarlySighup
from pyryrelay.runtime.stale_files import PidFile
from pyryrelay.text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EXIT_USAGE: Final = 2


class TwistdOptions(usage.Options):
    """Parses the command line. Afterwards `settings` has the result, an instance of the subclass's `settings_type`.

    `environ` is the environment to read, by default `os.environ`. `reactor` is passed to Twisted's endpoint parsers, by
    default the installed reactor. `warnings` are to be logged at the start, a line each.

    Relative file names start at `base`: the folder that ``--rundir`` of twistd names, by default the current one. Under
    twistd, which is then the `parent`, a SIGHUP no longer ends the process once parsing begins; `sighup` records it.
    """

    settings_type: ClassVar[type[SharedSettings]] = SharedSettings
    synopsis = "[options]"
    longdesc = EXAMPLES
    settings: SharedSettings

    def __init_subclass__(cls, **others: Any) -> None:
        """Add the method that Twisted looks for to each option. It collects all uses of a repeated option."""
        super().__init_subclass__(**others)
        for option in cls.settings_type.options():
            _add_option(cls, option)

    def __init__(self, environ: Mapping[str, str] | None = None, reactor: object = None) -> None:
        self.environ = os.environ if environ is None else environ
        self.reactor = reactor
        self.values_by_option: dict[str, list[str]] = {}
        self.config_files: list[str] = []
        self.check = False
        self.whoami: list[str] = []
        self.settings = self.settings_type()
        self.base = Path.cwd()
        self.warnings: list[str] = []
        self.sighup = EarlySighup()
        self._config_path: str | None = None
        self._config_name = ""
        self._checked: set[str] = set()
        self.inherited: frozenset[str] = frozenset()
        """Endpoints whose sockets another process has handed over."""
        self.worker_index: int | None = None
        """The number of this process, if it is one of several that serve as one relay."""
        self.configuration: bytes | None = None
        """The content of the configuration file, as it was read last; None if there is no file."""
        self.given: bytes | None = None
        """The content that another process has read, which takes the place of the file."""
        self.is_successor = False
        self.is_worker = False
        """Whether this process is one of several, so that what it finds in use belongs to the relay itself."""
        self.expected_conflicts: Sequence[str] = ()
        """What another process holds until it has handed over."""
        super().__init__()

    def opt_config(self, path: str) -> None:
        self.config_files.append(path)

    opt_config.__doc__ = CONFIG_HELP

    def opt_check(self) -> None:
        self.check = True

    opt_check.__doc__ = CHECK_HELP

    def opt_whoami(self, text: str) -> None:
        self.whoami.append(text)

    opt_whoami.__doc__ = WHOAMI_HELP

    def opt_help(self) -> NoReturn:
        write(f"{self}\n")
        raise SystemExit(0)

    opt_help.__doc__ = HELP_HELP

    def opt_version(self) -> NoReturn:
        write(f"pyryrelay {__version__}\n")
        raise SystemExit(0)

    opt_version.__doc__ = VERSION_HELP

    def parseArgs(self, *args: str) -> None:
        """Refuse positional arguments: every setting has a name."""
        if args:
            hint = "options begin with --, and a switch takes no value"
            raise SettingsError("", COMMAND_LINE, f"unexpected argument {quoted(args[0])}", hint)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802
        """Parse `options`, by default the arguments of the process. Exits as the module's docstring says."""
        self.values_by_option, self.config_files, self.check, self.whoami = {}, [], False, []
        self._config_path, self._checked = None, set(self.inherited)
        if self.parent is not None:
            self.sighup.install()
        try:
            super().parseOptions(options)
        except SettingsError as error:
            refuse_start(str(error))
        except usage.UsageError as error:
            refuse_start(str(self._settings_error(error)))

    def postOptions(self) -> None:
        """Collect and check the settings. With ``--check``, print the result and exit."""
        twistd_options: Mapping[str, Any] = self.parent or {}
        for finding in twistd_folders(twistd_options):
            refuse_start(str(finding))
        # twistd changes the current directory later, and a reload must find the same files.
        self.base = Path.cwd() / (twistd_options.get("rundir") or ".")
        self.settings = self.read()
        check_lists(self.settings, self.base)
        check_token_file(self.settings, self.base)
        check_secret_file(self.settings, self.base)
        check_instance(self.settings, has_workers=self.worker_index is None and self.settings.worker_count > 1)
        explained = explain_clients(self.settings, self.whoami)
        if self.whoami and not self.check:
            raise SettingsError(
                "whoami", COMMAND_LINE, f"{quoted(self.whoami[0])} has no effect without --check", "add --check"
            )
        if self.check:
            self._show(explained)
        found = self._inspect()
        found.fatal = [line for line in found.fatal if line not in self.expected_conflicts]
        self.warnings = _unless_fatal(found).warnings
        if self.is_successor:
            return
        self._check_pid_file(twistd_options.get("pidfile") or "")
        if not twistd_options.get("nodaemon", True):
            # Once the relay is in the background, errors cannot be printed any more.
            for finding in endpoints(self.settings, self.base):
                refuse_start(str(finding))

    def _inspect(self) -> Report:
        """Return what the preflight finds. ``--check`` also tries to listen."""
        situation = Situation(self.base, self.parent or {}, self._config_name, datetime.datetime.now(datetime.UTC))
        tried = (endpoints, cluster_servers, reachable) if self.check else ()
        found = [finding for look in tried for finding in look(self.settings, self.base)]
        ignores_conflicts = self.check or self.is_worker
        return report([*found, *inspect(self.settings, situation)], self.settings, is_check=ignores_conflicts)

    def _check_pid_file(self, name: str) -> None:
        """Check the pid file before twistd does, which takes any process with that number for a running relay."""
        pid_file = PidFile(Path(name))
        owner = pid_file.owner() if name else None
        if owner is not None:
            fix = "stop it, or give this relay another pid file"
            refuse_start(f"--pidfile (of twistd): a running relay, process {owner}, uses {name!r}; {fix}")
        if name and pid_file.is_stale() and pid_file.remove():
            self.warnings.append(f"--pidfile (of twistd): removed the stale file {name!r} of a relay that was killed")

    def _show(self, explained: Sequence[str]) -> NoReturn:
        """Print what would prevent a start, warnings, and the effective settings, and exit."""
        found = self._inspect()
        for line in found.fatal:
            print(f"pyryrelay: {line}", file=sys.stderr)
        for line in found.warnings:
            print(f"pyryrelay: warning: {line}", file=sys.stderr)
        for line in found.notes:
            print(f"pyryrelay: {line}", file=sys.stderr)
        if found.fatal:
            raise SystemExit(EXIT_USAGE)
        for line in explained:
            write(f"# {line}\n")
        write(effective(self.settings))
        raise SystemExit(0)

    def read(self) -> Any:
        """Return the settings that file, environment and command line give now. Raises `SettingsError`.

        It may be called again while the relay runs, in another current directory.
        """
        toml, name = self._read_config()
        self._config_name = name
        settings = self.settings_type.from_sources(toml, self.environ, self.values_by_option, toml_name=name)
        settings = self.prepared(settings)
        # Only new endpoints: the sockets of systemd are not available later.
        check_endpoints(settings, self.reactor, known=self._checked, base=self.base)
        if not self._checked:
            check_certificates(settings, self.base)
        self._checked |= {*settings.listen, settings.admin_listen, settings.cluster_listen}
        return settings

    def prepared(self, settings: Any) -> Any:
        """Return the settings of this process, with its number in endpoints, unless it opens those of all workers."""
        if self.worker_index is None and settings.worker_count > 1:
            return settings
        return settings.of_worker(self.worker_index or 0)

    def _read_config(self) -> tuple[dict[str, object], str]:
        """Return the parsed configuration file and its name; both are empty if there is none."""
        source = COMMAND_LINE
        paths = self.config_files
        if not paths and CONFIG_VARIABLE in self.environ:
            source, paths = f"environment variable {CONFIG_VARIABLE}", [self.environ[CONFIG_VARIABLE]]
        if len(paths) > 1:
            problem = f"{quoted(paths[0])} and {quoted(paths[1])} are both given"
            raise SettingsError("config", source, problem, "put all settings into one file")
        if not paths:
            return {}, ""
        name = paths[0]
        if self._config_path is None:
            self._config_path = str(self.base / name) if name else name
        content = toml_content(self._config_path, source, name) if self.given is None else self.given
        found = parse_toml(content, source, name or self._config_path)
        self.configuration = content
        return found, name

    def _settings_error(self, error: usage.UsageError) -> SettingsError:
        """Return the error for one of getopt, which Twisted wraps."""
        cause = error.__context__
        if not isinstance(cause, getopt.GetoptError):
            return SettingsError("", COMMAND_LINE, str(error), SEE_HELP)
        name = cause.opt
        dashed = f"--{name}" if f"--{name}" in str(cause) else f"-{name}"
        known = sorted(long.rstrip("=") for long in self.longOpt)
        if name in known:
            takes_value = f"{name}=" in self.longOpt
            problem = "its value is missing" if takes_value else "a switch takes no value"
            fix = f'write {dashed} VALUE, or {dashed} "" for none' if takes_value else f"write {dashed} alone"
            return SettingsError(name, COMMAND_LINE, problem, fix)
        meant = [long for long in known if f"--{long}".startswith(dashed)]
        if meant:
            fix = f"write one of {', '.join(f'--{long}' for long in meant)}"
            return SettingsError(name, COMMAND_LINE, "is the beginning of several options", fix)
        if self._is_of_twistd(name):
            fix = f"write it before pyryrelay: twistd {dashed} pyryrelay"
            return SettingsError("", COMMAND_LINE, f"{dashed} is an option of twistd", fix)
        return SettingsError("", COMMAND_LINE, f"no such option {dashed}", did_you_mean(name, known, "--"))

    def _is_of_twistd(self, name: str) -> bool:
        return self.parent is not None and name in self.parent.synonyms

    def getUsage(self, width: int | None = None) -> str:
        """Return the options by group, then examples."""
        return help_text(self.settings_type.options(), width or 80)


def _add_option(options: type[TwistdOptions], option: Option) -> None:
    def with_value(self: TwistdOptions, value: str) -> None:
        self.values_by_option.setdefault(option.name, []).append(value)

    def fixed(value: str) -> Callable[[TwistdOptions], None]:
        def switch(self: TwistdOptions) -> None:
            self.values_by_option.setdefault(option.name, []).append(value)

        return switch

    if option.type.flag:
        _add_method(options, option.name, fixed("true"), option.help)
        _add_method(options, f"no-{option.name}", fixed("false"), f"Turn --{option.name} off.")
    else:
        _add_method(options, option.name, with_value, option.help)


def _add_method(options: type[TwistdOptions], name: str, method: Any, doc: str) -> None:
    method.__doc__ = doc
    setattr(options, f"opt_{name.replace('-', '_')}", method)


class StartRefused(SystemExit):
    """The end of a process that cannot start; ``line`` says why and was printed."""

    def __init__(self, line: str) -> None:
        super().__init__(EXIT_USAGE)
        self.line = line


def refuse_start(line: str) -> NoReturn:
    """End the process with one line and exit code 2."""
    print(f"pyryrelay: {line}", file=sys.stderr)
    raise StartRefused(line)


def _unless_fatal(found: Report) -> Report:
    """Return what was found, or end the process with a line for each thing that prevents the start."""
    for line in found.fatal:
        print(f"pyryrelay: {line}", file=sys.stderr)
    if found.fatal:
        raise StartRefused(found.fatal[0])
    return found
