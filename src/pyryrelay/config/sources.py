"""What an option is, and how its value is collected: TOML file < environment < command line. PURE.

`option(...)` declares an option as a field of a dataclass, `options_of` lists the options of one, `collect`
reads their values from the three sources and `to_toml` writes them back.
Invariants: a source replaces a lower one whole, never in part; every value is checked, also one that is
replaced; the value of a secret option appears in no error and no text that this module makes.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pyryrelay.config.types import Kind, MismatchError, Texts
from pyryrelay.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

T = TypeVar("T")

ENVIRONMENT_PREFIX: Final = "PYRYRELAY_"
COMMAND_LINE: Final = "command line"
COMMAND_LINE_ONLY: Final = ("config", "check", "whoami")
"""Options of the program rather than of the relay; `config` has an environment variable too."""

SEE_HELP: Final = "see twistd pyryrelay --help for all options"

_TOML_NAMES: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_INJECTED: Final = re.compile(r"(?:^|_)(?:SERVICE_HOST|SERVICE_PORT|PORT)(?:_|$)")
"""What Kubernetes calls the variables it injects for a Service named pyryrelay or pyryrelay-anything."""


class SettingsError(ValueError):
    """A setting that cannot be used; `str()` is one printable line with option, value, source and fix; whoever
    prints it puts the program's name before it.

    `option` is the name without dashes, or "" where no option is meant; `source` is "command line",
    "environment variable NAME", "FILE: key", or "default"; `problem` is the phrase about the value.
    """

    def __init__(self, option: str, source: str, problem: str, fix: str) -> None:
        head = f"--{option} (from {source}): " if option else ""
        super().__init__(printable(f"{head}{problem}; {fix}"))
        self.option = option
        self.source = source
        self.problem = problem


def did_you_mean(word: str, names: Sequence[str], prefix: str = "") -> str:
    """The fix for a name that does not exist: its closest match, written with `prefix`, or where to look."""
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else SEE_HELP


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `name` as on the command line, `field` as in the dataclass that declares it.

    `group`, `help` and `why` are for people, in plain sentences with Markdown code; `why` tells why the
    default is what it is. `example` holds texts that `kind` reads. `restart`: a reload cannot change it.
    """

    default: Any
    kind: Kind[Any]
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
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()

    def read(self, texts: Texts, source: str) -> Any:
        """The value that `texts` mean; one empty text means none of a repeatable option. Raises
        `SettingsError`."""
        given = () if self.kind.repeatable and texts == ("",) else texts
        try:
            for text in given:
                if not (self.secret or text.isprintable()):
                    raise MismatchError(text, "holds a control character")
            return self.kind.read(given)
        except MismatchError as mismatch:
            if self.secret:
                raise self.error(source, "the value (withheld) does not fit") from None
            raise self.error(source, f"{quoted(mismatch.text)} {mismatch.problem}", mismatch.fix) from None

    def error(self, source: str, problem: str, fix: str = "") -> SettingsError:
        """An error about this option; without `fix` it tells how values of its kind are written."""
        kind_fix = f'{self.kind.fix}, for example "{self.example[0]}"'
        return SettingsError(self.name, source, problem, fix or kind_fix)

    def toml(self, value: Any) -> str:
        """`value` as the right-hand side of a TOML key."""
        texts = self.kind.write(value)
        # ``off`` stands for numbers and quotas alike, and is a string in either place.
        is_native = isinstance(value, self.kind.native)
        items = [text if is_native else _toml_string(text) for text in texts]
        return f"[{', '.join(items)}]" if self.kind.repeatable else items[0]


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def option(
    default: T,
    kind: Kind[T],
    group: str,
    *,
    help: str,  # noqa: A002
    example: str | Texts,
    why: str,
    secret: bool = False,
    restart: bool = False,
    name: str = "",
) -> T:
    """A dataclass field that is an option; `name` is given where it is not the field's name with hyphens.

    Say `restart` where a change takes effect at the next start only: a reload names the option and keeps its value.
    """
    examples = (example,) if isinstance(example, str) else example
    declared = Option(default, kind, group, help, examples, why, secret, name, restart)
    return field(default_factory=lambda: default, repr=not secret, metadata={"option": declared})


def options_of(declaring: type) -> tuple[Option, ...]:
    """The options that the fields of a dataclass declare, in their order."""
    declared = ((f.name, f.metadata["option"]) for f in fields(declaring) if "option" in f.metadata)
    return tuple(replace(o, field=name, name=o.name or name.replace("_", "-")) for name, o in declared)


@dataclass(frozen=True, slots=True)
class Collected:
    """Values by field name, and where the last of each came from by option name; options not given are
    absent."""

    values: dict[str, Any]
    origins: dict[str, str]


Given = tuple[Option, Texts, str]


