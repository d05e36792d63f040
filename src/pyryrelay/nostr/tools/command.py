"""The command ``pyryrelay nostr``: its arguments and what it prints (spec section 17).

An entry point refers to `add`; see `pyryrelay.cli.protocol_commands`. Exit codes: 0 success, 1 failed, or a line was no
event, or a check has found something; 2 wrong command line. Events are written to standard output as JSON lines.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO, Final

from pyryrelay.cli.protocol_commands import CommandError, Output, Relay
from pyryrelay.nostr.events import stored_event
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.tools import reading
from pyryrelay.nostr.tools.arguments import filter_argument, time_argument
from pyryrelay.nostr.tools.importing import Report, import_lines
from pyryrelay.nostr.tools.stores import PROTOCOL, database_of, open_store, store_errors

__all__ = ["add"]

PROGRESS_S: Final = 0.5
DELETED_AT_ONCE: Final = 5_000

_EXAMPLES: Final = """\
examples:
  pyryrelay nostr stats                               how many events there are, how large the database is
  pyryrelay nostr scan '{"kinds":[1],"limit":10}'     the ten newest notes
  pyryrelay nostr count '{"authors":["e8ed...a37c"]}' how much a key has published
  pyryrelay nostr export > events.jsonl               everything, one event a line
  pyryrelay nostr import < events.jsonl               and back again, here or on another relay
  pyryrelay nostr delete '{"#t":["casino"]}' --dry-run

The commands talk to the running relay, through its admin listener (--admin); what only reads opens the relay's database
on this machine. Where no relay runs, name the database:
  pyryrelay nostr export --database sqlite:/var/lib/pyryrelay/nostr.sqlite

A FILTER is one of NIP-01, as clients send it in REQ: '{"ids":[...],"authors":[...],"kinds":[...],"#t":[...],
"since":N,"until":N,"limit":N}'. Several filters find what any of them finds. '{}' finds everything.

exit codes: 0 success, 1 failed, or not every line was an event, 2 wrong command line
"""
_IMPORT: Final = """\
Store the events of standard input, one JSON object a line, as `pyryrelay nostr export`, `strfry export` and others
write them. Ids and signatures are verified, by all processors of the machine. Quotas, lists and time windows of the
relay do not hold; deletions and replacement do. A running relay delivers the new events to its subscribers.

