"""Write the pages and tables of docs/reference that follow from the code: `make docs`.

    python docs/generate.py

Options, NIPs, replies, the registry and the states of a connection are whole pages. Metrics, close codes and names of
log events are one table each, in a page that people write: the table stands between the two comments that mark it as
generated.

Pages outside of docs/reference show files of contrib/ in code blocks, each below a comment that names the file. The
blocks are written, too, so that a page and the file that it describes cannot differ.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

from prometheus_client.registry import Collector
from twisted.internet.testing import MemoryReactorClock

from pyryrelay import close_codes
from pyryrelay.cli.command import complete_parser
from pyryrelay.cli.reference import reference as command_reference
from pyryrelay.config.reference import reference
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet
from pyryrelay.mounts import Settings
from pyryrelay.nostr.information import supported_nips
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies import refusal
from pyryrelay.observe.log_formats.records import event_name
from pyryrelay.preflight.checks import CHECKS
from pyryrelay.protocol_options import Check
from pyryrelay.pyry.close_codes import PyryCloseCode
from pyryrelay.pyry.registry import CLOSES, TRANSITIONS
from pyryrelay.service import build
from pyryrelay.websocket import states
from pyryrelay.workers.admin.hand_overs import NO_HAND_OVERS, HandOverCollector, PassingCollector
from pyryrelay.workers.admin.observed import WorkersView
from pyryrelay.workers.admin.pages import WorkersCollector
from pyryrelay.workers.supervisor import Process, Supervisor

DOCS: Final = Path(__file__).resolve().parent
REFERENCE: Final = DOCS / "reference"
PACKAGE: Final = DOCS.parent / "src" / "pyryrelay"
SETUP: Final = DOCS.parent / "setup.py"

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
    """Every metric, as one scrape of a new relay has them, and those that there are with several workers only."""
    with tempfile.NamedTemporaryFile() as secret:
        secret.write(b"of-an-example-cluster\n")
        secret.flush()
        settings = Settings(
            jail_file="",
            nostr=True,
            cluster=("redis://127.0.0.1",),
            cluster_secret_file=secret.name,
            cluster_listen="tcp:7000",
            cluster_advertise="127.0.0.1:7000",
            cluster_peers=TrustedProxies(CidrSet(["127.0.0.1"])),
        )
        service = build(settings, MemoryReactorClock())
        if service.cluster.instance is not None:
            service.cluster.instance.begin("boot")
    supervisor = Supervisor(MemoryReactorClock(), 2, unstarted)
    view = WorkersView(supervisor, MemoryReactorClock(), lambda: 0.0, lambda: False)
    return "\n".join(
        [
            *_metric_rows(service.collectors()),
            "",
            "With several workers there are these, too:",
            "",
            *_metric_rows([WorkersCollector(view), HandOverCollector(NO_HAND_OVERS), PassingCollector(int)]),
        ]
    )


def unstarted(index: int, boot: int, ended: object) -> Process:
    """Start no worker: none is needed to see which metrics there are."""
    raise NotImplementedError


def _metric_rows(collectors: Iterable[Collector]) -> list[str]:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in (family for collector in collectors for family in collector.collect()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, {})[value] = None
        told = "; ".join(f"{label}: {', '.join(f'`{value}`' for value in labels[label])}" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {told} | {family.documentation} |")
    return lines


_NIPS: Final = """\
# NIPs

The information document of a relay (NIP-11) lists the NIPs that are in force there. Each number is in it only while the
feature is on, so clients can rely on it:

    curl -H 'Accept: application/nostr+json' http://127.0.0.1:8080/

`make docs` writes this page.

