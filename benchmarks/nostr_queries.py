"""Queries of a database with a million stored events, from REQ to EOSE.

The database is built beforehand, without signatures, by the store's own writer. It has 20,000 authors, of which some
write much more than others; kinds 0, 1, 3, 6, 7 and 10002 in proportions like those of public relays; and tags `e`,
`p` and `t`. Each query names other authors. Percentiles are those of one client that asks for one thing after the
other. Rivals get 20,000 signed events, since they take minutes for more: their figures are flattered.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _nostr
from _nostr import LOCAL_RELAY, Client, Publisher, Signer
from _rig import OURS, Row, Server, arguments, publish

STORED, QUICK_STORED = 1_000_000, 50_000
AUTHORS = 20_000
RIVAL_EVENTS = 20_000
ASKED, QUICK_ASKED = 400, 60
KINDS = (1, 1, 1, 1, 7, 7, 7, 7, 6, 1111, 30023, 1984)
NOW = 1_790_000_000
BATCH = 1000


def unsigned_events(count: int, authors: list[str], source: random.Random) -> Iterator[bytes]:
    """Yield canonical JSON of events, oldest first. The first authors write most."""
    for number in range(count):
        author = authors[int(len(authors) * source.random() ** 3)]
        kind = (0, 3, 10002)[number // 20 % 3] if number % 20 == 0 else source.choice(KINDS)
        tags = [
            ["e", hashlib.sha256(b"%d" % (number // 7)).hexdigest()],
            ["p", authors[int(len(authors) * source.random() ** 3)]],
            ["t", f"topic{int(5000 * source.random() ** 3)}"],
        ]
        if kind == 30023:
            tags.append(["d", f"article {number}"])
        fields = {"pubkey": author, "created_at": NOW - (count - number) // 2, "kind": kind, "tags": tags}
        fields |= {"content": f"{number} " + "The quick brown fox jumps over the lazy dog. " * 4}
        preimage = json.dumps([0, *fields.values()], separators=(",", ":")).encode()
        event = {"id": hashlib.sha256(preimage).hexdigest(), **fields, "sig": "00" * 64}
        yield json.dumps(event, separators=(",", ":")).encode()


def build(path: Path, count: int, authors: list[str]) -> None:
    """Fill a new database by the store's own writer, without signatures."""
    from pyryrelay.nostr.storage.sqlite.store import open_writer

    store = open_writer(f"sqlite:{path}", is_relaxed=True)
    batch: list[bytes] = []
    began_s = time.monotonic()
    for number, event in enumerate(unsigned_events(count, authors, random.Random(3)), 1):
        batch.append(event)
        if len(batch) == BATCH or number == count:
            store.write(batch, received_s=NOW)
            batch.clear()
        if number % 100_000 == 0:
            print(f"    {number:,} events stored after {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    store.close()


def filters(authors: list[str], source: random.Random) -> dict[str, tuple[Callable[[], Any], str]]:
    """Return the queries, each with its targets."""
    some: Callable[[], str] = lambda: authors[int(len(authors) * source.random())]  # noqa: E731
    return {
        "REQ by author, limit 50": (lambda: {"authors": [some()], "limit": 50}, "at most 1.5 at most 5"),
        "REQ `{}`, limit 500": (lambda: {"limit": 500}, "at most 8"),
        "REQ by 100 authors, kinds 0, 1, 3, 10002, limit 500": (
            lambda: {"authors": sorted({some() for _ in range(100)}), "kinds": [0, 1, 3, 10002], "limit": 500},
            "at most 8",
        ),
        "REQ by `#p`, limit 100": (lambda: {"#p": [some()], "limit": 100}, "at most 2"),
    }


def ask(server: Server, make: Callable[[], Any], count: int) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    client = Client(server, "127.0.0.8")
    for _ in range(20):
        client.fetch(make())
    samples = []
    for _ in range(count):
        wanted = make()
        samples.append(_nostr.timed(lambda wanted=wanted: client.fetch(wanted)))  # type: ignore[misc]
    client.close()
    return _nostr.percentiles_ms(samples)


def first_requests(server: Server, make: Callable[[], Any], count: int) -> float:
    """Return the p99 in ms of the first query of each of many connections."""
    samples = []
    for _ in range(count):
        client = Client(server, "127.0.0.67")
        samples.append(_nostr.timed(lambda client=client: client.fetch(make())))  # type: ignore[misc]
        client.close()
    return _nostr.percentiles_ms(samples)[1]


def unfair(server: Server, make: Callable[[], Any], count: int, source: random.Random) -> tuple[float, float]:
    """Return the p99 in ms of first queries, without and with a client that has a hundred expensive ones.

    These name a popular topic and an absent author, so that every event of the topic is loaded, and none is found.
    """
    first_requests(server, make, 20)
    quiet = first_requests(server, make, count)
    greedy = Client(server, "127.0.0.66")
    for number in range(100):
        wanted = {"#t": [f"topic{number % 3}"], "authors": [source.randbytes(32).hex()], "until": NOW - number}
        greedy.send("REQ", f"scan{number}", wanted)
    attacked = first_requests(server, make, count)
    greedy.close()
    return quiet, attacked


def _filled_rival(stack: contextlib.ExitStack, signer: Signer, count: int) -> Server | None:
    """Start nostr-sdk's relay, if it is installed, and publish events to it."""
    if not _nostr.has_local_relay():
        return None
    rival = stack.enter_context(_nostr.local_relay())
    _nostr.use_all_cores(rival)
    frames = [_nostr.publishing(event.json) for event in signer.events(count)]
    publisher = Publisher(rival, [frames[number::8] for number in range(8)])
    publisher.run()
    publisher.close()
    return rival


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure all."""
    stored, asked = (QUICK_STORED, QUICK_ASKED) if options.quick else (STORED, ASKED)
    source = random.Random(5)
    authors = [source.randbytes(32).hex() for _ in range(AUTHORS)]
    rows = []
    signer = Signer(200)
    with contextlib.ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyryrelay-bench-")))
        build(where / "nostr.sqlite", stored, authors)
        server = stack.enter_context(_nostr.ours("--nostr-database", f"sqlite:{where}/nostr.sqlite"))
        _nostr.use_all_cores(server)
        rival = _filled_rival(stack, signer, RIVAL_EVENTS if not options.quick else 1000)
        theirs = filters(signer.pubkeys, source)
        for name, (make, targets) in filters(authors, source).items():
            figures = {OURS: ask(server, make, asked)}
            if rival is not None:
                figures[LOCAL_RELAY] = ask(rival, theirs[name][0], asked)
            wanted = [f"at most {bound.strip()}" for bound in targets.split("at most")[1:]] + [""]
            for number, percentile in enumerate(("p50", "p99")):
                values = {who: [found[number]] for who, found in figures.items()}
                title = f"{name}, of {stored:,}, {percentile}"
                rows.append(Row(title, "ms", values, wanted[number], baseline=LOCAL_RELAY))
        make = filters(authors, source)["REQ by author, limit 50"][0]
        quiet, attacked = unfair(server, make, asked, source)
        rows.append(
            Row(
                "another client's first REQ during one client's hundred unindexed queries, p99",
                "ms",
                {"attacked": [attacked], "quiet": [quiet]},
                "at most 2 x quiet",
                baseline="quiet",
            )
        )
    return rows


if __name__ == "__main__":
    parsed = arguments(__doc__ or "")
    publish(bench(parsed), parsed)
    sys.exit(0)
