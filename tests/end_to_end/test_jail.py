"""The jail behind a proxy: who goes in, what it is like, and every way out. Loopback itself is never jailed.

What counts as a refusal here is a 404, which has no quota in the way. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from tests.end_to_end.admin import jailed, pyryrelay, told
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import GENEROUS, Relay, asynchronous, until
from tests.end_to_end.peers import pair
from tests.end_to_end.raw import ask, head, raw, silence, statuses, upgrade

BEHIND = (*GENEROUS, "--jail-after", "60/minute", "--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")
STRICT = (*BEHIND, "--jail-after", "5/minute")
CLIENT, NEIGHBOUR = "192.0.2.1", "192.0.2.2"


def _nothing(client: str) -> bytes:
    return head("/nothing", ("Host", "relay"), ("X-Forwarded-For", client))


def _attempt(client: str) -> bytes:
    return upgrade("/v1/client", "nobody", ("X-Forwarded-For", client))


async def _earn(relay: Relay, client: str = CLIENT) -> None:
    """Be refused five times, and then not be listened to."""
    assert await statuses(relay.address, _nothing(client), 5) == [404] * 5
    assert await silence(relay.address, _nothing(client))


@asynchronous
async def test_jailed_by_refusals(start_relay: StartRelay) -> None:
    """Five refusals in a minute and a client gets no byte more, whatever it asks; its neighbour does."""
    relay = start_relay(*STRICT)
    await _earn(relay)
    for request in (_attempt(CLIENT), head("/healthz", ("Host", "relay"), ("X-Forwarded-For", CLIENT))):
        assert await silence(relay.address, request)
    assert await statuses(relay.address, _attempt(NEIGHBOUR), 1) == [101]
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 1
    relay.log_has(f"jailed {CLIENT} for 600 s, time 1")


async def _be_jailed(relay: Relay, line: str) -> None:
    """Be refused until the log has this line. On a busy machine the time may be over when this returns."""
    while line not in relay.log():
        await silence(relay.address, _nothing(CLIENT))


@asynchronous
async def test_released_by_time(start_relay: StartRelay) -> None:
    """After its time a client is answered again, and upgraded."""
    relay = start_relay(*STRICT, "--jail-time", "1")
    await _be_jailed(relay, f"jailed {CLIENT} for 1 s, time 1")
    while await silence(relay.address, _attempt(CLIENT)):
        pass
    assert await statuses(relay.address, _attempt(CLIENT), 1) == [101]


@asynchronous
async def test_a_page_with_pictures_jails_no_visitor(start_relay: StartRelay) -> None:
    """200 requests without an upgrade, as a web page makes its visitors send them, and the phone beside comes in."""
    relay = start_relay("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")
    picture = head("/v1/client", ("Host", "relay"), ("Accept", "image/*"), ("X-Forwarded-For", CLIENT))
    answers = await statuses(relay.address, picture, 200)
    assert answers[:120] == [426] * 120
    assert set(answers[120:]) <= {426, 429}
    assert await statuses(relay.address, _attempt(CLIENT), 1) == [101]
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 0


@asynchronous
async def test_twice_as_long_each_time(start_relay: StartRelay) -> None:
    """Whoever is jailed again soon stays for twice as long, up to the longest time there is."""
    relay = start_relay(*STRICT, "--jail-time", "1", "--jail-time-max", "2")
    for times, seconds in ((1, 1), (2, 2), (3, 2)):
        await _be_jailed(relay, f"jailed {CLIENT} for {seconds} s, time {times}")


@asynchronous
async def test_released_by_the_command(start_relay: StartRelay) -> None:
    """`pyryrelay jail` shows who is in, and lets out whom the operator names, at once."""
    relay = start_relay(*STRICT)
    await _earn(relay)
    await _earn(relay, "2001:db8:1:2::3")
    # The whole /64 of an IPv6 client is one client.
    assert await silence(relay.address, _attempt("2001:db8:1:2::4"))
    assert jailed(relay) == [f"{CLIENT}/32", "2001:db8:1:2::/64"]
    assert told(relay, "jail", "release", CLIENT) == []
    assert await statuses(relay.address, _attempt(CLIENT), 1) == [101]
    told(relay, "jail", "release", "2001:db8:1:2::77")
    assert await statuses(relay.address, _attempt("2001:db8:1:2::3"), 1) == [101]
    assert jailed(relay) == []
    again = pyryrelay(relay, "jail", "release", CLIENT)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"pyryrelay: '{CLIENT}' is not jailed: 'pyryrelay jail list', or GET /jail, shows who is\n"


@asynchronous
async def test_jailed_by_the_command(start_relay: StartRelay) -> None:
    """An operator can lock a client out, for as long as is wanted; those who are exempt cannot be."""
    relay = start_relay(*BEHIND, "--allow", "192.0.2.9")
    told(relay, "jail", "add", CLIENT, "--for", "1h")
    assert await silence(relay.address, _attempt(CLIENT))
    (line,) = told(relay, "jail", "list")
    network, left, times = line.split("\t")
    assert (network, times) == (f"{CLIENT}/32", "by hand")
    assert left == "1h" or left.startswith("59m")
    for exempt in ("127.0.0.1", "192.0.2.9"):
        outcome = pyryrelay(relay, "jail", "add", exempt)
        assert outcome.returncode == 1
        assert "is exempt from the jail" in outcome.stderr
    outcome = pyryrelay(relay, "jail", "add", "192.0.2.0/24")
    assert outcome.returncode == 1
    assert "holds more than one client" in outcome.stderr
    assert jailed(relay) == [f"{CLIENT}/32"]


@asynchronous
async def test_an_office_that_waits_comes_in(start_relay: StartRelay) -> None:
    """Clients of one address that wait as long as they are told, and a little more, are all let in."""
    relay = start_relay(*BEHIND, "--max-connections-per-address", "24", "--upgrade-quota", "4/second burst 4")

    async def come_in(number: int) -> None:
        while True:
            async with raw(relay.address) as peer:
                await peer.send(_attempt(CLIENT))
                answer = await peer.response()
            if answer.status == 101:
                return
            assert answer.status == 429
            await asyncio.sleep(int(answer.fields["retry-after"]) + number % 5 / 10)

    await asyncio.gather(*map(come_in, range(24)))
    assert jailed(relay) == []
    assert relay.refusals("queue_full") == 0


@asynchronous
async def test_a_client_that_does_not_wait_is_jailed(start_relay: StartRelay) -> None:
    """As many attempts may wait as the address may have connections; ten more are enough."""
    relay = start_relay(*BEHIND, "--max-connections-per-address", "24", "--upgrade-quota", "1/hour burst 4")
    assert await statuses(relay.address, _attempt(CLIENT), 4 + 24 + 10) == [101] * 4 + [429] * 34
    assert await silence(relay.address, _attempt(CLIENT))
    assert (relay.refusals("rate_limit"), relay.refusals("queue_full")) == (24, 10)
    assert await statuses(relay.address, _attempt(NEIGHBOUR), 1) == [101]


def _restarted(start_relay: StartRelay, *options: str) -> Relay:
    """A relay that has jailed a client, stopped, and started again with the same options."""
    relay = start_relay(*options)
    told(relay, "jail", "add", CLIENT, "--for", "1h")
    told(relay, "jail", "add", NEIGHBOUR, "--for", "1h")
    told(relay, "jail", "release", NEIGHBOUR)
    relay.stop()
    return start_relay(*options)


@asynchronous
async def test_survives_a_restart(start_relay: StartRelay, tmp_path: Path) -> None:
    """With a jail file, who was in is in after a restart, for the rest of the time; who was released is not."""
    relay = _restarted(start_relay, *BEHIND, "--jail-file", str(tmp_path / "jail.sqlite"))
    assert jailed(relay) == [f"{CLIENT}/32"]
    assert await silence(relay.address, _attempt(CLIENT))
    assert await statuses(relay.address, _attempt(NEIGHBOUR), 1) == [101]


def _sentences(path: Path) -> int:
    """How many there are in a jail file."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM jail").fetchone()[0])


