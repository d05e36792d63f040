"""The directory's scripts, on a real Redis and against a model of plain Python."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.directory_model import DirectoryModel
from tests.support.resp import RespClient, needs_resp_server

from pyryrelay.cluster.directory.scripts import (
    ASSERT,
    ENTRY_MS,
    LEASE_US,
    LEAVE,
    MEMBERS,
    NOW,
    RENEW,
    SILENCE_US,
    VISIT,
    WARM_UP_US,
    Names,
)
from pyryrelay.cluster.keys import PARTITIONS, Keys

pytestmark = needs_resp_server

TEST_NOW = "local now = tonumber(redis.call('GET', 'clock'))\n"
CLUSTER = Keys("test", b"secret")
NAMES = Names(CLUSTER)
KEYS = ("id-0", "id-1", "id-2")
INSTANCES = ("a:1", "b:1", "c:1")
START = 1_790_000_000_000_000


def slot(key: str) -> bytes:
    """Return the name of an entry, in the first partition."""
    return CLUSTER.key(0, "s:", key.encode())


def clocked(script: str) -> str:
    """Return a script that reads the test's clock."""
    assert script.count(NOW) == 1
    return script.replace(NOW, TEST_NOW)


class RealDirectory:
    """The scripts on a server, called as `DirectoryModel` is."""

    def __init__(self, client: RespClient) -> None:
        self.client = client
        self.partition = NAMES.partitions[0]
        client("FLUSHALL")
        self.now = START

    @property
    def now(self) -> int:
        """The time of the scripts in us."""
        return int(self.client("GET", "clock"))

    @now.setter
    def now(self, now: int) -> None:
        self.client("SET", "clock", now)

    def restart_empty(self) -> None:
        """Forget everything but the time."""
        now = self.now
        self.client("FLUSHALL")
        self.now = now

    def renew(self, me: str, boot: str, address: str, mac: str) -> list[str]:
        """Run ``RENEW``."""
        args = (me, boot, LEASE_US, address, mac, "0", SILENCE_US)
        answer: list[str] = self.client.script(clocked(RENEW), self.partition, args)
        return answer

    def leave(self, me: str, boot: str) -> int:
        """Run ``LEAVE``."""
        answer: int = self.client.script(LEAVE, self.partition[:1], (me, boot))
        return answer

    def visit(self, me: str, boot: str, kind: str, key: str, epoch: int = 0) -> list[str]:
        """Run ``VISIT``, with all keys in one partition."""
        args = (me, boot, WARM_UP_US, SILENCE_US, ENTRY_MS, kind, epoch)
        ((answer),) = self.client.script(clocked(VISIT), (*self.partition, slot(key)), args)
        found: list[str] = answer
        return found

    def claim_again(self, me: str, boot: str, key: str, epoch: int) -> list[str]:
        """Run ``ASSERT``."""
        keys = (self.partition.leases, slot(key))
        ((answer),) = self.client.script(clocked(ASSERT), keys, (me, boot, ENTRY_MS, epoch))
        found: list[str] = answer
        return found