def collect(
    options: Sequence[Option],
    toml: Mapping[str, object],
    env: Mapping[str, str],
    argv: Mapping[str, Sequence[str]],
    toml_name: str,
) -> Collected:
    """The values that a parsed TOML file, the environment and the command line give together.

    `argv` maps option names to their values in the order given; of an option that is not repeatable the
    last one counts. Raises `SettingsError` for the first thing that is wrong, the lowest source first.
    """
    collected = Collected({}, {})
    for given in (_from_toml(options, toml, toml_name), _from_env(options, env), _from_argv(options, argv)):
        for about, texts, source in given:
            collected.values[about.field] = about.read(texts, source)
            collected.origins[about.name] = source
    return collected


def _from_toml(options: Sequence[Option], toml: Mapping[str, object], file: str) -> Iterator[Given]:
    by_name = {about.name: about for about in options}
    seen: set[str] = set()
    for key, value in toml.items():
        source = f"{file}: {key}"
        name = key.replace("_", "-")
        if name in COMMAND_LINE_ONLY:
            raise SettingsError(name, source, "is for the command line only", "remove it from the file")
        about = by_name.get(name)
        if about is None:
            raise SettingsError(name, source, "no such option", did_you_mean(name, list(by_name)))
        if name in seen:
            raise about.error(source, "is written with hyphens and with underscores", "keep one of the two")
        seen.add(name)
        yield about, _toml_texts(about, value, source), source


def _toml_texts(about: Option, value: object, source: str) -> Texts:
    items = _toml_items(about.kind, value)
    texts = tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in items)
    for item, text in zip(items, texts, strict=True):
        # exact types: to Python a boolean is an integer, to an operator it is not
        if type(item) not in (str, *about.kind.native):
            found = _TOML_NAMES.get(type(item), "a date or time")
            shown = "the value (withheld)" if about.secret else quoted(text)
            raise about.error(source, f"{shown} is {found}, which does not fit")
    return texts


def _toml_items(kind: Kind[Any], value: object) -> list[object]:
    """What a TOML value says one by one; an entry of a table reads as it would on the command line."""
    if kind.table and isinstance(value, dict):
        return [f"{key}={entry}" if isinstance(entry, str) else entry for key, entry in value.items()]
    return value if kind.repeatable and isinstance(value, list) else [value]


def _from_env(options: Sequence[Option], env: Mapping[str, str]) -> Iterator[Given]:
    by_variable = {about.environment: about for about in options}
    for variable, text in env.items():
        source = f"environment variable {variable}"
        about = by_variable.get(variable)
        if about is not None:
            yield about, tuple(text.split()) if about.kind.repeatable else (text,), source
        elif variable.startswith(ENVIRONMENT_PREFIX):
            _refuse_near_miss(variable, source, by_variable)


def _refuse_near_miss(variable: str, source: str, variables: Mapping[str, Option]) -> None:
    """Refuse a likely typo, and nothing else: names that begin like ours may belong to other software."""
    rest = variable.removeprefix(ENVIRONMENT_PREFIX)
    if rest == "CONFIG" or _INJECTED.search(rest):
        return
    names = [name.removeprefix(ENVIRONMENT_PREFIX) for name in variables]
    close = difflib.get_close_matches(rest.upper().replace("-", "_"), [*names, "CONFIG"], n=1, cutoff=0.8)
    if close:
        fix = f"did you mean {ENVIRONMENT_PREFIX}{close[0]}? Rename it, or unset it"
        raise SettingsError("", source, f"environment variable {variable}: no such option", fix)


def _from_argv(options: Sequence[Option], argv: Mapping[str, Sequence[str]]) -> Iterator[Given]:
    by_name = {about.name: about for about in options}
    for name, texts in argv.items():
        about = by_name.get(name)
        if about is None:
            raise SettingsError(name, COMMAND_LINE, "no such option", did_you_mean(name, list(by_name), "--"))
        if texts:
            yield about, tuple(texts) if about.kind.repeatable else tuple(texts[-1:]), COMMAND_LINE


def to_toml(options: Sequence[Option], settings: object, origins: Mapping[str, str]) -> str:
    """Every option of `settings` as TOML by group; a value that is not the default tells where it came
    from."""
    lines = ["# The effective settings of pyryrelay, ready to be used with --config."]
    group = ""
    for about in options:
        if about.group != group:
            group = about.group
            lines += ["", f"# {group}"]
        lines.append(_toml_line(about, getattr(settings, about.field), origins.get(about.name, "code")))
    return "\n".join(lines) + "\n"


def _toml_line(about: Option, value: object, origin: str) -> str:
    if about.secret:
        return f"# {about.name}: withheld"
    line = f"{about.name} = {about.toml(value)}"
    return line if value == about.default else f"{line}  # from {printable(origin)}"
