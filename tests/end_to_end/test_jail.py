"""The jail behind a proxy: what leads into it, how it works, and every way out. Loopback itself is never jailed.

The refusals here are 404s, which have no quota in the way. Times are seconds.
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
STRICT = (*BEHIND, "--jail-after", "5/day")
CLIENT, NEIGHBOUR = "192.0.2.1", "192.0.2.2"


def _nothing(client: str) -> bytes:
    return head("/nothing", ("Host", "relay"), ("X-Forwarded-For", client))


def _attempt(client: str) -> bytes:
    return upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", client))


async def _earn(relay: Relay, client: str = CLIENT) -> None:
    """Be refused five times, and check that the next request gets no answer."""
    assert await statuses(relay.address, _nothing(client), 5) == [404] * 5
    assert await silence(relay.address, _nothing(client))


@asynchronous
async def test_jailed_by_refusals(start_relay: StartRelay) -> None:
    """After five refusals in a minute a client gets no answer to any request; its neighbour does."""
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
    """After its time a client is answered and upgraded again."""
    relay = start_relay(*STRICT, "--jail-time", "1")
    await _be_jailed(relay, f"jailed {CLIENT} for 1 s, time 1")
    while await silence(relay.address, _attempt(CLIENT)):
        pass
    assert await statuses(relay.address, _attempt(CLIENT), 1) == [101]


@asynchronous
async def test_requests_of_a_web_page_jail_no_phone(start_relay: StartRelay) -> None:
    """200 requests without an upgrade, as a web page makes its visitors send, do not jail the address of a phone."""
    relay = start_relay("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")
    picture = head("/v1/client", ("Host", "relay"), ("Accept", "image/*"), ("X-Forwarded-For", CLIENT))
    answers = await statuses(relay.address, picture, 200)
    assert answers[:120] == [426] * 120
    assert set(answers[120:]) <= {426, 429}
    assert await statuses(relay.address, _attempt(CLIENT), 1) == [101]
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 0


@asynchronous
async def test_twice_as_long_each_time(start_relay: StartRelay) -> None:
    """An address that is jailed again soon stays for twice as long, up to the longest time."""
    relay = start_relay(*STRICT, "--jail-time", "1", "--jail-time-max", "2")
    for times, seconds in ((1, 1), (2, 2), (3, 2)):
        await _be_jailed(relay, f"jailed {CLIENT} for {seconds} s, time {times}")


@asynchronous
async def test_released_by_the_command(start_relay: StartRelay) -> None:
    """`pyryrelay jail` lists jailed addresses, and releases one at once."""
    relay = start_relay(*STRICT)
    await _earn(relay)
    await _earn(relay, "2001:db8:1:2::3")
    # An IPv6 client is its whole /64.
    assert await silence(relay.address, _attempt("2001:db8:1:2::4"))
    assert jailed(relay) == [f"{CLIENT}/32", "2001:db8:1:2::/64"]
    assert told(relay, "jail", "release", CLIENT) == []
    assert await statuses(relay.address, _attempt(CLIENT), 1) == [101]
    told(relay, "jail", "release", "2001:db8:1:2::77")
    assert await statuses(relay.address, _attempt("2001:db8:1:2::3"), 1) == [101]
    assert jailed(relay) == []
    again = pyryrelay(relay, "jail", "release", CLIENT)
    assert (again.returncode, again.stdout) == (1, "")
    assert (
        again.stderr == f"pyryrelay: '{CLIENT}' is not jailed: list the jail with 'pyryrelay jail list', or GET /jail\n"
    )


@asynchronous
async def test_jailed_by_the_command(start_relay: StartRelay) -> None:
    """An operator can jail a client for any time, except one that is exempt."""
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
async def test_clients_that_wait_are_served(start_relay: StartRelay) -> None:
    """Clients of one address that wait as long as they are told, and a little more, are all served."""
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
    """As many attempts may wait as the address may have connections; ten more lead to jail."""
    relay = start_relay(*BEHIND, "--max-connections-per-address", "24", "--upgrade-quota", "1/hour burst 4")
    assert await statuses(relay.address, _attempt(CLIENT), 4 + 24 + 10) == [101] * 4 + [429] * 34
    assert await silence(relay.address, _attempt(CLIENT))
    assert (relay.refusals("rate_limit"), relay.refusals("queue_full")) == (24, 10)
    assert await statuses(relay.address, _attempt(NEIGHBOUR), 1) == [101]


def _restarted(start_relay: StartRelay, *options: str) -> Relay:
    """Return a relay that jailed a client, stopped, and was started again with the same options."""
    relay = start_relay(*options)
    told(relay, "jail", "add", CLIENT, "--for", "1h")
    told(relay, "jail", "add", NEIGHBOUR, "--for", "1h")
    told(relay, "jail", "release", NEIGHBOUR)
    relay.stop()
    return start_relay(*options)


@asynchronous
async def test_survives_a_restart(start_relay: StartRelay, tmp_path: Path) -> None:
    """With a jail file, bans hold after a restart for the rest of their time, and releases do, too."""
    relay = _restarted(start_relay, *BEHIND, "--jail-file", str(tmp_path / "jail.sqlite"))
    assert jailed(relay) == [f"{CLIENT}/32"]
    assert await silence(relay.address, _attempt(CLIENT))
    assert await statuses(relay.address, _attempt(NEIGHBOUR), 1) == [101]


def _sentences(path: Path) -> int:
    """Return how many bans a jail file has."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM jail").fetchone()[0])


