"""Merge the expositions of several workers into one in the Prometheus text format. PURE.

Each sample of a worker gets the label ``worker`` with its index, as the first one. Nothing is added up: Prometheus does
that, and can tell which worker is slow, or was started again. All samples of a family stand together under its ``HELP``
and ``TYPE``, which stand once, as the format asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["WORKER_LABEL", "merge_expositions"]

WORKER_LABEL: Final = "worker"
_HEADERS: Final = ("# HELP ", "# TYPE ")


@dataclass(slots=True)
class _Family:
    """A metric family: the lines that describe it, and its samples."""

    headers: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merge_expositions(workers: Mapping[int, str], own: str = "") -> str:
    """Return one exposition of those of the workers, by index, and of ``own``, whose samples get no label.

    Families come in the order in which the first exposition has them; those of ``own`` come first.
    """
    families: dict[str, _Family] = {}
    _add(families, own, "")
    for index in sorted(workers):
        _add(families, workers[index], f'{WORKER_LABEL}="{index}"')
    return "".join(_lines(families.values()))


def _lines(families: Iterable[_Family]) -> Iterator[str]:
    for family in families:
        for line in (*family.headers.values(), *family.samples):
            yield f"{line}\n"


def _add(families: dict[str, _Family], exposition: str, label: str) -> None:
    name = ""
    # Only at line feeds: other line ends may be part of a label's value or of a text.
    for line in exposition.split("\n"):
        if line.startswith(_HEADERS):
            kind, name = line[:6], line[7:].partition(" ")[0]
            families.setdefault(name, _Family()).headers.setdefault(kind, line)
        elif line and not line.startswith("#"):
            families.setdefault(name, _Family()).samples.append(_labelled(line, label) if label else line)


def _labelled(sample: str, label: str) -> str:
    """Return a sample with one more label, before the others."""
    name, space, value = sample.partition(" ")
    name, brace, _ = name.partition("{")
    if not brace:
        return f"{name}{{{label}}}{space}{value}"
    others = sample[len(name) + 1 :]
    return f"{name}{{{label}{'' if others.startswith('}') else ','}{others}"
