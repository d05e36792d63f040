"""The declaration of options, and the three sources of their values: TOML file < environment < command line. PURE.

`option(...)` declares an option as a field of a dataclass, `options_of` lists the options of a dataclass, `collect`
reads their values from the three sources, and `to_toml` writes them back.

Invariants: a source replaces the values of a lower one completely, never in part. Every value is checked, even if
another replaces it. The value of a secret option appears in no error and in no text that this module makes.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from pyryrelay.config.types import InvalidValueError, OptionType, Texts
from pyryrelay.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

T = TypeVar("T")

ENVIRONMENT_PREFIX: Final = "PYRYRELAY_"
COMMAND_LINE: Final = "command line"
DEFAULT: Final = "default"
"""The source of what no source gives."""
COMMAND_LINE_ONLY: Final = ("config", "check", "whoami")
"""Options of the program rather than of the relay. Only `config` has an environment variable too."""

SEE_HELP: Final = "see twistd pyryrelay --help for all options"

OTHER_VARIABLES: Final = ("CONFIG", "ADMIN_URL", "ADMIN_TOKEN_FILE")
"""Variables with our prefix that are no options of the relay: for its file, and for the command ``pyryrelay``."""

_TOML_NAMES: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_INJECTED: Final = re.compile(r"(?:^|_)(?:SERVICE_HOST|SERVICE_PORT|PORT)(?:_|$)")
"""Names of the variables that Kubernetes sets for a Service named pyryrelay or pyryrelay-anything."""


class SettingsError(ValueError):
    """A setting that cannot be used. `str()` is one printable line with option, value, source and fix.

    `option` is the name of the option without dashes, or "" if no option is meant. `source` is "command line",
    "environment variable NAME", "FILE: key", or "default". `problem` says what is wrong with the value, and `fix` what
    to do about it.
    """

    def __init__(self, option: str, source: str, problem: str, fix: str) -> None:
        head = f"--{option} (from {source}): " if option else ""
        super().__init__(printable(f"{head}{problem}; {fix}"))
        self.option = option
        self.source = source
        self.problem = problem
        self.fix = fix


def did_you_mean(word: str, names: Sequence[str], prefix: str = "") -> str:
    """Return the fix for an unknown name: the closest known name with `prefix`, or where all options are listed."""
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else SEE_HELP


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `name` as on the command line, `field` as in the dataclass that declares it.

    `group`, `help` and `why` are documentation, in whole sentences with Markdown code; `why` gives the reason for the
    default. `example` has texts that `type` reads. With `restart`, a reload cannot change the option.
    """

    default: Any
    type: OptionType[Any]
    group: str
    help: str
    example: Texts
    why: str
    secret: bool
    name: str
    restart: bool
    field: str = ""

    @property
    def environment(self) -> str:
        """The name of the environment variable that sets the option."""
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()

    def read(self, texts: Texts, source: str) -> Any:
        """Return the value that `texts` stand for. A single empty text stands for no values of a repeatable option.

        Raises `SettingsError`.
        """
        values = () if self.type.repeatable and texts == ("",) else texts
        try:
            for text in values:
                if not (self.secret or text.isprintable()):
                    raise InvalidValueError(text, "holds a control character")
            return self.type.read(values)
        except InvalidValueError as invalid:
            if self.secret or not self.type.quotes:
                raise self.error(source, "the value (withheld) does not fit") from None
            raise self.error(source, f"{quoted(invalid.text)} {invalid.problem}", invalid.fix) from None

    def error(self, source: str, problem: str, fix: str = "") -> SettingsError:
        """Return an error about this option. The default `fix` shows how values of its type are written."""
        type_fix = f'{self.type.fix}, for example "{self.example[0]}"'
        return SettingsError(self.name, source, problem, fix or type_fix)

    def toml(self, value: Any) -> str:
        """Return `value` as it is written in a TOML file."""
        texts = self.type.write(value)
        # ``off`` is a string in TOML, for numbers as well as for quotas.
        is_bare = isinstance(value, self.type.toml_types)
        items = [text if is_bare else _toml_string(text) for text in texts]
        return f"[{', '.join(items)}]" if self.type.repeatable else items[0]


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def option(
    default: T,
    option_type: OptionType[T],
    group: str,
    *,
    help: str,  # noqa: A002
    example: str | Texts,
    why: str,
    secret: bool = False,
    restart: bool = False,
    name: str = "",
) -> T:
    """Declare an option as a field of a dataclass. The default `name` is the field's name with hyphens.

    With `restart`, a change takes effect only at the next start: a reload names the option and keeps its value.
    """
    examples = (example,) if isinstance(example, str) else example
    declared = Option(default, option_type, group, help, examples, why, secret, name, restart)
    return field(default_factory=lambda: default, repr=not secret, metadata={"option": declared})


def options_of(declaring: type) -> tuple[Option, ...]:
    """Return the options that the fields of a dataclass declare, in the order of the fields."""
    declared = ((f.name, f.metadata["option"]) for f in fields(declaring) if "option" in f.metadata)
    return tuple(replace(o, field=name, name=o.name or name.replace("_", "-")) for name, o in declared)


@dataclass(frozen=True, slots=True)
class Collected:
    """The values that the sources give, by field name, and the source of each one, by option name."""

    values: dict[str, Any]
    origins: dict[str, str]


Assignment = tuple[Option, Texts, str]
"""An option, the texts that a source gives it, and the name of the source."""


