"""The figures of ``GET /status`` for people: as sections of a page, and as rates between two moments. PURE.

What a relay of another version leaves out is left out here. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = [
    "LIMITS",
    "UNITS_S",
    "Rates",
    "Row",
    "Section",
    "amount",
    "duration",
    "flat",
    "headline",
    "overview",
    "rates",
    "refused_most",
    "refused_per_second",
    "size",
]

UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MOST_REFUSED: Final = 5
LIMITS: Final = "limits in force"
"""The title of the section that does not change by itself."""
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Row(NamedTuple):
    """A name and a value."""

    name: str
    value: str


class Section(NamedTuple):
    """Some rows under a title."""

    title: str
    rows: Sequence[Row]


class Rates(NamedTuple):
    """What happened per second between two moments; ``cpu`` is the share of one processor."""

    admitted: float
    refused: float
    messages_in: float
    messages_out: float
    bytes_in: float
    bytes_out: float
    cpu: float


_LONGEST_S: Final = 1e12


def duration(seconds: float) -> str:
    """Format a duration in at most two units: ``9m 59s``, ``2d 4h``."""
    left = round(max(1.0, min(seconds, _LONGEST_S)))
    parts: list[str] = []
    for unit, unit_s in reversed(UNITS_S.items()):
        count, left = divmod(left, int(unit_s))
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0"))


def size(number: float) -> str:
    """Return a number of bytes in a unit of at most four digits: ``1.5 MiB``."""
    for unit in _SIZES:
        if number < 1000 or unit == _SIZES[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"


def amount(number: float) -> str:
    """Return a number with its thousands separated, and with a decimal only if it is small."""
    if number == int(number) or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 1 else f"{number:.3g}"


def flat(body: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """Yield every figure under its keys, joined by dots; lists are JSON."""
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield Row(f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value))


def headline(body: Mapping[str, Any]) -> str:
    """Return one line about the process."""
    seconds = body.get("uptime_s")
    is_known = isinstance(seconds, int | float) and "state" in body
    uptime = f", {body['state']} for {duration(_sum(body, 'uptime_s'))}" if is_known else ""
    return f"pyryrelay {body.get('version', '?')}, process {body.get('pid', '?')}{uptime}"


def overview(body: Mapping[str, Any], now: float) -> Iterator[Section]:
    """Yield the sections of a page; ``now`` is the wall clock, for certificates."""
    connections = _numbers(body, "connections")
    yield Section("connections", [Row("open", amount(sum(connections.values()))), *_rows(connections, "open: ")])
    admitted, refused = sum(_numbers(body, "admitted").values()), _numbers(body, "refused")
    yield Section(
        "since the start",
        [
            Row("admitted", amount(admitted)),
            Row("refused", amount(sum(refused.values()))),
            *(Row(f"refused: {reason}", amount(count)) for reason, count in refused_most(refused)),
            *(Row(f"{what} {way}", one) for what, way, one in _traffic(body)),
        ],
    )
    yield Section("now", [*_state(body)])
    if certificates := [*_certificates(body, now)]:
        yield Section("certificates", certificates)
    if cluster := [*_cluster(body)]:
        yield Section("cluster", cluster)
    for name, figures in _mapping(body, "protocols").items():
        if isinstance(figures, Mapping):
            shown = [Row(key, _value(key, value)) for key, value in figures.items() if value]
            yield Section(name, shown or [Row("everything", "0")])
    limits = [Row(f"--{name}", str(value)) for name, value in _mapping(body, "limits").items() if value != ""]
    yield Section(LIMITS, limits)


def refused_most(refused: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the most frequent reasons of refusals, the first one first."""
    return sorted(((reason, count) for reason, count in refused.items() if count), key=_by_count)[:MOST_REFUSED]


def _by_count(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]


def rates(before: Mapping[str, Any], after: Mapping[str, Any]) -> Rates | None:
    """Return what happened between two answers; None if they are not of one process, or of one moment."""
    passed_s = _sum(after, "uptime_s") - _sum(before, "uptime_s")
    if before.get("pid") != after.get("pid") or passed_s <= 0:
        return None

    def grown(*keys: str) -> float:
        return max(0.0, _sum(after, *keys) - _sum(before, *keys)) / passed_s

    return Rates(
        grown("admitted"),
        grown("refused"),
        grown("messages", "in"),
        grown("messages", "out"),
        grown("bytes", "in"),
        grown("bytes", "out"),
        grown("cpu_s"),
    )


def refused_per_second(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Return the refusals per second by reason between two answers of one process."""
    passed_s = _sum(after, "uptime_s") - _sum(before, "uptime_s")
    old = _numbers(before, "refused")
    if passed_s <= 0:
        return {}
    return {reason: (count - old.get(reason, 0)) / passed_s for reason, count in _numbers(after, "refused").items()}


def _sum(body: Mapping[str, Any], *keys: str) -> float:
    """Return a number at some keys, or the sum of the numbers there."""
    found: Any = body
    for key in keys:
        found = found.get(key, 0) if isinstance(found, Mapping) else 0
    if isinstance(found, Mapping):
        return float(sum(value for value in found.values() if isinstance(value, int | float)))
    return float(found) if isinstance(found, int | float) else 0.0


def _mapping(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = body.get(key)
    return found if isinstance(found, Mapping) else {}


def _numbers(body: Mapping[str, Any], key: str) -> dict[str, float]:
    return {name: value for name, value in _mapping(body, key).items() if isinstance(value, int | float)}


def _rows(numbers: Mapping[str, float], prefix: str) -> list[Row]:
    return [Row(f"{prefix}{name}", amount(count)) for name, count in numbers.items()]


def _traffic(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for way in ("in", "out"):
        for what, write in (("messages", amount), ("bytes", size)):
            if way in _numbers(body, what):
                yield what, way, write(_numbers(body, what)[way])


def _state(body: Mapping[str, Any]) -> Iterator[Row]:
    numbers = {key: value for key, value in body.items() if isinstance(value, int | float)}
    for key, name, write in (
        ("handshakes", "unfinished handshakes", amount),
        ("tracked", "tracked addresses", amount),
        ("jailed", "jailed clients", amount),
        ("memory_bytes", "memory", size),
        ("cpu_s", "processor time", duration),
        ("reactor_lag_s", "longest wait for a turn", _milliseconds),
        ("decision_s", "time to decide", _milliseconds),
    ):
        if key in numbers:
            yield Row(name, write(numbers[key]))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def _certificates(body: Mapping[str, Any], now: float) -> Iterator[Row]:
    found = body.get("certificates")
    for one in found if isinstance(found, list) else ():
        match one:
            case {"expires_at": int() | float() as expires_at, "names": [*names], "source": source}:
                left_s = expires_at - now
                state = f"expires in {duration(left_s)}" if left_s > 0 else "EXPIRED"
                yield Row(", ".join(map(str, names)) or str(source), state)


def _cluster(body: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a row for each problem; `pyryrelay cluster` tells what to do about them."""
    match body.get("cluster"):
        case {"name": str() as name, "members": int() as members, "problems": [*problems]}:
            yield Row("members", f"{members}, of cluster {name}")
            for problem in problems:
                match problem:
                    case {"text": str() as text, "since_s": int() | float() as since_s}:
                        yield Row("problem", f"for {duration(since_s)}: {text}")
                    case {"text": str() as text}:
                        yield Row("problem", text)


def _value(key: str, value: object) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return size(value) if key.endswith("_bytes") else amount(value)
