"""The relay's options in the three forms that operators write them in: TOML, environment, command line.

`RelayOptions` are texts by option, from any of the three; `as_toml`, `as_environment` and `as_command_line` write them.
Only what is given is written, so defaults stay defaults. Secrets are withheld. PURE.
"""

from __future__ import annotations

import getopt
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import COMMAND_LINE, Option, SettingsError, did_you_mean

__all__ = ["as_command_line", "as_environment", "as_toml", "given", "parse_command_line"]

PROGRAM: Final = "pyryrelay"
"""The word that the options follow, with or without ``run``."""

_PROGRAM_SWITCHES: Final = ("check", "help", "version")
_PROGRAM_OPTIONS: Final = ("whoami",)


class CommandLine:
    """The options of a relay on a command line: their texts by name, and the configuration files."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.config_files: list[str] = []
        self.left_out: list[str] = []
        """Words that are no settings: those of twistd, and of the program itself."""


def parse_command_line(options: Sequence[Option], words: Sequence[str]) -> CommandLine:
    """Parse a command line, from ``twistd`` on or only its options. Raises `SettingsError`."""
    parsed = CommandLine()
    parsed.left_out, words = _split(words)
    switches = {option.name for option in options if option.type.flag}
    names = [f"{option.name}{'' if option.name in switches else '='}" for option in options]
    names += [f"no-{name}" for name in switches]
    names += [*_PROGRAM_SWITCHES, "config=", *(f"{name}=" for name in _PROGRAM_OPTIONS)]
    try:
        found, others = getopt.getopt([*words], "", names)
    except getopt.GetoptError as error:
        known = [option.name for option in options]
        raise SettingsError("", COMMAND_LINE, str(error), did_you_mean(error.opt, known, "--")) from None
    if others:
        hint = "options begin with --, and a switch takes no value"
        raise SettingsError("", COMMAND_LINE, f"unexpected argument {others[0]!r}", hint)
    for dashed, value in found:
        name = dashed.removeprefix("--")
        if name == "config":
            parsed.config_files.append(value)
        elif name in (*_PROGRAM_SWITCHES, *_PROGRAM_OPTIONS):
            parsed.left_out.append(dashed)
        elif name in switches:
            parsed.values.setdefault(name, []).append("true")
        elif name.removeprefix("no-") in switches:
            parsed.values.setdefault(name.removeprefix("no-"), []).append("false")
        else:
            parsed.values.setdefault(name, []).append(value)
    return parsed


def _split(words: Sequence[str]) -> tuple[list[str], Sequence[str]]:
    """Return the words before the relay's options, and these."""
    if not words or words[0].startswith("-"):
        return [], words
    names = [words[0].rpartition("/")[2], *words[1:]]
    start = names.index(PROGRAM) + 1 if PROGRAM in names else 0
    if names[start : start + 1] == ["run"]:
        start += 1
    return [word for word in names[:start] if word != PROGRAM], words[start:]


def given(settings: SharedSettings) -> Iterator[tuple[Option, Any]]:
    """Yield each option that a source has given, with its value, in the order of the reference."""
    for option in settings.options():
        if option.name in settings.origins:
            yield option, getattr(settings, option.field)


def as_toml(settings: SharedSettings) -> Iterator[str]:
    """Yield the lines of a configuration file."""
    group = ""
    for option, value in given(settings):
        if option.group != group:
            yield from ([""] if group else [])
            group = option.group
            yield f"# {group}"
        yield f"# {option.name}: withheld" if option.secret else f"{option.name} = {option.toml(value)}"


def as_environment(settings: SharedSettings) -> Iterator[str]:
    """Yield variables, quoted for a shell and for EnvironmentFile= of systemd. Raises `SettingsError`."""
    for option, value in given(settings):
        if option.secret:
            yield f"# {option.environment}: withheld"
            continue
        texts = option.type.write(value)
        separator = option.type.separator or " "
        text = separator.join(texts)
        if option.type.repeatable and tuple(_split_values(text, option.type.separator)) != texts:
            problem = "has a value with the separator of the environment in it"
            raise settings.error(option.name, problem, "write it into a configuration file")
        yield f"{option.environment}={shlex.quote(text)}"


def _split_values(text: str, separator: str | None) -> Iterator[str]:
    return filter(None, (value.strip() for value in text.split(separator)))


def as_command_line(settings: SharedSettings) -> list[str]:
    """Return the words of a command line."""
    words: list[str] = []
    for option, value in given(settings):
        if option.secret:
            continue
        texts = option.type.write(value)
        if option.type.flag:
            # A switch that is neither on nor off is what it is without an option.
            words += {"true": [f"--{option.name}"], "false": [f"--no-{option.name}"]}.get(texts[0], [])
        elif option.type.repeatable and not texts:
            words += [f"--{option.name}", ""]
        else:
            words += [word for text in texts for word in (f"--{option.name}", text)]
    return words