An import can be repeated: events that are there already are counted as duplicates.
"""
_EXPORT: Final = """\
Write all events as of this moment, the oldest first, one canonical JSON object a line. Private kinds and deletions are
among them, so keep the file private.
"""
_DELETE: Final = """\
Delete the events that match. Without --forever they may be published again; with it, their ids are refused from now on.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to a parser; see `pyryrelay.cli.protocol_commands.AddCommand`."""
    raw = argparse.RawDescriptionHelpFormatter
    nostr = commands.add_parser(
        "nostr", help="import, export, search and care for Nostr events", epilog=_EXAMPLES, formatter_class=raw
    )
    database = argparse.ArgumentParser(add_help=False)
    database.add_argument(
        "--database",
        metavar="URL",
        type=_database,
        help="sqlite:PATH, where no relay runs (default: the database of the running relay)",
    )
    found = nostr.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, description: str | None = None) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = found.add_parser(
            name,
            help=text,
            description=description or f"{text[0].upper()}{text[1:]}.",
            parents=[common] if run is _lists else [common, database],
            formatter_class=raw,
        )
        parser.set_defaults(run=run)
        return parser

    _add_transfer(command)
    for name, run, text in (
        ("scan", _scan, "write the events that match, newest first"),
        ("count", _count, "count the events that match"),
    ):
        command(name, run, text).add_argument("filters", metavar="FILTER", nargs="+", type=filter_argument)
    delete = command("delete", _delete, "delete the events that match", _DELETE)
    delete.add_argument("filters", metavar="FILTER", nargs="+", type=filter_argument)
    delete.add_argument("--dry-run", action="store_true", help="only tell how many there are")
    delete.add_argument("--forever", action="store_true", help="refuse their ids from now on")
    command("stats", _stats, "tell how many events there are, and how large the database is")
    check = command(
        "check", _check, "verify the database, ids, signatures and indexes; takes a minute for 500,000 events"
    )
    check.add_argument("--no-verify", action="store_true", help="leave out signatures, which take half of the time")
    command("compact", _compact, "give unused space back to the file system; nothing is stored meanwhile")
    command("lists", _lists, "show what the running relay allows and denies by name")


def _add_transfer(command: Any) -> None:
    """Add the commands that move events."""
    importing = command("import", _import, "store events from standard input", _IMPORT)
    importing.add_argument("--no-verify", action="store_true", help="believe the signatures, which is faster")
    exporting = command("export", _export, "write all events to standard output", _EXPORT)
    exporting.add_argument(
        "--since", metavar="TIME", type=time_argument, help="unix time, 2026-11-28, or 2d for two days ago"
    )
    exporting.add_argument("--until", metavar="TIME", type=time_argument, help="the last second to export, likewise")
    exporting.add_argument("--reverse", action="store_true", help="write the newest first")
    exporting.add_argument(
        "--filter",
        dest="filters",
        metavar="FILTER",
        type=filter_argument,
        action="append",
        default=[],
        help="only events that match; repeatable. A limit in it means nothing",
    )


def _database(text: str) -> str:
    if not text.startswith("sqlite:") or text in ("sqlite:", "sqlite::memory:"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a database: write sqlite:PATH")
    return text


# Moving events


def _import(relay: Relay, arguments: argparse.Namespace, output: Output) -> int:
    with open_store(relay, arguments.database) as store, _progress() as progress:
        try:
            report = import_lines(
                sys.stdin.buffer,
                store.write,
                int(time.time()),
                is_verifying=not arguments.no_verify,
                progress=progress,
            )
        except ImportError:
            raise CommandError(
                "signatures cannot be verified without coincurve: pip install 'pyryrelay[nostr]', or use --no-verify"
            ) from None
    _print_report(report, output)
    return int(report.has_failed)


def _print_report(report: Report, output: Output) -> None:
    if output.as_json:
        output.json(report.as_json())
        return
    rows = [("accepted", report.accepted), ("duplicate", report.duplicate), ("superseded", report.superseded)]
    rows += [(f"refused: {reason}", number) for reason, number in sorted(report.refused.items())]
    output.table(("EVENTS", "NUMBER"), [(text, str(number)) for text, number in rows])
    if report.first_bad_line is not None:
        sys.stderr.write(f"pyryrelay: line {report.first_bad_line} is no event: {report.problem}\n")


@contextmanager
def _progress() -> Iterator[Any]:
    """Show how far an import is, on a terminal."""
    began = shown = time.monotonic()

    def show(lines: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= PROGRESS_S:
            shown = now
            sys.stderr.write(f"\r{lines:,} lines, {lines / (now - began):,.0f} a second ")
            sys.stderr.flush()

    if not sys.stderr.isatty():
        yield lambda lines: None
        return
    try:
        yield show
    finally:
        if shown != began:
            sys.stderr.write("\r\x1b[K")


def _export(relay: Relay, arguments: argparse.Namespace, output: Output) -> None:
    url = database_of(relay, arguments.database)
    with store_errors():
        _write(
            reading.export(url, arguments.filters, arguments.since, arguments.until, is_reversed=arguments.reverse),
            sys.stdout.buffer,
        )


def _write(events: Iterable[bytes], stream: BinaryIO) -> None:
    for event in events:
        stream.write(event + b"\n")
    stream.flush()


# Finding events


def _scan(relay: Relay, arguments: argparse.Namespace, output: Output) -> None:
    with store_errors():
        _write(reading.scan(database_of(relay, arguments.database), arguments.filters), sys.stdout.buffer)


def _count(relay: Relay, arguments: argparse.Namespace, output: Output) -> None:
    with store_errors():
        number = reading.count(database_of(relay, arguments.database), arguments.filters)
    _print_number("count", number, output)


def _delete(relay: Relay, arguments: argparse.Namespace, output: Output) -> None:
    url = database_of(relay, arguments.database)
    filters: list[Filter] = arguments.filters
    if arguments.dry_run:
        with store_errors():
            number = sum(1 for _ in reading.scan(url, filters))
        _print_number("would_delete", number, output)
        return
    number = 0
    with open_store(relay, arguments.database) as store, store_errors():
        ids = (stored_event(event).id for event in reading.scan(url, filters))
        while piece := list(islice(ids, DELETED_AT_ONCE)):
            number += store.delete(piece, forever=arguments.forever)
    _print_number("deleted", number, output)


def _print_number(word: str, number: int, output: Output) -> None:
    if output.as_json:
        output.json({word: number})
    else:
        output.lines([str(number)])


# Care


def _stats(relay: Relay, arguments: argparse.Namespace, output: Output) -> None:
    with open_store(relay, arguments.database) as store:
        figures = store.statistics()
    if output.as_json:
        output.json(figures)
        return
    numbers = {f"{name} events": number for name, number in figures["events"].items()}
    numbers |= {name.replace("_", " "): figures[name] for name in figures if name != "events"}
    form = "," if output.is_terminal else ""
    output.table(("WHAT", "NUMBER"), [(name, format(number, form)) for name, number in numbers.items()])


def _check(relay: Relay, arguments: argparse.Namespace, output: Output) -> int:
    with store_errors():
        checked = reading.check(database_of(relay, arguments.database), is_verifying=not arguments.no_verify)
    if output.as_json:
        output.json({"events": checked.events, "problems": checked.problems})
    elif checked.problems:
        output.lines(checked.problems)
    else:
        output.message(f"{checked.events:,} events, and all is well")
    return int(bool(checked.problems))


def _compact(relay: Relay, arguments: argparse.Namespace, output: Output) -> None:
    with open_store(relay, arguments.database) as store:
        before = store.statistics()["database_bytes"]
        store.compact()
        after = store.statistics()["database_bytes"]
    if output.as_json:
        output.json({"bytes_before": before, "bytes_after": after})
    else:
        output.message(f"{before:,} bytes before, {after:,} bytes now")


def _lists(relay: Relay, arguments: argparse.Namespace, output: Output) -> None:
    lists = relay.act(PROTOCOL, "lists")
    if output.as_json:
        output.json(lists)
        return
    rows = [(str(one["list"]), str(one["entry"]), str(one["origin"])) for one in lists]
    if not rows:
        output.message("nothing is allowed or denied by name")
        return
    output.table(("LIST", "ENTRY", "ORIGIN"), rows)
