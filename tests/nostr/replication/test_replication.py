"""Hosts tell each other what they store, over outages, restarts and crashes."""

from __future__ import annotations

import random
from collections import Counter
from itertools import cycle
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.nostr_hosts import Cluster, Machine, Subscriber
from tests.support.nostr_relay import ALICE, BOB, WALL_S, as_dict, event, json_of

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.replication import outbox, trimmed
from pyryrelay.nostr.replication import replication as module
from pyryrelay.nostr.replication.replication import FIRST_EVENTS, KEEP_S
from pyryrelay.nostr.replication.trimmed import CALM_S


def everywhere(cluster: Cluster) -> list[list[Subscriber]]:
    """Subscribe on every worker of every host."""
    return [[machine.subscribe(worker) for worker in range(len(machine.host.workers))] for machine in cluster.machines]


def notes(count: int, text: str = "") -> list[Event]:
    """Return different events."""
    return [event(f"{text}{number}") for number in range(count)]


def test_what_one_host_stores_all_have() -> None:
    """Stored and delivered once, on all workers of all hosts; nobody announces what came from another host."""
    cluster = Cluster(1, 2, 3)
    one, two, three = cluster.machines
    subscribers = everywhere(cluster)
    events = notes(5)
    assert [answer[2] for answer in one.publish(*events)] == [True] * 5
    late = event("late")
    two.publish(late, worker=1)
    wanted = [one.id for one in (*events, late)]
    for machine in cluster.machines:
        assert machine.ids == set(wanted)
    for group in subscribers:
        for subscriber in group:
            assert sorted(subscriber.heard) == sorted(wanted)
    assert (one.totals.announced, two.totals.announced, three.totals.announced) == (5, 1, 0)
    assert three.totals.taken_in["stored"] == 6
    cluster.pass_s(10)
    assert [len(machine.broadcast.added) for machine in cluster.machines] == [5, 1, 0]


def test_the_ok_does_not_wait() -> None:
    """An event is answered when it is committed, whatever the servers do."""
    cluster = Cluster(1, 1)
    cluster.servers.down()
    assert cluster.machines[0].publish(event("x"))[0][2]
    assert cluster.machines[0].replication.waiting == 1


def test_events_wait_in_the_store_during_an_outage() -> None:
    """They are announced when the server is back; each outage has one line at its beginning and one at its end."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    cluster.servers.down()
    for number in range(300):
        one.publish(event(str(number)))
    cluster.pass_s(100)
    assert one.replication.waiting == 300
    assert two.ids == set()
    cluster.servers.up()
    cluster.settle()
    cluster.pass_s(1)
    assert len(two.ids) == 300
    assert [line[0] for line in one.log.lines] == ["sharing", "stopped", "again"]


def test_a_server_that_refuses_is_tried_again() -> None:
    """Also without losing the connection, such as for want of memory."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    cluster.servers.servers[0].refusal = "OOM"
    one.publish(event("x"))
    cluster.pass_s(20)
    assert two.ids == set()
    cluster.servers.servers[0].refusal = ""
    cluster.pass_s(20)
    assert two.ids == one.ids
    assert ("stopped", "OOM") in one.log.lines