"""

_NIPS_URL: Final = "https://github.com/nostr-protocol/nips/blob/master"
_NIP_ROWS: Final[Mapping[int, tuple[str, str, str]]] = {
    1: (
        "Basic protocol",
        "always",
        "Events are read strictly and kept in canonical form; other keys than the seven are dropped. Filters match "
        "exactly, without prefixes. Unknown filter keys are refused",
    ),
    2: ("Follow list", "always", "Kind 3 is replaceable"),
    4: (
        "Encrypted direct message",
        "always",
        "Kind 4 is stored, and served to its author and the keys in its `p` tags only",
    ),
    9: (
        "Event deletion request",
        "always",
        "What its author deletes is removed and refused for good, whichever comes first. Deletions are kept and served",
    ),
    11: ("Relay information document", "always", "Every number is read from the settings that enforce it"),
    13: (
        "Proof of work",
        "always",
        "Enforced with `--nostr-min-pow` or `--nostr-pow-kind`. A committed target below the minimum does not count",
    ),
    17: ("Private direct messages", "clients can authenticate", "Gift wraps are served to their recipients only"),
    28: ("Public chat", "always", "Kinds 40 to 44 are regular"),
    40: ("Expiration timestamp", "always", "What has expired is refused, and served to nobody from that second on"),
    42: (
        "Authentication of clients to relays",
        "`--nostr-url` is set, or all listeners are on this machine",
        "The challenge is sent when it is first needed, before the `auth-required` that needs it. Several keys may be "
        "authenticated on one connection",
    ),
    45: (
        "Event counts",
        "`--nostr-max-count` is not 0",
        "Counts above `--nostr-max-count` are approximate, and those for which more than 2,000 ephemeral events in "
        "memory would have to be looked at. Other counts of one filter with a tag have HyperLogLog registers",
    ),
    59: (
        "Gift wrap",
        "clients can authenticate",
        "Kinds 1059 and 21059 are private; `--nostr-giftwrap-auth` asks writers to authenticate",
    ),
    65: (
        "Relay list metadata",
        "always",
        "Kind 10002 is replaceable; `--nostr-open-kinds 10002` accepts it from everybody",
    ),
    67: ("EOSE hints", "always", "`EOSE` says `finish` or `more` where it is known"),
    70: ("Protected events", "always", "An event with the tag `-` is accepted from its author only"),
}
"""Title, when it is on, and what the relay does, by the number of the NIP."""


def nips_page() -> str:
    """Every NIP that the relay can advertise."""
    numbers = supported_nips(NostrOptions(), can_authenticate=True)
    if numbers != list(_NIP_ROWS):
        raise ValueError(f"the NIPs of the table are not {numbers}")
    rows = [
        f"| [{number:02}]({_NIPS_URL}/{number:02}.md) | {title} | {when} | {what} |"
        for number, (title, when, what) in _NIP_ROWS.items()
    ]
    return _NIPS + "\n".join(["| NIP | title | in force if | in this relay |", "|---|---|---|---|", *rows, ""])


_REPLIES: Final = """\
# Replies

What the relay says when it does not do what it was asked for. Every `EVENT` and `AUTH` is answered with one `OK`, every
`REQ` with `EOSE` or `CLOSED`, every `COUNT` with `COUNT` or `CLOSED`. The text begins with a prefix, which is what
programs should read; `--nostr-text` says the rest in other words. Capitals stand for figures. The word is that of the
[metrics](metrics.md) and of the [log](logs.md).

`make docs` writes this page.
"""

_PREFIXES: Final[Mapping[str, str]] = {
    "invalid": "something is malformed: the client has to mend it",
    "duplicate": "the relay has it already: there is nothing to do",
    "pow": "the event needs more work: mine it again",
    "blocked": "this relay does not take it: give up, or ask for something else",
    "rate-limited": "too much in too short a time: wait, and try again",
    "auth-required": "authenticate (NIP-42), and try again",
    "restricted": "the authenticated key may not do this: give up",
    "error": "the relay has trouble: try again later, or narrow the query",
    "unsupported": "the relay cannot do this: do without",
    "mute": "it was accepted, but nobody was listening",
}
_TRUE: Final = (refusal.DUPLICATE, refusal.NOBODY)
_OF_EVENTS: Final = (*refusal.EVENT_TEMPLATES, refusal.DUPLICATE, refusal.SUPERSEDED, refusal.NOBODY)


def _answered_by(template: refusal.Template) -> str:
    """Say which message a text comes in."""
    kinds = []
    if template in _OF_EVENTS:
        kinds.append("`OK` true of EVENT" if template in _TRUE else "`OK` of EVENT")
    if template in refusal.AUTH_TEMPLATES:
        kinds.append("`OK` of AUTH")
    if template in refusal.FILTER_TEMPLATES:
        kinds.append("`CLOSED`")
    if template == refusal.NO_NEGENTROPY:
        kinds.append("`NEG-ERR`")
    return ", ".join(kinds) or "`NOTICE`"


def replies_page() -> str:
    """Every text of a refusal, by its prefix."""
    lines = [_REPLIES]
    for prefix, meaning in _PREFIXES.items():
        found = [template for template in refusal.TEMPLATES.values() if template.prefix == prefix]
        lines += [
            f"## {prefix}\n",
            f"{meaning[0].upper()}{meaning[1:]}.\n",
            "| text | answers with | word |",
            "|---|---|---|",
        ]
        lines += [f"| {one.text} | {_answered_by(one)} | `{one.word}` |" for one in found]
        lines.append("")
    if {template.prefix for template in refusal.TEMPLATES.values()} != set(_PREFIXES):
        raise ValueError("the prefixes of the page are not those of the refusals")
    return "\n".join(lines)


_PREFLIGHT: Final = """\
# Preflight

