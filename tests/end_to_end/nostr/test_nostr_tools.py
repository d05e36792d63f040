"""What people do every day, by the clients of nostr-tools under node, which most web clients are built on.

The scenarios are in nostr_tools_visitor.mjs. The packages are expected in build/npm, where `.ci/run` installs them:

    mkdir -p build/npm && cp tests/end_to_end/nostr/npm/*.json build/npm && npm ci --prefix build/npm
"""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, ROOT, Relay, asynchronous, eventually
from tests.end_to_end.nostr.conftest import OPEN, restarted, subscriptions
from tests.end_to_end.nostr.peers import Author, client

SCRIPT = Path(__file__).parent / "nostr_tools_visitor.mjs"
PACKAGES = ROOT / "build/npm"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="node is not installed (Debian: nodejs)"),
    pytest.mark.skipif(
        not (PACKAGES / "node_modules/nostr-tools").is_dir(),
        reason="nostr-tools is not in build/npm; the docstring of this module says how to install it",
    ),
]


async def visit(relay: Relay, scenario: str) -> asyncio.subprocess.Process:
    """Start a scenario."""
    return await asyncio.create_subprocess_exec(
        str(NODE),
        str(SCRIPT),
        str(PACKAGES),
        relay.uri,
        scenario,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def passed(visitor: asyncio.subprocess.Process) -> None:
    """Wait for the end of a scenario, and fail with what it wrote if it failed."""
    try:
        output = await asyncio.wait_for(visitor.communicate(), DEADLINE_S)
    except TimeoutError:
        visitor.kill()
        output = await visitor.communicate()
        pytest.fail(f"not within {DEADLINE_S:g} s: {output!r}")
    assert visitor.returncode == 0, b"".join(output).decode()
    assert output == (b"", b"")


@pytest.mark.parametrize("scenario", ["publishing", "subscribing", "replacing", "deleting", "counting", "messaging"])
@asynchronous
async def test_every_day(scenario: str, relay: Relay) -> None:
    """The clients get what they expect."""
    await passed(await visit(relay, scenario))


@asynchronous
async def test_authentication(start_nostr: StartRelay) -> None:
    """Clients authenticate when they are asked to, and others learn why they are refused."""
    relay = start_nostr("--nostr-read", "auth", "--nostr-write", "auth")
    await passed(await visit(relay, "authenticating"))


@asynchronous
async def test_a_crash(tmp_path: Path) -> None:
    """After a crash of the relay clients come back by themselves, and their subscriptions go on."""
    first = Relay(tmp_path, OPEN)
    try:
        visitor = await visit(first, "reconnecting")
        assert visitor.stdout is not None
        assert await asyncio.wait_for(visitor.stdout.readline(), DEADLINE_S) == b"ready\n"
        first.discard()
        second = restarted(first, OPEN)
        try:
            await eventually(lambda: subscriptions(second) == 1, "the subscription is open again")
            async with client(second.uri) as peer:
                note = Author().event("after", tags=[["t", "restart"]], created_at=int(time.time()) + 2)
                assert await peer.publish(note) == (True, "")
            await passed(visitor)
        finally:
            second.stop()
    finally:
        first.discard()
