"""Write the pages and tables of docs/reference that follow from the code: `make docs`.

    python docs/generate.py

Options, the registry and the states of a connection are whole pages. Metrics and close codes are one table each, in a
page that people write: the table stands between the two comments that mark it as generated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from twisted.internet.testing import MemoryReactorClock

from pyryrelay import close_codes
from pyryrelay.config.reference import reference
from pyryrelay.mounts import Settings
from pyryrelay.pyry.close_codes import PyryCloseCode
from pyryrelay.pyry.registry import CLOSES, TRANSITIONS
from pyryrelay.service import build
from pyryrelay.websocket import states

REFERENCE: Final = Path(__file__).resolve().parent / "reference"

_REGISTRY: Final = """\
# The registry

Each server-id has a slot. At most one binary holds the slot, and the phones of the server-id are registered in it. The
relay works by the tables on this page (`src/pyryrelay/pyry/registry.py`), and `make docs` writes the page from them.

"""

_NOTICES: Final = """
## When a phone leaves

When a phone's connection ends, the binary that held the server-id while the phone was connected gets a close notice,
after all frames of that phone:

    {"conn_id":"client-SERVER-ID-0123abcd","close_code":4001}

The code is that of the phone's close frame. It is 1001 if the phone sent none, or a code that is not allowed in a close
frame. If the relay closed the phone because of a fault of the phone, it is the relay's code: 1002, 1007, 1008, 1009 or
1011.

There is no notice if

- the binary itself asked for the close with a `close_code`;
- the registry closed the phone, except for `displaced`, where the binary stays and is told 1001;
- the relay shuts down, because it closes the binary too.
"""


def registry_page() -> str:
    """The state diagram (Mermaid) of a server-id's slot, and the tables of its transitions and closes."""
    arrows = []
    rows = []
    for (source, event), (target, action, effect) in TRANSITIONS.items():
        arrows.append(f"    {source.name} --> {target.name}: {event.value} / {action}")
        rows.append(f"| {source.name} | {event.value} | {target.name} | `{action}` | {effect} |")
    closes = [f"| `{cause.value}` | {code} | {reason or '(empty)'} |" for cause, (code, reason) in CLOSES.items()]
    return _REGISTRY + "\n".join(
        [
            "## States of a slot\n",
            *("```mermaid", "stateDiagram-v2", "    [*] --> VACANT", *arrows, "```\n"),
            *("| state | event | next state | action | what it does |", "|---|---|---|---|---|", *rows),
            "\nNo other transition is possible. A vacant slot takes no memory.\n",
            "## Closes\n",
            *("| cause | close code | reason |", "|---|---|---|", *closes),
            _NOTICES,
        ]
    )


_CONNECTION: Final = """\
# The states of a connection

An upgraded connection goes through these states, from the opening handshake to the loss of its transport. Every
transition leads forwards, so each state is entered at most once. The relay works by the tables on this page
(`src/pyryrelay/websocket/states.py`), and `make docs` writes the page from them.

"""

_TOLD: Final = """
## What the application is told

The session is opened in OPEN, and is told the end once, by the first of

- the transition to DRAINING;
- anything that arrives in CLOSING, other than the peer's close frame;
- the transition to CLOSED.

## How long it may take

FLUSHING, CLOSING and DRAINING together may take 5 seconds, LINGERING one second, and DISCONNECTING 5 seconds again.
Then the event is `timed out`.
"""


def connection_states_page() -> str:
    """The state diagram (Mermaid) of a connection, and the tables of its states and transitions."""
    meanings = [f"| {state.name} | {state.meaning} |" for state in states.State]
    causes = [f"| {event.value} | {event.meaning} |" for event in states.Event]
    everywhere = (states.Event.LOST, states.Event.CUT_OFF)
    arrows = []
    rows = []
    for (source, event), (target, action, effect) in states.TRANSITIONS.items():
        if event not in everywhere:
            arrows.append(f"    {source.name} --> {target.name}: {event.value}")
        rows.append(f"| {source.name} | {event.value} | {target.name} | `{action}` | {effect} |")
    return _CONNECTION + "\n".join(
        [
            *("| state | what it means |", "|---|---|", *meanings),
            *("\n| event | what has happened |", "|---|---|", *causes),
            "\n## Transitions\n",
            *("```mermaid", "stateDiagram-v2", "    [*] --> CONNECTING", *arrows, "    CLOSED --> [*]", "```\n"),
            "The diagram leaves out `lost`, which leads from every state to CLOSED, and `cut off`, which leads from",
            "every state between CONNECTING and ABORTED to ABORTED.\n",
            *("| state | event | next state | action | what it does |", "|---|---|---|---|---|", *rows),
            "\nNo other transition is possible.",
            _TOLD,
        ]
    )


def metrics_table() -> str:
    """Every metric, as one scrape of a new relay has them."""
    service = build(Settings(jail_file=""), MemoryReactorClock())
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in (family for collector in service.collectors() for family in collector.collect()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, {})[value] = None
        told = "; ".join(f"{label}: {', '.join(f'`{value}`' for value in labels[label])}" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {told} | {family.documentation} |")
    return "\n".join(lines)


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "options.md": lambda: reference(Settings.options()),
    "registry.md": registry_page,
    "connection-states.md": connection_states_page,
}
TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "metrics.md": metrics_table,
    "close-codes.md": lambda: close_codes.table(PyryCloseCode),
}

_BEGIN: Final = "<!-- Generated by `make docs`: begin -->"
_END: Final = "<!-- Generated by `make docs`: end -->"


def with_table(page: str, table: str) -> str:
    """The page with its generated table replaced. Raises `ValueError` if it has no place for one."""
    pattern = re.compile(f"{re.escape(_BEGIN)}\n.*?\n{re.escape(_END)}\n", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"the page needs exactly one place between {_BEGIN!r} and {_END!r}")
    return pattern.sub(lambda _: f"{_BEGIN}\n\n{table}\n\n{_END}\n", page)


def generated() -> dict[str, str]:
    """The text that each generated page of docs/reference has to have, by its name."""
    tables = {name: with_table((REFERENCE / name).read_text(encoding="utf-8"), make()) for name, make in TABLES.items()}
    return {name: make() for name, make in PAGES.items()} | tables


def main() -> None:
    """Write what is not current."""
    for name, text in generated().items():
        path = REFERENCE / name
        current = path.exists() and path.read_text(encoding="utf-8") == text
        sys.stdout.write(f"{'current' if current else 'written'} docs/reference/{name}\n")
        if not current:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