Before it listens, the relay looks at its settings and at the machine. What it finds is a line each: what it is, what
follows from it, and the fix. The start, `--check` and `--production` find the same:

| severity | at the start | with `--check` | with `--production` |
|---|---|---|---|
| error | ends it, with exit code 2 | exit code 2 | the same |
| conflict | ends it, with exit code 2 | is only noted, because it may come before a reload | the same as without |
| warning | is logged | is shown | ends it, with exit code 2 |
| note | is not shown | is shown | the same as without |

`--accept-finding NAME` turns the warnings of a check into notes, for what is meant to be so. In a container whose host
keeps the clock right, for example:

    twistd pyryrelay --production --accept-finding clock

Settings that are wrong in themselves end the start, too, with a line that names option, value, source and fix. So does
a variable of the environment with the prefix `PYRYRELAY_` that does not exist.

`make docs` writes this page.

| check | severity | found |
|---|---|---|
"""


def preflight_page() -> str:
    """Every check of the preflight, those of protocols after the others."""
    checks = [*CHECKS, *(check for protocol in Settings.protocols for check in protocol.checks)]
    return _PREFLIGHT + "".join(map(_check_row, checks))


def _check_row(check: Check) -> str:
    return f"| `{check.name}` | {check.severity} | {check.about} |\n"


def command_page() -> str:
    """Every command, also those that are entry points of this tree, whatever is installed."""
    listed = SETUP.read_text(encoding="utf-8").partition('"pyryrelay.commands": [')[2].partition("]")[0]
    points = re.findall(r"\"[a-z]+ = ([a-z_.]+):([a-z_]+)\"", listed)
    return command_reference(complete_parser([getattr(import_module(module), name) for module, name in points]))


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "options.md": lambda: reference(Settings.options()),
    "command.md": command_page,
    "preflight.md": preflight_page,
    "nips.md": nips_page,
    "replies.md": replies_page,
    "registry.md": registry_page,
    "connection-states.md": connection_states_page,
}


_LEVELS: Final = ("info", "warn", "error", "critical", "debug")
"""In the order of the page."""


def logged_lines() -> dict[str, set[str]]:
    """The literal formats of all lines that the package logs, each with its levels, read from its source."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py"))
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    lines = defaultdict[str, set[str]](set)
    for call in calls:
        if ast.unparse(call.func).startswith("_log.") and isinstance(call.func, ast.Attribute):
            literal = call.args[0]
            if isinstance(literal, ast.Constant):
                # Whatever logs a failure says so in its name, and is critical.
                lines[str(literal.value)].add(call.func.attr if call.func.attr in _LEVELS else "critical")
    return dict(lines)


def lines_table() -> str:
    """Each line of the log, with its levels and its name in the structured formats."""
    levels = {line: sorted(found, key=_LEVELS.index) for line, found in logged_lines().items()}
    ordered = sorted(levels, key=lambda line: (_LEVELS.index(levels[line][0]), line.lower()))
    rows = [f"| {', '.join(levels[line])} | {_code(line)} | `{event_name(line)}` |" for line in ordered]
    return "\n".join(["| level | line | event |", "|---|---|---|", *rows])


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "logs.md": lines_table,
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


_SHOWN: Final = re.compile(r"^<!-- (contrib/[\w./-]+) -->\n```(\w*)\n.*?^```$", re.MULTILINE | re.DOTALL)


def with_files(page: str, root: Path) -> str:
    """The page with the current text of each file below ``root`` that it shows. Raises `OSError` if one is missing."""

    def block(found: re.Match[str]) -> str:
        text = (root / found[1]).read_text(encoding="utf-8")
        return f"<!-- {found[1]} -->\n```{found[2]}\n{text}```"

    return _SHOWN.sub(block, page)


def showing() -> dict[str, str]:
    """The text that each page outside of docs/reference has to have that shows files, by its path below docs/."""
    pages = [path for folder in ("tutorial", "howto", "explanation") for path in sorted((DOCS / folder).glob("*.md"))]
    texts = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in pages}
    return {name: with_files(text, DOCS.parent) for name, text in texts.items() if _SHOWN.search(text)}


def main() -> None:
    """Write what is not current."""
    for name, text in ({f"reference/{name}": text for name, text in generated().items()} | showing()).items():
        path = DOCS / name
        current = path.exists() and path.read_text(encoding="utf-8") == text
        sys.stdout.write(f"{'current' if current else 'written'} docs/{name}\n")
        if not current:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
