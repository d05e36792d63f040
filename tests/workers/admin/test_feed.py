"""The samples of all workers, as the dashboard gets them."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tests.support.workers import OWN_BYTES, WALL_S, Host

from pyryrelay.admin.dashboard.feed import MAX_NEW_REFUSALS
from pyryrelay.observe.refusals import MAX_RECENT


def events(host: Host) -> list[tuple[str, Any]]:
    """Open a page, let a second pass, and return the events that it gets."""
    exchange = host.client.begin("GET", "/events")
    host.pass_s()
    return parsed(exchange.sent)


def parsed(sent: bytes) -> list[tuple[str, Any]]:
    """Return the events in an answer."""
    found = []
    for block in sent.decode().split("event: ")[1:]:
        name, _, data = block.partition("\ndata: ")
        found.append((name, json.loads(data.partition("\n")[0])))
    return found


def samples(host: Host) -> list[Any]:
    """Return the samples that are kept."""
    history = host.admin.listener.stream.history
    return [body for _, body in parsed(history.after(0, 1000)[0])]


def test_a_sample_of_all_workers() -> None:
    """It is the sum, with the memory and the processor time of the supervisor itself."""
    host = Host(2)
    host.pass_s()
    for worker in host.workers.values():
        worker.connect().upgrade("/v1/server")
    host.used_cpu_s = 0.5
    host.pass_s()
    sample = samples(host)[-1]
    assert (sample["at"], sample["state"], sample["elapsed_s"]) == (WALL_S + 2, "running", 1.0)
    assert (sample["connections"], sample["admitted"]) == ({"server": 2}, {"server": 2})
    assert sample["protocols"]["pyry"]["binaries"] == 2
    assert sample["memory_bytes"] > OWN_BYTES + 2_000_000
    assert sample["cpu"] >= 0.5


def test_what_a_page_gets() -> None:
    """What it is told first has the panels of the workers; each second a sample, refusals, and the workers."""
    host = Host(2)
    host.pass_s()
    host.workers[1].connect().ask("/nothing")
    found = events(host)
    assert [name for name, _ in found] == ["hello", "sample", "sample", "refusals", "workers"]
    hello, refusals, workers = found[0][1], found[3][1], found[4][1]
    assert [*hello["panels"]] == ["pyry", "echo"]
    assert (hello["started_at"], hello["address_form"], hello["refusals"]) == (WALL_S, "full", [])
    assert [one["reason"] for one in refusals] == ["unknown_path"]
    assert [(row["index"], row["state"], row["messages_per_s"]) for row in workers] == [
        (0, "running", 0.0),
        (1, "running", 0.0),
    ]
    assert events(host)[0][1]["refusals"] == refusals


def test_messages_per_second() -> None:
    """Of each worker, received and sent together."""
    host = Host(2)
    binary = host.workers[1].connect()
    binary.upgrade("/v1/server")
    host.pass_s()
    for _ in range(3):
        binary.send(b"{}")
    (*_, (name, workers)) = events(host)
    assert name == "workers"
    assert [row["messages_per_s"] for row in workers] == [0.0, 3.0]


def test_refusals_are_bounded() -> None:
    """A page gets as many in a second as from one process, the newest ones in the order of time."""
    host = Host(2)
    for number in range(MAX_RECENT):
        host.workers[number % 2].service.refusals.refused(None, 429, f"r{number}", None)
    found = dict(events(host))
    assert len(found["refusals"]) == MAX_NEW_REFUSALS
    assert [one["at"] for one in found["refusals"]] == sorted(one["at"] for one in found["refusals"])


def test_a_hanging_worker_delays_no_sample() -> None:
    """The second begins without it, and it counts with what it held."""
    host = Host(2)
    host.workers[1].connect().upgrade("/v1/server")
    host.pass_s()
    host.hang(1)
    host.pass_s()
    assert len(samples(host)) == 1
    host.pass_s()
    # Worker 1 still owes the sample of the second before, so nobody waits for it any more.
    found = samples(host)
    assert len(found) == 3
    assert (found[-1]["connections"], found[-1]["admitted"]) == ({"server": 1}, {})


def test_no_worker_is_there() -> None:
    """There is a sample all the same, so that the page shows the gap."""
    host = Host(1)
    host.starter.running(0).end()
    host.pass_s()
    assert samples(host)[0]["connections"] == {}


def test_the_state() -> None:
    """While the workers end, the page shows it."""
    host = Host(1)
    host.is_draining = True
    host.pass_s()
    assert samples(host)[0]["state"] == "draining"


def test_the_cluster() -> None:
    """Pages see what all workers see, and one worker is asked for the instances while a page is open."""
    host, asked = Host(2), list[tuple[int, bool]]()

    def sight(index: int, with_instances: bool) -> dict[str, Any]:
        asked.append((index, with_instances))
        shown = {"name": "relay", "here": [f"h:{index}"], "members": 2, "is_secret_shared": True, "lease_age_s": 1.0}
        rows = [{"address": "h:9", "link": None}]
        instances = {"instances": rows, "listed_s": 0.0} if with_instances else {"instances": None, "listed_s": None}
        return {**shown, "on_outage": "local", "servers": [], **instances}

    for index, worker in host.workers.items():
        worker.service._sight = partial(sight, index)
        worker.service.reports().listen(worker.process.worker)
    host.pass_s()
    assert asked == [(0, False), (1, False)]
    name, seen = events(host)[-1]
    assert asked[2:] == [(0, True), (1, False)]
    assert (name, seen["here"], seen["instances"]) == ("cluster", ["h:0", "h:1"], [{"address": "h:9", "link": None}])