class ScriptsAndModel(RuleBasedStateMachine):
    """The scripts and the model answer alike, whatever three instances do in whatever order."""

    client: RespClient

    def __init__(self) -> None:
        super().__init__()
        self.real = RealDirectory(self.client)
        self.model = DirectoryModel(WARM_UP_US, LEASE_US, SILENCE_US, START)
        self.boots = dict.fromkeys(INSTANCES, "boot0")
        self.epochs: dict[tuple[str, str], int] = {}

    @rule(step=st.sampled_from([1, 500_000, 2_000_000, 2_749_999, 5_999_999, 6_000_000, 10_000_000, -4_000_000]))
    def pass_time(self, step: int) -> None:
        """Time passes, or the server's clock is set back."""
        self.model.now += step
        self.real.now = self.model.now

    @rule()
    def restart_empty(self) -> None:
        """The server loses everything."""
        self.model.restart_empty()
        self.real.restart_empty()

    @rule(me=st.sampled_from(INSTANCES))
    def renew(self, me: str) -> None:
        """An instance renews its lease."""
        arguments = (me, self.boots[me], f"{me}/address", "mac")
        assert self.real.renew(*arguments) == self.model.renew(*arguments)

    @rule(me=st.sampled_from(INSTANCES), leaves=st.booleans())
    def restart(self, me: str, leaves: bool) -> None:
        """An instance ends, in order or not, and starts again."""
        if leaves:
            assert self.real.leave(me, self.boots[me]) == self.model.leave(me, self.boots[me])
        self.boots[me] = f"boot{int(self.boots[me][4:]) + 1}"
        self.epochs = {pair: epoch for pair, epoch in self.epochs.items() if pair[0] != me}

    @rule(me=st.sampled_from(INSTANCES), key=st.sampled_from(KEYS), kind=st.sampled_from(["claim", "look", "release"]))
    def visit(self, me: str, key: str, kind: str) -> None:
        """An instance claims, looks up or releases a key."""
        epoch = self.epochs.get((me, key), 0)
        real = self.real.visit(me, self.boots[me], kind, key, epoch)
        assert real == self.model.visit(me, self.boots[me], kind, key, epoch)
        if kind == "claim" and real[0] == "here":
            assert int(real[1]) >= epoch
            self.epochs[me, key] = int(real[1])
        elif kind == "release":
            self.epochs.pop((me, key), None)

    @rule(me=st.sampled_from(INSTANCES), key=st.sampled_from(KEYS), is_confirmed=st.booleans())
    def claim_again(self, me: str, key: str, is_confirmed: bool) -> None:
        """An instance asserts a key that it holds, or seated during an outage."""
        epoch = self.epochs.get((me, key), 0) if is_confirmed else 0
        real = self.real.claim_again(me, self.boots[me], key, epoch)
        assert real == self.model.claim_again(me, self.boots[me], key, epoch)
        if real[0] == "here":
            self.epochs[me, key] = int(real[1])
        elif real[0] == "lost":
            self.epochs.pop((me, key), None)

    @invariant()
    def the_same_is_stored(self) -> None:
        """Each key has the entry of the model."""
        for key in KEYS:
            entry = self.model.entries.get(key)
            stored = self.real.client("GET", slot(key))
            assert stored == (None if entry is None else f"{entry.instance} {entry.boot} {entry.epoch}")

    @invariant()
    def the_same_warm_up_is_noted(self) -> None:
        """The server knows when the last one began, and when anybody last renewed."""
        noted = None if self.model.began is None else f"{self.model.began} {self.model.renewed}"
        assert self.real.client("GET", self.real.partition.began) == noted


def test_scripts_and_model_agree(client: RespClient) -> None:
    """The scripts and the model answer alike, whatever three instances do in whatever order."""
    ScriptsAndModel.client = client
    case = ScriptsAndModel.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    case().runTest()


def test_a_batch_is_carried_out_in_order(client: RespClient) -> None:
    """A release and a claim in one batch happen one after the other, on keys of several partitions."""
    real = RealDirectory(client)
    keys, args = list[bytes](), list[object]()
    for kind, key, epoch in (("claim", "x", 0), ("claim", "y", 0), ("release", "x", 0), ("look", "x", 0)):
        number, name = NAMES.of(key)
        keys += [*NAMES.partitions[number], name]
        args += [kind, epoch]
    flat = [name for partition in NAMES.partitions for name in partition]
    renewal = ("a:1", "b", LEASE_US, "a:1", "m", "0", SILENCE_US)
    answer = client.script(clocked(RENEW), flat, renewal)
    assert answer[:3] == [str(START), str(PARTITIONS), ""]
    assert len(answer) == 3 + PARTITIONS
    real.now = START + SILENCE_US - 1
    client.script(clocked(RENEW), flat, renewal)
    real.now = later = START + WARM_UP_US
    answers = client.script(clocked(VISIT), keys, ("a:1", "b", WARM_UP_US, SILENCE_US, ENTRY_MS, *args))
    assert answers == [["here", str(later)], ["here", str(later)], ["released"], ["nobody"]]


def test_members_lists_and_forgets(client: RespClient) -> None:
    """Leases that were over long ago are deleted, and the others listed."""
    real = RealDirectory(client)
    real.renew("a:1", "b", "a:1", "m")
    real.now = START + LEASE_US + 5
    real.renew("c:1", "b", "c:1", "m")
    listed = client.script(clocked(MEMBERS), real.partition[:1], (10,))
    assert listed == [
        str(real.now),
        "a:1",
        f"b {START + LEASE_US} a:1 m 0",
        "c:1",
        f"b {real.now + LEASE_US} c:1 m 0",
    ]
    listed = client.script(clocked(MEMBERS), real.partition[:1], (4,))
    assert listed[1::2] == ["c:1"]
    assert client("HKEYS", real.partition.leases) == ["c:1"]