def test_survives_being_killed(start_relay: StartRelay, tmp_path: Path) -> None:
    """What happened more than a second before the relay was killed is in the file."""
    path = tmp_path / "jail.sqlite"
    options = (*BEHIND, "--jail-file", str(path))
    relay = Relay(tmp_path / "killed", options)
    try:
        told(relay, "jail", "add", CLIENT, "--for", "1h")
        until(lambda: path.exists() and _sentences(path) == 1, "the sentence is in the file")
    finally:
        relay.discard()
    assert jailed(start_relay(*options)) == [f"{CLIENT}/32"]


@asynchronous
async def test_without_a_file_a_restart_forgets(start_relay: StartRelay) -> None:
    """An empty --jail-file keeps the jail in memory."""
    relay = _restarted(start_relay, *BEHIND, "--jail-file", "")
    assert jailed(relay) == []
    assert await statuses(relay.address, _attempt(CLIENT), 1) == [101]


@asynchronous
async def test_a_broken_file_costs_only_its_bans(start_relay: StartRelay, tmp_path: Path) -> None:
    """A jail file that is none is no reason not to start: one line says so, and jailing goes on."""
    path = tmp_path / "jail.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    relay = start_relay(*STRICT, "--jail-file", str(path))
    assert "jail.sqlite" in relay.log()
    await _earn(relay)
    assert jailed(relay) == [f"{CLIENT}/32"]


@asynchronous
async def test_who_is_never_jailed(start_relay: StartRelay) -> None:
    """Loopback, trusted proxies and allowed clients may be refused for ever, and are answered every time."""
    relay = start_relay(*STRICT, "--trusted-proxy", "127.0.0.2", "--trusted-proxy", "192.0.2.100", "--allow", CLIENT)
    bare = head("/nothing", ("Host", "relay"))
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        assert await statuses(relay.address, bare, 8, source=source) == [404] * 8
    assert await statuses(relay.address, _nothing(CLIENT), 8) == [404] * 8
    assert jailed(relay) == []
    # A proxy whose clients were jailed goes on speaking for the others.
    await _earn(relay, NEIGHBOUR)
    assert await statuses(relay.address, _nothing("192.0.2.3"), 1) == [404]


@asynchronous
async def test_jail_off(start_relay: StartRelay) -> None:
    """`--jail-after off` locks nobody out, however often it is refused."""
    relay = start_relay(*BEHIND, "--http-quota", "off", "--jail-after", "off")
    assert await statuses(relay.address, _nothing(CLIENT), 100) == [404] * 100
    assert jailed(relay) == []


@asynchronous
async def test_what_is_no_fault_of_the_client_is_no_strike(start_relay: StartRelay) -> None:
    """Being refused because the relay is full leads nobody to jail."""
    relay = start_relay(*STRICT, "--max-phone-connections", "1")
    async with pair(relay.uri):
        assert await statuses(relay.address, _attempt(CLIENT), 12) == [503] * 12
    assert jailed(relay) == []


@asynchronous
async def test_jailed_can_be_answered(start_relay: StartRelay) -> None:
    """With --refusal jailed=answer, whoever is jailed is told 403."""
    relay = start_relay(*BEHIND, "--refusal", "jailed=answer")
    told(relay, "jail", "add", CLIENT)
    answer = await ask(relay.address, _attempt(CLIENT))
    assert (answer.status, answer.body) == (403, b"")
    assert "retry-after" not in answer.fields