def test_a_server_may_lose_what_nobody_has_read() -> None:
    """What was announced in the last minute is announced again when it is back, empty or as an older copy of itself."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    for fault in ("empty", "lose"):
        two.broadcast.cut()
        one.publish(*notes(5, fault))
        cluster.servers.down()
        cluster.pass_s(100)
        do(cluster, one, fault, event("x"))
        two.broadcast.heal()
        cluster.settle()
        cluster.pass_s(11)  # a server that comes and goes does not have everything announced each time
        assert two.ids == one.ids


def test_a_backlog_does_not_hold_up_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """While what was imported waits, what clients publish reaches other hosts at once, from all workers, and once."""
    for name, value in (("MOST", 10), ("MANY", 50), ("MANY_PER_S", 10)):
        monkeypatch.setattr(outbox, name, value)
    other, cluster = Cluster(1), Cluster(2, 1)
    one, two = cluster.machines
    subscriber = two.subscribe()
    other.machines[0].publish(*notes(200))
    one.import_from(other.machines[0])
    assert one.replication.waiting >= 100
    news = notes(4, "news")
    for worker, each in enumerate(news):
        one.publish(each, worker=worker % 2)
        assert each.id in two.ids
    assert one.replication.waiting >= 100
    cluster.pass_s(30)
    assert one.replication.waiting == 0
    assert two.ids == one.ids
    assert len(one.broadcast.added) == 204
    assert Counter(subscriber.heard) == dict.fromkeys(one.ids, 1)


def test_what_has_passed_a_backlog_is_announced_again_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its turn: only its number was remembered, and not on the disk."""
    for name, value in (("MOST", 10), ("MANY", 50), ("MANY_PER_S", 10)):
        monkeypatch.setattr(outbox, name, value)
    other, cluster = Cluster(1), Cluster(1, 1)
    one, two = cluster.machines
    other.machines[0].publish(*notes(200))
    one.import_from(other.machines[0])
    one.publish(event("news"))
    cluster.servers.down()
    one.kill()
    cluster.servers.restart_empty()
    cluster.pass_s(60)
    assert one.replication.waiting == 0
    assert two.ids == one.ids


@pytest.mark.parametrize("step", ["heal", "restart", "kill", "twice"])
def test_a_host_that_was_cut_off_gets_what_the_server_lost(step: str) -> None:
    """However long ago it was announced, and by whom: it asks for it, and the others for what it had announced.

    Whether it is the same process or not; and if the server loses everything once more before all have come back.
    """
    cluster = Cluster(1, 2, 1)
    one, two, three = cluster.machines

    def publish(text: str, *machines: Machine) -> None:
        """Publish events, the first of which others have announced long ago in the end."""
        for number in range(5):
            cluster.pass_s(31)
            for name, machine in enumerate(machines):
                machine.publish(event(f"{text} {number} {name}"))

    publish("all", one, two, three)
    two.broadcast.cut()
    publish("without two", one, three)
    three.broadcast.cut()
    publish("alone", one, two, three)
    cluster.servers.restart_empty()
    one.publish(event("last"))
    cluster.pass_s(100)
    assert len({len(machine.ids) for machine in cluster.machines}) == 3
    two.broadcast.heal()
    if step == "twice":
        cluster.pass_s(90)
        cluster.servers.restart_empty()
        cluster.pass_s(90)
    elif step != "heal":
        getattr(three, step)()
    three.broadcast.heal()
    cluster.pass_s(30)
    assert [len(machine.ids) for machine in cluster.machines] == [41, 41, 41]
    assert [machine.missed + machine.totals.missed for machine in cluster.machines] == [0, 0, 0]
    cluster.pass_s(100)
    assert [machine.replication.waiting for machine in cluster.machines] == [0, 0, 0]