GONE = "pyry:test:{0}gone"


def test_who_has_left_is_listed(client: RespClient) -> None:
    """With the time when it left, until it is back, or that was long ago."""
    real = RealDirectory(client)
    keys = (real.partition[0], GONE)
    for me in ("a:1", "b:1"):
        real.renew(me, "b", me, "m")
    assert client.script(clocked(LEAVE), keys, ("a:1", "other", "a:1 m 3 proof")) == 0
    assert client("EXISTS", GONE) == 0
    real.now = left = START + 5
    assert client.script(clocked(LEAVE), keys, ("a:1", "b", "a:1 m 3 proof")) == 1
    assert client("PTTL", GONE) > 0
    assert client.script(clocked(MEMBERS), keys, (10, 10)) == [
        str(left),
        "b:1",
        f"b {START + LEASE_US} b:1 m 0",
        "a:1",
        f"b {left} a:1 m 3 proof",
    ]
    real.now = left + 11
    assert client.script(clocked(MEMBERS), keys, (10, 11))[1::2] == ["b:1", "a:1"]
    real.renew("a:1", "c", "a:1", "m")
    assert sorted(client.script(clocked(MEMBERS), keys, (10, 11))[1::2]) == ["a:1", "b:1"]
    assert client("EXISTS", GONE) == 0
    client.script(clocked(LEAVE), keys, ("a:1", "c", "a:1 m 3 proof"))
    real.now = left + 23
    assert client.script(clocked(MEMBERS), keys, (10, 11))[1::2] == ["b:1"]
    assert client("EXISTS", GONE) == 0


def test_what_is_damaged_stops_nobody_from_leaving(client: RespClient) -> None:
    """Keys of another type are passed over or replaced, long values deleted, and there are never too many."""
    real = RealDirectory(client)
    real.renew("a:1", "b", "a:1", "m")
    client("SET", GONE, "x")
    listed = client.script(clocked(MEMBERS), (real.partition[0], GONE), (10, 10))
    assert listed[1::2] == ["a:1"]
    client("SET", "pyry:test:{1}leases", "x")
    assert client.script(clocked(LEAVE), ("pyry:test:{1}leases", real.partition[0], GONE), ("a:1", "b", "a:1 m")) == 1
    assert client("HKEYS", GONE) == ["a:1"]
    client("HSET", GONE, "long", "b 1 " + 5000 * "x", "odd", "nonsense")
    client("SET", real.partition[0], "x")
    assert client.script(clocked(MEMBERS), (real.partition[0], GONE), (10, 10))[1::2] == ["a:1"]
    assert client("HKEYS", GONE) == ["a:1"]
    client("DEL", real.partition[0])
    for number in range(1_000):
        client("HSET", GONE, f"i{number}", f"b {real.now} a m")
    real.renew("a:1", "b", "a:1", "m")
    client.script(clocked(LEAVE), (real.partition[0], GONE), ("a:1", "b", "a:1 m"))
    assert client("HKEYS", GONE) == ["a:1"]


def test_scripts_use_the_clock_of_the_server(client: RespClient) -> None:
    """Without the test's clock, the server's own counts."""
    client("FLUSHALL")
    seconds, micros = client("TIME")
    args = ("a:1", "b", LEASE_US, "a:1", "m", "0", SILENCE_US)
    now, lapsed, _, began = client.script(RENEW, NAMES.partitions[0], args)
    assert int(now) >= int(seconds) * 1_000_000 + int(micros)
    assert (lapsed, began) == ("1", now)


def test_names_hide_keys() -> None:
    """A name has the partition as its hash tag, and depends on the secret."""
    number, name = NAMES.of("my-server")
    assert name.startswith(b"pyry:test:{%d}s:" % number)
    assert b"my-server" not in name
    assert Names(Keys("test", b"other")).of("my-server") != (number, name)
    assert {NAMES.of(f"id-{index}")[0] for index in range(2000)} == set(range(PARTITIONS))


