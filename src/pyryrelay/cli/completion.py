"""Completion of the command ``pyryrelay`` in bash, zsh and fish: scripts made from its parser. PURE.

A script is a table of the commands' options and what may follow, and a few lines that look up where the cursor is. It
starts no other program, so it is as fast as the shell. An option's value is one of its choices, the name of a file, or
left to the user.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

__all__ = ["SCRIPTS", "Flag", "Level", "levels"]

_FILES: Final = ("FILE", "DIR", "PATH")


@dataclass(frozen=True)
class Flag:
    """An option: its name with dashes, a line about it, and whether a value follows, of which kind."""

    name: str
    about: str = ""
    takes_value: bool = False
    choices: tuple[str, ...] = ()
    is_file: bool = False


@dataclass(frozen=True)
class Level:
    """What may follow the words of a command: names of further commands with a line about each, and options."""

    words: tuple[str, ...]
    commands: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()

    @property
    def path(self) -> str:
        """Return the words, each behind a blank."""
        return "".join(f" {word}" for word in self.words)


def levels(parser: argparse.ArgumentParser) -> Iterator[Level]:
    """Yield the levels of a parser, itself first.

    A parser that leaves its words to others names its options in the default ``flags``.
    """
    yield from _levels(parser, ())


def _levels(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[Level]:
    commands: dict[str, str] = {}
    flags: list[Flag] = [*(parser.get_default("flags") or ())]
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands |= {choice.dest: choice.help or "" for choice in action._choices_actions}
            below += action.choices.items()
        else:
            flags += _flags(action, parser.prog)
    yield Level(words, commands, tuple(flags))
    for name, inner in below:
        yield from _levels(inner, (*words, name))


def _flags(action: argparse.Action, prog: str) -> Iterator[Flag]:
    about = (action.help or "") % (vars(action) | {"prog": prog})
    choices = tuple(map(str, action.choices or ()))
    for name in action.option_strings:
        if name.startswith("--"):
            yield Flag(name, about, action.nargs != 0, choices, action.metavar in _FILES)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _valued(found: Sequence[Level]) -> Iterator[tuple[str, Flag]]:
    """Yield the options that take a value, each with the path of its level."""
    for level in found:
        for flag in level.flags:
            if flag.takes_value:
                yield level.path, flag


_WALK: Final = """\
    while (( i < last )); do
        word=${words[i]}
        case "$at $word" in
%(values)s
                i=$((i + 2)); continue ;;
        esac
        case "$at $word" in
%(paths)s
                at="$at $word" ;;
        esac
        i=$((i + 1))
    done
"""
"""Moves `i` over the words before the cursor; `at` becomes the path of the command that they name."""


def _patterns(texts: Sequence[str]) -> str:
    return " |\\\n".join(f"            {_quoted(text)}" for text in dict.fromkeys(texts)) + ")"


def _walk(found: Sequence[Level]) -> str:
    values = [f"{path} {flag.name}" for path, flag in _valued(found)]
    paths = [level.path for level in found if level.words]
    return _WALK % {"values": _patterns(values), "paths": _patterns(paths)}


def _bash(found: Sequence[Level]) -> str:
    lines = ["# bash completion of pyryrelay: pyryrelay completion bash", "_pyryrelay() {"]
    lines += ["    local words=(\"${COMP_WORDS[@]}\") last=$COMP_CWORD i=1 at='' word cur=${COMP_WORDS[COMP_CWORD]}"]
    lines += ["    local previous=${COMP_WORDS[COMP_CWORD - 1]}", "    COMPREPLY=()", _walk(found).rstrip()]
    # The option whose value is completed was stepped over with its value.
    lines += ["    if (( i > last )); then", '        case "$at $previous" in']
    for path, flag in _valued(found):
        if flag.choices or flag.is_file:
            how = "-f" if flag.is_file else f"-W {_quoted(' '.join(flag.choices))}"
            lines.append(f'            {_quoted(f"{path} {flag.name}")}) COMPREPLY=($(compgen {how} -- "$cur")) ;;')
    lines += ["        esac", "        return", "    fi", '    case "$at" in']
    for level in found:
        choices = " ".join([*level.commands, *(flag.name for flag in level.flags)])
        lines.append(f'        {_quoted(level.path)}) COMPREPLY=($(compgen -W {_quoted(choices)} -- "$cur")) ;;')
    lines += ["    esac", "}", "complete -o filenames -F _pyryrelay pyryrelay", ""]
    return "\n".join(lines)


def _zsh(found: Sequence[Level]) -> str:
    lines = ["#compdef pyryrelay", "# zsh completion of pyryrelay: pyryrelay completion zsh", "_pyryrelay() {"]
    lines += ["    emulate -L zsh", "    local last=$CURRENT i=2 at='' word previous=${words[CURRENT - 1]}"]
    lines += ["    local -a found", _walk(found).rstrip()]
    lines += ["    if (( i > last )); then", '        case "$at $previous" in']
    for path, flag in _valued(found):
        if flag.choices or flag.is_file:
            how = "_files" if flag.is_file else f"compadd -- {' '.join(map(_quoted, flag.choices))}"
            lines.append(f"            {_quoted(f'{path} {flag.name}')}) {how} ;;")
    lines += ["        esac", "        return", "    fi", '    case "$at" in']
    for level in found:
        pairs = [*level.commands.items(), *((flag.name, flag.about) for flag in level.flags)]
        described = " ".join(_quoted(f"{name}:{_line(about)}") for name, about in pairs)
        lines.append(f"        {_quoted(level.path)}) found=({described}) ;;")
    lines += ["    esac", "    _describe -o pyryrelay found", "}"]
    lines += ['if [ "$funcstack[1]" = "_pyryrelay" ]; then _pyryrelay "$@"; else compdef _pyryrelay pyryrelay; fi', ""]
    return "\n".join(lines)


def _line(about: str) -> str:
    return " ".join(about.split()).replace("`", "")


def _fish(found: Sequence[Level]) -> str:
    values = " ".join(_quoted(f"{path} {flag.name}") for path, flag in _valued(found))
    paths = " ".join(_quoted(level.path) for level in found if level.words)
    lines = [
        "# fish completion of pyryrelay: pyryrelay completion fish",
        "function __pyryrelay_at",
        "    set -l words (commandline -opc)",
        "    set -l at ''",
        "    set -l skip 0",
        "    for word in $words[2..-1]",
        "        if test $skip = 1",
        "            set skip 0",
        f'        else if contains -- "$at $word" {values}',
        "            set skip 1",
        f'        else if contains -- "$at $word" {paths}',
        '            set at "$at $word"',
        "        end",
        "    end",
        '    test "$at" = "$argv[1]"',
        "end",
        "complete -c pyryrelay -f",
    ]
    for level in found:
        here = f"complete -c pyryrelay -n {_quoted(f'__pyryrelay_at {_quoted(level.path)}')}"
        lines += [f"{here} -a {name} -d {_quoted(_line(about))}" for name, about in level.commands.items()]
        for flag in level.flags:
            value = " -r -F" if flag.is_file else " -x" if flag.takes_value else ""
            value += f" -a {_quoted(' '.join(flag.choices))}" if flag.choices else ""
            lines.append(f"{here} -l {flag.name.removeprefix('--')}{value} -d {_quoted(_line(flag.about))}")
    return "\n".join([*lines, ""])


SCRIPTS: Final[Mapping[str, Callable[[Sequence[Level]], str]]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)
"""Makes the script of a shell, by its name."""
