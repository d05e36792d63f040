"""What operators see of a relay with several real workers, and what they can do to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any

import pytest
from tests.end_to_end.admin import jailed, pyryrelay, told
from tests.end_to_end.browser import chromium, needs_chromium, needs_driver
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import GENEROUS, LOCALHOST, Launch, Relay, asynchronous, eventually, http_get, until
from tests.end_to_end.peers import binary

WORKERS = Launch(environment={"PYRYRELAY_WORKERS": "2"})


@pytest.fixture
def relay(start_relay: StartRelay) -> Relay:
    """A relay whose two workers serve."""
    return serving(start_relay(*GENEROUS, launch=WORKERS))


def serving(relay: Relay) -> Relay:
    """Wait until all workers of a relay serve."""
    until(lambda: states(relay) == ["running", "running"], "both workers serve")
    return relay


def get(relay: Relay, path: str) -> Any:
    """Return the JSON of a page."""
    status, text = http_get(relay.admin_port, path)
    assert status == 200, text
    return json.loads(text)


def workers(relay: Relay) -> list[dict[str, Any]]:
    """Return the workers that ``GET /status`` shows."""
    found: list[dict[str, Any]] = get(relay, "/status")["workers"]
    return found


def states(relay: Relay) -> list[str]:
    """Return what each worker does."""
    return [worker["state"] for worker in workers(relay)]


def total(relay: Relay, name: str, label: str = "") -> float:
    """Return the sum of a metric over the workers."""
    return sum(value for key, value in relay.metrics().items() if key.startswith(f"{name}{{worker=") and label in key)


@asynchronous
async def test_figures_are_those_of_all_workers(relay: Relay) -> None:
    """Status, metrics, health and the command agree on how many clients there are."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(8):
            await stack.enter_async_context(binary(relay.uri, f"server-{number}"))
        await eventually(lambda: get(relay, "/status")["connections"]["server"] == 8, "eight binaries")
        assert sum(worker["connections"] for worker in workers(relay)) == 8
        assert total(relay, "pyryrelay_connections", 'kind="server"') == 8
        health = get(relay, "/healthz")
        assert (health["connected_binaries"], health["workers"], health["workers_ready"]) == (8, 2, 2)
        assert "connections.server\t8" in told(relay, "status")
        assert len(json.loads(told(relay, "top", "--json", "--count", "1")[0])["workers"]) == 2
    await eventually(lambda: get(relay, "/status")["connections"]["server"] == 0, "all have left")
    assert get(relay, "/status")["admitted"]["server"] == 8


def test_a_worker_that_is_killed(relay: Relay) -> None:
    """It is started again and the restart is counted, the relay is healthy throughout, and its process is another."""
    first, second = workers(relay)
    os.kill(second["pid"], signal.SIGKILL)
    until(lambda: workers(relay)[1]["restarts"] == 1, "the restart is counted")
    assert get(relay, "/healthz")["status"] == "ok"
    serving(relay)
    again = workers(relay)
    assert again[0]["pid"] == first["pid"]
    assert again[1]["pid"] != second["pid"]
    assert again[1]["boot"] > second["boot"]
    metrics = relay.metrics()
    assert metrics['pyryrelay_worker_restarts_total{worker="1"}'] == 1
    assert metrics["pyryrelay_workers_ready"] == 2


def test_a_worker_that_hangs(relay: Relay) -> None:
    """It is shown as silent, delays nothing for long, and is back as soon as it goes on."""
    until(lambda: _is_shown_as_silent(relay), "a worker is shown as silent before another one takes its place")
    serving(relay)


def _is_shown_as_silent(relay: Relay) -> bool:
    """Stop a worker, and check what is shown; return whether all of it was seen before the supervisor replaced it."""
    pid = workers(relay)[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: workers(relay)[0]["pid"] != pid or states(relay) == ["silent", "running"], "it is silent")
        ready, metrics = get(relay, "/healthz")["workers_ready"], relay.metrics()
        if workers(relay)[0]["pid"] != pid:
            return False
        assert ready == 1
        assert metrics['pyryrelay_worker_up{worker="0"}'] == 0
        assert 'pyryrelay_uptime_seconds{worker="0"}' not in metrics
        return True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_the_jail_and_explain(relay: Relay) -> None:
    """A ban by hand holds in all workers, and a release ends it in all of them."""
    told(relay, "jail", "add", "192.0.2.9", "--for", "1h")
    assert jailed(relay) == ["192.0.2.9/32"]
    assert total(relay, "pyryrelay_jailed_addresses") == 2
    explained = pyryrelay(relay, "explain", "192.0.2.9", "--json")
    assert (explained.returncode, json.loads(explained.stdout)["verdict"]) == (1, "jailed")
    assert json.loads(explained.stdout)["steps"][0]["what"] == "worker"
    told(relay, "jail", "release", "192.0.2.9")
    assert jailed(relay) == []
    assert total(relay, "pyryrelay_jailed_addresses") == 0


def test_a_sentence_reaches_a_worker_that_is_started_again(relay: Relay) -> None:
    """The supervisor keeps the jail."""
    told(relay, "jail", "add", "192.0.2.9", "--for", "1h")
    os.kill(workers(relay)[1]["pid"], signal.SIGKILL)
    until(lambda: workers(relay)[1]["restarts"] == 1, "the restart is counted")
    serving(relay)
    until(lambda: total(relay, "pyryrelay_jailed_addresses") == 2, "both workers have the sentence")


def test_a_reload(start_relay: StartRelay) -> None:
    """All workers apply it, and settings and limits are the new ones; a mistake is told, and changes nothing."""
    relay = start_relay("--config", "relay.toml", launch=_with_file("grace = 30\n"))
    serving(relay)
    file = relay.directory / "relay.toml"
    file.write_text("grace = 31\n")
    assert json.loads(told(relay, "reload", "--json")[0])["changed"] == ["grace"]
    assert get(relay, "/status")["limits"]["grace"] == "31"
    file.write_text("grace = soon\n")
    assert pyryrelay(relay, "reload").returncode == 1
    assert get(relay, "/status")["limits"]["grace"] == "31"


def _with_file(content: str) -> Launch:
    """Return a launch with a configuration file in the relay's folder."""
    write = f'printf {content!r} > relay.toml; exec "$@"'
    return Launch(environment=WORKERS.environment, prefix=("sh", "-c", write, "sh"))


@needs_chromium
@needs_driver
def test_the_dashboard(relay: Relay, start_relay: StartRelay) -> None:
    """It has a row for each worker, with its restarts; the page of one process has no such table."""
    hidden = "return document.getElementById('workers').hidden && document.getElementById('workers-link').hidden"
    with chromium() as browser:
        browser.open(f"http://{LOCALHOST}:{relay.admin_port}/")
        browser.shows("#state-word", "Healthy")
        browser.shows("#worker-note", "2 of 2 workers serve")
        assert browser.run("return document.querySelectorAll('#worker-rows tr').length") == 2
        assert browser.run(hidden) is False
        os.kill(workers(relay)[1]["pid"], signal.SIGKILL)
        cell = "document.querySelector('#worker-rows tr:nth-child(2) td:last-child').textContent"
        browser.becomes(f"return {cell} === '1'", "the restart is shown")
        browser.shows("#worker-note", "2 of 2 workers serve")
        single = start_relay()
        browser.open(f"http://{LOCALHOST}:{single.admin_port}/")
        browser.shows("#state-word", "Healthy")
        assert browser.run(hidden) is True
        assert browser.complaints() == []
