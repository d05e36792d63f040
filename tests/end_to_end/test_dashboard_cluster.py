"""The panel of a cluster on the dashboard, in a real browser, over real instances."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tests.end_to_end.browser import chromium, needs_chromium, needs_driver
from tests.end_to_end.cluster import cluster
from tests.end_to_end.harness import asynchronous
from tests.end_to_end.peers import binary, phone
from tests.end_to_end.test_dashboard import CONTRAST, OVERFLOW, opened
from tests.support.redis_server import needs_redis

pytestmark = [needs_chromium, needs_driver, needs_redis, pytest.mark.thorough]

HERE = """
const marked = [...document.querySelectorAll("#cluster-rows tr")].filter((row) => row.querySelector(".tag"));
return marked.length === 1
"""
FIGURES = """
const rows = [...document.querySelectorAll("#cluster-rows tr")];
const [keys, spliced, arrived] = [2, 4, 6].map((at) => rows.map((row) => row.cells[at].innerText).sort().join());
return keys === "0,3" && spliced === "0,2" && arrived === "0,2"
"""


@asynchronous
async def test_instances_and_an_outage(tmp_path: Path) -> None:
    """It shows each instance and which one this is; while the server is away it says so, and keeps the rest."""
    with cluster(tmp_path, "a", "b") as running, chromium() as browser:
        here, there = running.relays["a"], running.relays["b"]
        async with contextlib.AsyncExitStack() as peers:
            for number in range(3):
                await peers.enter_async_context(await binary(here.uri, f"id-{number}"))
            for number in range(2):
                await peers.enter_async_context(phone(there.uri, f"id-{number}"))
            opened(browser, here)
            for dark, width in ((False, 1300), (True, 360)):
                browser.emulate(width=width, height=900, dark=dark)
                browser.becomes(FIGURES, "the figures of both instances")
                assert browser.run(HERE)
                browser.shows("#cluster-note", "Cluster relay: 2 instances, 3 keys, 40 % of the connections")
                assert browser.run(OVERFLOW) <= 0
                assert browser.run(CONTRAST) == []
            assert browser.text("#cluster-alerts") == ""
            running.redis.kill()
            browser.shows("#cluster-alerts", "Server away")
            browser.shows("#cluster-alerts", "new claims are served where they arrive")
            assert browser.run(CONTRAST) == []
            browser.becomes(FIGURES, "what was known stays")
            running.redis.start()
            browser.becomes("return !document.querySelector('#cluster-alerts').textContent", "the end of the outage")
            assert browser.complaints() == []