def test_what_nobody_announces_again_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that would have to go back too far says so, and who has asked counts it."""
    monkeypatch.setattr("pyryrelay.nostr.replication.history.MAX_AGAIN", 10)
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    one.publish(event("before"))
    cluster.pass_s(70)
    two.broadcast.cut()
    for number in range(3):
        one.publish(*notes(10, f"{number}."))
        cluster.pass_s(100)
    cluster.servers.restart_empty()
    cluster.pass_s(100)
    two.broadcast.heal()
    cluster.pass_s(30)
    assert 10 <= len(two.ids) < 30
    assert (two.totals.missed, one.totals.missed) == (1, 0)
    assert ("missed",) in two.log.lines


@pytest.mark.parametrize("step", ["heal", "restart", "kill", "down", "author killed", "empty"])
def test_a_host_that_was_away_gets_what_the_server_did_not_keep(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host announces it again: about once, although both others could; and nothing that is still there.

    Whichever process it is by then, on both sides; and if the server is away, or loses everything, when it has asked.
    """
    chances = cycle([0.0, 0.25, 0.5, 0.75])
    monkeypatch.setattr(random, "random", lambda: next(chances))
    cluster = Cluster(1, 2, 1)
    one, two, three = cluster.machines
    subscriber = three.subscribe()
    for number in range(30):
        cluster.pass_s(31)
        if number == 5:
            three.broadcast.cut()
        one.publish(event(f"one {number}"))
        two.publish(event(f"two {number}"), worker=1)
    cluster.servers.trim(20)
    before = one.totals.announced + two.totals.announced
    three.broadcast.heal()
    cluster.settle()
    assert (three.missed, len(three.ids)) == (1, 30)
    if step in ("kill", "restart"):
        getattr(three, step)()
    cluster.pass_s(10)
    assert [line[0] for line in three.log.lines].count("asking for trimmed") == 1
    match step:
        case "down":
            cluster.servers.down()
            cluster.pass_s(60)
            cluster.servers.up()
        case "empty":
            cluster.servers.restart_empty()
            cluster.pass_s(CALM_S)
        case "author killed":
            one.kill()
            two.kill()
            before = 0
    cluster.pass_s(60)
    assert [len(machine.ids) for machine in cluster.machines] == [60, 60, 60]
    assert [machine.totals.missed for machine in cluster.machines] == [0, 0, 0]
    assert three.log.lines[-1] == ("given",)
    again = one.totals.announced + two.totals.announced - before
    assert 30 <= again <= 55 or step in ("down", "empty")
    if step not in ("kill", "restart"):
        assert Counter(subscriber.heard) == dict.fromkeys(three.ids, 1)
    announced = [len(machine.broadcast.added) for machine in cluster.machines]
    cluster.pass_s(100)
    assert [len(machine.broadcast.added) for machine in cluster.machines] == announced


def test_a_server_that_comes_and_goes_is_not_flooded() -> None:
    """The last minute is announced again once in ten seconds at most."""
    cluster = Cluster(1, 1)
    one, _ = cluster.machines
    cluster.pass_s(20)
    one.publish(*notes(50))
    for _ in range(20):
        cluster.servers.down()
        cluster.servers.up()
        cluster.settle()
    assert len(one.broadcast.added) == 100
    cluster.pass_s(11)
    assert len(one.broadcast.added) == 150


def test_the_first_start_announces_no_history() -> None:
    """Only the newest events: others may have been stored by other workers since the start."""
    cluster = Cluster(1)
    machine = cluster.machines[0]
    machine.halt()
    machine.store.keep_positions({"announced": "0"})
    alone = Cluster()
    history = notes(FIRST_EVENTS + 50)
    fresh = Machine(alone)
    fresh.store.write([json_of(one) for one in history], received_s=WALL_S)
    alone.machines.append(fresh)
    alone.settle()
    assert [body[1:] for body in fresh.broadcast.added] == [json_of(one) for one in history[50:]]


def test_a_host_that_comes_later_reads_from_the_oldest_entry() -> None:
    """It has at the end what the servers have."""
    cluster = Cluster(1)
    cluster.machines[0].publish(*notes(10))
    late = Machine(cluster)
    cluster.machines.append(late)
    cluster.settle()
    assert late.ids == cluster.machines[0].ids
    assert late.totals.announced == 0


def test_it_goes_on_after_a_restart() -> None:
    """Where it was: nothing is taken in twice, and what was stored meanwhile is taken in."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    one.publish(*notes(10))
    cluster.pass_s(2 * KEEP_S)
    two.halt()
    one.publish(*notes(10, "more"))
    two.start()
    cluster.settle()
    assert two.ids == one.ids
    assert two.totals.taken_in["stored"] == 10
    assert two.totals.taken_in["duplicate"] == 0


def test_a_restart_keeps_the_last_positions() -> None:
    """Also those of the last second; and what others have announced is not announced by the next process."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    one.publish(*notes(10))
    two.publish(event("own"))
    two.restart()
    cluster.settle()
    assert sum(two.totals.taken_in.values()) == 0
    assert [body[1:] for body in two.broadcast.added] == [json_of(event("own"))]


