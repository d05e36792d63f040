"""Standard output: JSON, tables for people, bare rows for pipes, and readers that close the pipe early."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from pyryrelay.text import printable

__all__ = ["Output", "discard_output", "write"]


def write(text: str) -> None:
    """Write to standard output, and discard everything from then on if the reader has closed the pipe."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """Discard standard output, so that the interpreter does not fail to flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True, slots=True)
class Output:
    """Write results as JSON, as tables for people, or as bare rows; see `pyryrelay.cli.protocol_commands.Output`."""

    stream: TextIO
    as_json: bool

    @property
    def is_terminal(self) -> bool:
        """Whether people read it."""
        return self.stream.isatty()

    def json(self, body: object) -> None:
        """Write JSON."""
        self.stream.write(json.dumps(body, indent=2 if self.is_terminal else None) + "\n")

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines, safe to print."""
        self.stream.writelines(f"{printable(line)}\n" for line in lines)

    def message(self, line: str) -> None:
        """Write a line for people; nothing in a pipe."""
        if self.is_terminal:
            self.lines([line])

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows in aligned columns under titles; in a pipe, write them separated by tabs without titles."""
        if not self.is_terminal:
            for row in rows:
                self.stream.write("\t".join(map(printable, row)) + "\n")
            return
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        for row in (titles, *rows):
            cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
            self.lines(["  ".join(cells).rstrip()])