def test_survives_being_killed(start_relay: StartRelay, tmp_path: Path) -> None:
    """The file has all bans from more than a second before the relay was killed."""
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
    """With an unusable jail file the relay starts with one line of warning, and jails as usual."""
    path = tmp_path / "jail.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    relay = start_relay(*STRICT, "--jail-file", str(path))
    assert "jail.sqlite" in relay.log()
    await _earn(relay)
    assert jailed(relay) == [f"{CLIENT}/32"]


@asynchronous
async def test_who_is_never_jailed(start_relay: StartRelay) -> None:
    """Loopback, trusted proxies and allowed clients may be refused any number of times."""
    relay = start_relay(*STRICT, "--trusted-proxy", "127.0.0.2", "--trusted-proxy", "192.0.2.100", "--allow", CLIENT)
    bare = head("/nothing", ("Host", "relay"))
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        assert await statuses(relay.address, bare, 8, source=source) == [404] * 8
    assert await statuses(relay.address, _nothing(CLIENT), 8) == [404] * 8
    assert jailed(relay) == []
    # A proxy whose clients were jailed still forwards for the others.
    await _earn(relay, NEIGHBOUR)
    assert await statuses(relay.address, _nothing("192.0.2.3"), 1) == [404]


@asynchronous
async def test_jail_off(start_relay: StartRelay) -> None:
    """`--jail-after off` jails no client, however often it is refused."""
    relay = start_relay(*BEHIND, "--http-quota", "off", "--jail-after", "off")
    assert await statuses(relay.address, _nothing(CLIENT), 100) == [404] * 100
    assert jailed(relay) == []


@asynchronous
async def test_what_is_no_fault_of_the_client_is_no_strike(start_relay: StartRelay) -> None:
    """Refusals because the relay is full are no strikes."""
    relay = start_relay(*STRICT, "--max-phone-connections", "1")
    async with pair(relay.uri):
        assert await statuses(relay.address, _attempt(CLIENT), 12) == [503] * 12
    assert jailed(relay) == []


@asynchronous
async def test_jailed_can_be_answered(start_relay: StartRelay) -> None:
    """With --refusal jailed=answer, jailed clients are answered 403."""
    relay = start_relay(*BEHIND, "--refusal", "jailed=answer")
    told(relay, "jail", "add", CLIENT)
    answer = await ask(relay.address, _attempt(CLIENT))
    assert (answer.status, answer.body) == (403, b"")
    assert "retry-after" not in answer.fields