def test_a_crash_repeats_some_events() -> None:
    """What was not kept is taken in and announced again, and is there already."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    subscriber = one.subscribe()
    two.publish(*notes(3))
    one.publish(event("own"))
    two.kill()
    one.kill()
    assert two.totals.taken_in["duplicate"] > 0
    assert two.totals.taken_in["stored"] == 0
    assert one.ids == two.ids
    assert len(subscriber.heard) == 4


def test_the_first_worker_may_be_killed() -> None:
    """Its successor goes on from what the store knows; other workers publish and deliver meanwhile, and after it."""
    cluster = Cluster(3, 1)
    one, two = cluster.machines
    subscribers = [one.subscribe(1), one.subscribe(2), two.subscribe()]
    one.publish(*notes(5), worker=1)
    cluster.pass_s(2)
    for number in range(3):
        one.publish(event(f"before {number}"), worker=2)
        two.publish(event(f"there {number}"))
        one.kill_first_worker()
        one.publish(event(f"after {number}"), worker=1)
    assert one.ids == two.ids
    assert len(one.ids) == 14
    for subscriber in subscribers:
        assert Counter(subscriber.heard) == dict.fromkeys(one.ids, 1)


def test_a_store_that_cannot_be_written_stops_the_reading() -> None:
    """The position stays, and everything is stored when it can be."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    cluster.pass_s(2)
    kept = dict(two.store.positions())
    two.store.is_broken = True
    one.publish(*notes(3))
    one.publish(*notes(3, "more"))
    cluster.pass_s(30)
    assert two.ids == set()
    assert two.store.positions() == kept
    assert two.replication.behind_s == 30
    two.store.is_broken = False
    cluster.pass_s(10)
    assert two.ids == one.ids
    assert two.replication.behind_s == 0


def test_deletions_and_versions_converge() -> None:
    """Whichever comes first on which host."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    for machine in cluster.machines:
        machine.broadcast.cut()
    note, wrap = event("gone"), event("wrap", kind=1059, author=BOB, tags=[["p", ALICE]])
    old, new = (event(text, kind=30_000, created_at=WALL_S + number) for number, text in enumerate(("old", "new")))
    gone = event("", kind=5, tags=[["e", note.id], ["e", wrap.id]])
    one.publish(note, new, wrap)
    two.publish(gone, old)
    for machine in cluster.machines:
        machine.broadcast.heal()
    cluster.settle()
    assert one.ids == two.ids == {gone.id, new.id}


def test_what_expires_is_shared_until_then() -> None:
    """An event that has expired on its way is not taken in (NIP-40)."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    soon, later = (event(str(passed_s), tags=[["expiration", str(WALL_S + passed_s)]]) for passed_s in (20, 200))
    two.broadcast.cut()
    one.publish(soon, later)
    cluster.pass_s(30)
    two.broadcast.heal()
    cluster.settle()
    assert two.ids == {later.id}
    assert two.totals.taken_in["expired"] == 1


@pytest.mark.parametrize("is_first", [False, True])
def test_what_nobody_may_delete_stays_everywhere(is_first: bool) -> None:
    """Deletions and requests to vanish are events like others, and no deletion removes them, whichever comes first."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    deletion, vanish = event("", kind=5, tags=[["e", "0" * 64]]), event("", kind=62, tags=[["relay", "ALL_RELAYS"]])
    naming = event("naming", kind=5, tags=[["e", deletion.id], ["e", vanish.id]])
    wrap = event("of somebody else", kind=1059, author=BOB, tags=[["p", ALICE]])
    unwrap = event("unwrap", kind=5, tags=[["e", wrap.id]])
    both = [(naming, unwrap), (deletion, vanish, wrap)]
    for machine, some in zip((one, two), both if is_first else both[::-1], strict=True):
        machine.publish(*some)
    assert one.ids == two.ids == {each.id for each in (deletion, vanish, naming, unwrap)}


def test_protected_events_are_shared() -> None:
    """Their author has proved to one host who that is (NIP-70), and the others believe it."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    one.store.write([json_of(event("mine", tags=[["-"]]))], received_s=WALL_S)
    one.publish(event("next"))
    assert len(two.ids) == 2


