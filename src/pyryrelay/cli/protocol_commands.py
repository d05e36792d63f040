"""What a protocol may add to the command ``pyryrelay``, which controls a running relay. PURE.

An entry point of the group `ENTRY_POINTS`, named like the command, refers to an `AddCommand`. It is loaded when the
command is used, and only then. What it adds runs in a process of its own, in which there is no reactor. Times are
seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

ENTRY_POINTS: Final = "pyryrelay.commands"

ACTION_TIMEOUT_S: Final = 30.0


class CommandError(Exception):
    """A command that failed; `str` of it is one line with the fix."""


class NotRunningError(CommandError):
    """No relay listens where the command looked for one."""


class UnknownPathError(CommandError):
    """The relay has nothing at a path: it is of another version, or has no such part."""


def other_version(problem: str) -> CommandError:
    """Return the error for an answer of another shape than this version knows."""
    return CommandError(f"the answer {problem}: use the same version of pyryrelay as the relay")


def texts(body: Any, key: str) -> list[str]:
    """Return the list of texts under a key of an answer. Raises `CommandError` if there is none."""
    found = body.get(key) if isinstance(body, dict) else None
    if not isinstance(found, list):
        raise other_version(f"has no {key}")
    return [str(text) for text in found]


class Relay(Protocol):
    """The relay that the user has chosen with ``--admin``, if it runs."""

    def act(self, protocol: str, action: str, body: bytes = b"", timeout_s: float = ACTION_TIMEOUT_S) -> Any:
        """Have a protocol perform an action (`pyryrelay.protocol.RunningProtocol.actions`), and return its JSON.

        Raises `CommandError` if it is refused or fails, and `NotRunningError` if no relay is there.
        """


class Output(Protocol):
    """Standard output: JSON if the user wants that, otherwise tables for people and bare rows for pipes."""

    @property
    def as_json(self) -> bool:
        """Whether the user wants JSON."""

    @property
    def is_terminal(self) -> bool:
        """Whether people read it."""

    def json(self, body: object) -> None:
        """Write JSON."""

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines, safe to print."""

    def message(self, line: str) -> None:
        """Write a line for people; nothing in a pipe."""

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows in aligned columns under titles; in a pipe, write them separated by tabs without titles."""


Run: TypeAlias = Callable[[Any, argparse.Namespace, Any], "int | None"]
"""Runs a command, with a `Relay`, the parsed arguments and an `Output`; returns the exit code, None for 0."""

AddCommand: TypeAlias = Callable[[Any, argparse.ArgumentParser], None]
"""Adds a command to what `argparse.ArgumentParser.add_subparsers` returned.

The second argument has the options that all commands share: it belongs in ``parents`` of every parser that sets the
default ``run``, which is a `Run`.
"""