def test_keys_of_another_type_count_as_missing(client: RespClient) -> None:
    """The next renewal replaces them, and begins a warm-up as in an empty server; the holder asserts what it has."""
    real = RealDirectory(client)
    leases, began = real.partition
    for damaged in (leases, began, slot("id-0")):
        client("FLUSHALL")
        real.now = START
        for real.now in (START, START + SILENCE_US - 1, START + WARM_UP_US):
            real.renew("a:1", "boot", "addr", "mac")
        assert real.visit("a:1", "boot", "claim", "id-0")[0] == "here"
        client("DEL", damaged)
        client("RPUSH", damaged, "x")
        assert real.visit("a:1", "boot", "claim", "id-1")[0] in ("unleased", "wait", "here")
        real.renew("a:1", "boot", "addr", "mac")
        assert real.claim_again("a:1", "boot", "id-0", START + WARM_UP_US)[0] == "here"
        assert real.visit("b:1", "other", "look", "id-0")[:2] == ["owner", "a:1"]


@pytest.mark.parametrize("epoch", ["inf", "nan", "1e400", "-1", "1.5", "0x10", "x", "9" * 400, "9007199254740993"])
def test_an_epoch_that_no_instance_writes_counts_as_missing(client: RespClient, epoch: str) -> None:
    """The holder gets its key back with an epoch that can grow, and others are answered."""
    real = RealDirectory(client)
    for real.now in (START, START + SILENCE_US - 1, START + WARM_UP_US):
        real.renew("a:1", "boot", "addr", "mac")
        real.renew("b:1", "boot", "addr", "mac")
    for writer in ("a:1", "b:1"):
        client("SET", slot("id-0"), f"{writer} boot {epoch}")
        assert real.visit("b:1", "boot", "look", "id-0") == ["nobody"]
        assert real.claim_again("a:1", "boot", "id-0", START + 7) == ["here", str(START + 7)]
        client("SET", slot("id-0"), f"{writer} boot {epoch}")
        assert real.claim_again("a:1", "boot", "id-0", 0) == ["here", str(real.now)]
        client("SET", slot("id-0"), f"{writer} boot {epoch}")
        assert real.visit("a:1", "boot", "claim", "id-0") == ["here", str(real.now)]


@pytest.mark.parametrize(
    "lease",
    [
        *(f"boot {till} addr mac 0" for till in ("inf", "nan", "x", "1e400", "9" * 400, "8999999999999999")),
        f"boot {START + LEASE_US + WARM_UP_US} {'a' * 2000} mac 0",
        "",
    ],
)
def test_a_lease_that_no_instance_writes_counts_as_missing(client: RespClient, lease: str) -> None:
    """It is renewed, and does not keep the keys of an instance that is gone."""
    real = RealDirectory(client)
    for real.now in (START, START + SILENCE_US - 1, START + WARM_UP_US):
        real.renew("a:1", "boot", "addr", "mac")
        real.renew("b:1", "boot", "addr", "mac")
    assert real.visit("b:1", "boot", "claim", "id-0")[0] == "here"
    client("HSET", real.partition.leases, "b:1", lease)
    assert real.visit("a:1", "boot", "claim", "id-0")[0] == "here"
    client("HSET", real.partition.leases, "a:1", lease)
    assert real.visit("a:1", "boot", "claim", "id-1") == ["unleased"]
    assert real.claim_again("a:1", "boot", "id-0", START) == ["unleased"]
    assert real.renew("a:1", "boot", "addr", "mac")[1] in ("0", "1")
    assert real.visit("a:1", "boot", "claim", "id-1")[0] == "here"
    listed = client.script(clocked(MEMBERS), real.partition[:1], (10,))
    assert listed[1::2] == ["a:1"]


def test_a_warm_up_that_no_instance_writes_counts_as_missing(client: RespClient) -> None:
    """It would be copied by each renewal, and answered each time."""
    real = RealDirectory(client)
    real.renew("a:1", "boot", "addr", "mac")
    client("SET", real.partition.began, f"{'1' * 5000} {START}")
    assert real.renew("a:1", "boot", "addr", "mac")[3] == str(START)
    assert client("GET", real.partition.began) == f"{START} {START}"