def test_ephemeral_events_reach_all_hosts() -> None:
    """Once each, on all workers, whichever has accepted them. They are answered as if somebody had heard them."""
    cluster = Cluster(2, 2)
    one, two = cluster.machines
    subscribers = everywhere(cluster)
    first, second = event("1", kind=20_001), event("2", kind=20_001)
    for worker, each in enumerate((first, second)):
        assert one.publish(each, worker=worker) == [["OK", each.id, True, ""]]
    assert two.publish(first)[0][3].startswith("duplicate")
    for group in subscribers:
        for subscriber in group:
            assert Counter(subscriber.heard) == {first.id: 1, second.id: 1}
    assert (one.totals.ephemeral_announced, two.totals.ephemeral_announced) == (2, 0)
    assert two.totals.taken_in["ephemeral"] == 2
    assert one.ids == two.ids == set()


def test_a_flood_of_ephemeral_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What servers do not take is forgotten, and counted."""
    monkeypatch.setattr(module, "MAX_EPHEMERALS", 3)
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    client = one.host.workers[0].client()
    client.send(*[["EVENT", as_dict(event(str(number), kind=20_001))] for number in range(5)])
    cluster.settle()
    assert (one.totals.ephemeral_announced, one.totals.ephemeral_dropped) == (3, 2)
    one.publish(event("later", kind=20_001))
    assert two.totals.taken_in["ephemeral"] == 4


def test_late_ephemeral_events_are_left_out() -> None:
    """Nobody waits for them any more; and during an outage they are forgotten."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    subscriber = two.subscribe()
    two.broadcast.cut()
    one.publish(event("1", kind=20_001))
    cluster.pass_s(10)
    two.broadcast.heal()
    cluster.settle()
    assert two.totals.taken_in["late"] == 1
    cluster.servers.down()
    one.publish(event("2", kind=20_001))
    assert one.totals.ephemeral_dropped == 1
    cluster.servers.up()
    cluster.settle()
    assert subscriber.heard == []


def test_what_is_missed_can_be_imported() -> None:
    """The host goes on with what is left. The rest may be imported from another host, and becomes no news there."""
    cluster = Cluster(1, 1)
    one, two = cluster.machines
    one.publish(event("before"))
    two.broadcast.cut()
    one.publish(*notes(20))
    cluster.servers.trim(5)
    two.broadcast.heal()
    cluster.settle()
    assert two.missed == 1
    assert len(two.ids) == 6
    two.import_from(one)
    assert two.ids == one.ids
    assert one.totals.taken_in["stored"] == 0


# Everything together

