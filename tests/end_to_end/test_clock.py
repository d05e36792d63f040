"""The wall clock is set back by ten minutes while the relay runs, and no timer waits for it to catch up."""

from __future__ import annotations

import contextlib
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Launch, Relay, asynchronous, eventually, http_get
from tests.end_to_end.raw import PING, ask, head, raw, upgrade

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
DESCRIPTORS = 64
HEALTH = head("/healthz", ("Host", "relay"))
BACK_S = 600

pytestmark = pytest.mark.skipif(
    LIBRARY is None or shutil.which("prlimit") is None, reason="libfaketime or prlimit is not there"
)


def _launch(reactor: str, clock: Path) -> Launch:
    """Return a launch with a wall clock that ``clock`` sets back, and the machine's monotonic clock."""
    clock.write_text("+0", encoding="ascii")
    variables = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "TZ": "UTC",
    }
    limit = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    times = {"head_timeout_s": 2.0, "ping_interval_s": 2.0}
    return Launch(prefix=limit, times=times, reactor=reactor, environment=variables)


def _lines_of_the_past(relay: Relay) -> list[str]:
    """Return the log lines with a time that is long over."""
    longest = (datetime.now(UTC) - timedelta(seconds=BACK_S / 2)).strftime("%Y-%m-%dT%H:%M:%S")
    return [line for line in relay.log().splitlines() if line[:2] == "20" and line < longest]


@pytest.mark.parametrize("reactor", ["epoll", "asyncio"])
@asynchronous
async def test_the_wall_clock_is_set_back(reactor: str, start_relay: StartRelay, tmp_path: Path) -> None:
    """Heads time out, peers are pinged, list files are read, and accepting resumes after a shortage of descriptors."""
    clock, deny = tmp_path / "clock", tmp_path / "deny.txt"
    deny.write_text("", encoding="ascii")
    relay = start_relay("--jail-file", "", "--deny-file", str(deny), launch=_launch(reactor, clock))
    async with raw(relay.address) as open_peer, raw(relay.address) as slow:
        await open_peer.send(upgrade("/v1/server", "patient"))
        assert (await open_peer.response()).status == 101
        await slow.send(b"GET /healthz")
        with contextlib.ExitStack() as stack:
            for number in range(2 * DESCRIPTORS):
                source = f"127.0.1.{number % 8}"
                peer = stack.enter_context(socket.create_connection(relay.address, DEADLINE_S, (source, 0)))
                peer.sendall(b"GET")
            await relay.log_will_have("cannot accept connections")
            clock.write_text(f"-{BACK_S}", encoding="ascii")
            assert (await open_peer.frame())[0] == PING
            assert b" 408 " in await slow.rest()
        assert (await ask(relay.address, HEALTH)).status == 200
    deny.write_text("127.0.0.9\n", encoding="ascii")
    await eventually(lambda: http_get(relay.port, "/healthz", source="127.0.0.9")[0] == 403, "the file is read")
    await eventually(
        lambda: any("lists reloaded" in line for line in _lines_of_the_past(relay)), "the log has the time of then"
    )