def collect(
    options: Sequence[Option],
    toml: Mapping[str, object],
    env: Mapping[str, str],
    argv: Mapping[str, Sequence[str]],
    toml_name: str,
) -> Collected:
    """Return the values that a parsed TOML file, the environment and the command line give together.

    `argv` maps the names of options to their values in the order given. If an option is not repeatable, its last value
    counts. Raises `SettingsError` for the first error, starting with the lowest source.
    """
    collected = Collected({}, {})
    for assignments in (_from_toml(options, toml, toml_name), _from_env(options, env), _from_argv(options, argv)):
        for option, texts, source in assignments:
            collected.values[option.field] = option.read(texts, source)
            collected.origins[option.name] = source
    return collected


def _from_toml(options: Sequence[Option], toml: Mapping[str, object], file: str) -> Iterator[Assignment]:
    by_name = {option.name: option for option in options}
    seen: set[str] = set()
    for key, value in toml.items():
        source = f"{file}: {key}"
        name = key.replace("_", "-")
        if name in COMMAND_LINE_ONLY:
            raise SettingsError(name, source, "is for the command line only", "remove it from the file")
        option = by_name.get(name)
        if option is None:
            raise SettingsError(name, source, "no such option", did_you_mean(name, list(by_name)))
        if name in seen:
            raise option.error(source, "is written with hyphens and with underscores", "keep one of the two")
        seen.add(name)
        yield option, _toml_texts(option, value, source), source


def _toml_texts(option: Option, value: object, source: str) -> Texts:
    items = _toml_items(option.type, value)
    texts = tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in items)
    for item, text in zip(items, texts, strict=True):
        # The exact type counts: in Python a boolean is an integer, for operators it is not.
        if type(item) not in (str, *option.type.toml_types):
            found = _TOML_NAMES.get(type(item), "a date or time")
            shown = "the value (withheld)" if option.secret else quoted(text)
            raise option.error(source, f"{shown} is {found}, which does not fit")
    return texts


def _toml_items(option_type: OptionType[Any], value: object) -> list[object]:
    """Return the items of a TOML value. An entry of a table becomes KEY=VALUE, as on the command line."""
    if option_type.table and isinstance(value, dict):
        return [f"{key}={entry}" if isinstance(entry, str) else entry for key, entry in value.items()]
    return value if option_type.repeatable and isinstance(value, list) else [value]


def _from_env(options: Sequence[Option], env: Mapping[str, str]) -> Iterator[Assignment]:
    by_variable = {option.environment: option for option in options}
    for variable, text in env.items():
        source = f"environment variable {variable}"
        option = by_variable.get(variable)
        if option is not None:
            yield option, _env_texts(option.type, text), source
        elif variable.startswith(ENVIRONMENT_PREFIX):
            _refuse_unknown(variable, source, by_variable)


def _env_texts(option_type: OptionType[Any], text: str) -> Texts:
    """Return the values in an environment variable."""
    if not option_type.repeatable:
        return (text,)
    values = (value.strip() for value in text.split(option_type.separator))
    return tuple(filter(None, values))


def _refuse_unknown(variable: str, source: str, variables: Mapping[str, Option]) -> None:
    """Refuse a name that does not exist, because it is probably a typing error, unless Kubernetes has set it."""
    rest = variable.removeprefix(ENVIRONMENT_PREFIX)
    if rest in OTHER_VARIABLES or _INJECTED.search(rest):
        return
    names = [*(name.removeprefix(ENVIRONMENT_PREFIX) for name in variables), *OTHER_VARIABLES]
    close = difflib.get_close_matches(rest.upper().replace("-", "_"), names, n=1)
    meant = f"did you mean {ENVIRONMENT_PREFIX}{close[0]}? Rename it, or unset it" if close else "unset it"
    raise SettingsError("", source, f"environment variable {variable}: no such option", meant)


def _from_argv(options: Sequence[Option], argv: Mapping[str, Sequence[str]]) -> Iterator[Assignment]:
    by_name = {option.name: option for option in options}
    for name, texts in argv.items():
        option = by_name.get(name)
        if option is None:
            raise SettingsError(name, COMMAND_LINE, "no such option", did_you_mean(name, list(by_name), "--"))
        if texts:
            yield option, tuple(texts) if option.type.repeatable else tuple(texts[-1:]), COMMAND_LINE


class EffectiveSetting(NamedTuple):
    """An option as on the command line (``--grace``), its value as text, and where that comes from.

    The source is ``default``, ``command line``, ``environment variable NAME``, ``FILE: KEY``, or a preset.
    """

    name: str
    value: str
    source: str


def to_rows(options: Sequence[Option], settings: object, origins: Mapping[str, str]) -> list[EffectiveSetting]:
    """Return a row for each option. Values of secrets are withheld."""
    return [
        EffectiveSetting(
            f"--{option.name}",
            "(withheld)" if option.secret else _one_line(option.type, getattr(settings, option.field)),
            printable(origins.get(option.name, DEFAULT)),
        )
        for option in options
    ]


def _one_line(option_type: OptionType[Any], value: object) -> str:
    """Return a value as one printable line: several are separated as in the environment, and none is ""."""
    separator = option_type.separator
    return printable((" " if separator is None else f"{separator} ").join(option_type.write(value)))


def to_toml(options: Sequence[Option], settings: object, origins: Mapping[str, str]) -> str:
    """Return all options of `settings` as TOML, by group. The source of each value that is not the default is noted."""
    lines = ["# The effective settings of pyryrelay, ready to be used with --config."]
    group = ""
    for option in options:
        if option.group != group:
            group = option.group
            lines += ["", f"# {group}"]
        lines.append(_toml_line(option, getattr(settings, option.field), origins.get(option.name, "code")))
    return "\n".join(lines) + "\n"


def _toml_line(option: Option, value: object, origin: str) -> str:
    if option.secret:
        return f"# {option.name}: withheld"
    line = f"{option.name} = {option.toml(value)}"
    return line if value == option.default else f"{line}  # from {printable(origin)}"