_AUTHORS = st.sampled_from([ALICE, BOB])
_TIMES = st.integers(WALL_S - 3, WALL_S)
_EVENTS = st.lists(
    st.builds(event, st.sampled_from("abcdef"), kind=st.sampled_from([1, 1059]), author=_AUTHORS, created_at=_TIMES)
    | st.builds(
        event,
        st.sampled_from("abc"),
        kind=st.sampled_from([0, 30_000]),
        author=_AUTHORS,
        created_at=_TIMES,
        tags=st.sampled_from([[], [["d", "x"]]]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one.id,
)
KILLS = ("kill", "restart", "kill first")
_FAULTS = ("down", "up", "empty", "lose", "second", "minutes", "break", *("away",) * 2, *KILLS)
_STEPS = st.lists(st.sampled_from([*("publish",) * 8, *("cut", "heal") * 2, *_FAULTS]), min_size=5, max_size=40)
_TRIMS = st.lists(st.sampled_from(["publish", "trim", "trim", "heal", "down", "up", "second", *KILLS]), max_size=12)


def deletion_of(events: list[Event], author: str, number: int) -> Event:
    """Return a kind 5 that names notes by their ids, and versions by their addresses."""
    tags = [["e", one.id] for one in events if one.kind in (1, 1059) and number % 2]
    tags += [["a", f"{one.kind}:{author}:"] for one in events if one.kind in (0, 30_000)]
    return event(str(number), kind=5, author=author, created_at=WALL_S - 1, tags=[*tags, ["e", "0" * 64]])


def do(cluster: Cluster, machine: Machine, step: str, one: Event) -> None:
    """Let one thing happen, to the server of an event if it is one to servers."""
    source = one.id.encode()[0] % len(cluster.servers.servers)
    match step:
        case "publish":
            machine.publish(one, worker=len(one.content) % len(machine.host.workers))
        case "cut":
            machine.broadcast.cut()
        case "heal":
            machine.broadcast.heal()
        case "down":
            cluster.servers.down(source)
        case "up":
            cluster.servers.up(source)
        case "empty":
            cluster.servers.restart_empty(source)
        case "lose":
            cluster.servers.lose_newest(2, source)
        case "kill" | "kill first" | "restart":
            {"kill": machine.kill, "kill first": machine.kill_first_worker, "restart": machine.restart}[step]()
        case "second":
            cluster.pass_s(1)
        case "minutes":
            cluster.pass_s(130)
        case "away":
            machine.broadcast.cut()
            next(each for each in cluster.machines if each is not machine).publish(one)
            cluster.pass_s(130)
            cluster.servers.restart_empty(source)
        case "trim":
            do_without(cluster, machine, one)
        case "break":
            machine.store.is_broken = not machine.store.is_broken
    cluster.settle()


def do_without(cluster: Cluster, machine: Machine, one: Event) -> None:
    """Cut a host off while servers forget most of what all hosts publish."""
    machine.broadcast.cut()
    for number, each in enumerate(cluster.machines):
        each.publish(one, *notes(2, f"{number} {cluster.clock.seconds()} "))
    cluster.pass_s(130)
    for source in range(len(cluster.servers.servers)):
        cluster.servers.trim(1, source)


@given(_EVENTS, _STEPS, st.data())
@settings(max_examples=25, deadline=None)
def test_all_hosts_have_the_same_in_the_end(events: list[Event], steps: list[str], data: st.DataObject) -> None:
    """Whatever happens to hosts and servers; and each subscriber has got each event once that is new since it came."""
    check_that_all_agree(events, steps, data)


@patch.object(trimmed, "CALM_S", 10)
@given(_EVENTS, _TRIMS, st.data())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_what_servers_do_not_keep_is_not_lost(events: list[Event], steps: list[str], data: st.DataObject) -> None:
    """The same while servers forget entries before all hosts have read them.

    A host may lack what a server has not kept twice: it says so.
    """
    check_that_all_agree(events, ["publish", "trim", *steps], data)


def check_that_all_agree(events: list[Event], steps: list[str], data: st.DataObject) -> None:
    """Take steps, mend everything, and compare the hosts."""
    cluster = Cluster(1, 2, 1, servers=data.draw(st.integers(1, 2)), nostr_private_kinds=frozenset())
    everything = [*events, *(deletion_of(events[:4], author, number) for number, author in enumerate((ALICE, BOB)))]
    subscribers = {machine: Watching(machine) for machine in cluster.machines}
    for step in steps:
        machine = data.draw(st.sampled_from(cluster.machines))
        do(cluster, machine, step, data.draw(st.sampled_from(everything)))
        if step in KILLS:
            subscribers[machine] = Watching(machine)
    for machine in cluster.machines:
        machine.store.is_broken = False
        machine.broadcast.heal()
    for source, server in enumerate(cluster.servers.servers):
        if not server.is_up:
            cluster.servers.up(source)
    cluster.pass_s(80)
    whole = [machine for machine in cluster.machines if ("missed",) not in machine.log.lines]
    assert len({frozenset(machine.ids) for machine in whole}) <= 1
    assert len(whole) == 3 or steps.count("trim") > 1
    for watching in subscribers.values():
        watching.check()


class Watching:
    """A subscriber on each worker of a host, which is not restarted from now on."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._known = machine.ids
        self._subscribers = [machine.subscribe(worker) for worker in range(len(machine.host.workers))]

    def check(self) -> None:
        """Check that everything new was delivered once."""
        for subscriber in self._subscribers:
            counts = Counter(subscriber.heard)
            assert set(counts.values()) <= {1}
            assert self._machine.ids - self._known <= counts.keys()
