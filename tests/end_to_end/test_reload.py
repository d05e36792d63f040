"""Changing a relay's configuration while it runs: what changes, what cannot, and that no connection ends."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.end_to_end.admin import pyryrelay, told, write_settings
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import LOCALHOST, Launch, Relay, asynchronous, eventually
from tests.end_to_end.peers import Pair, pair
from tests.end_to_end.raw import ask, head, raw_peer, statuses, upgrade

ATTEMPT = upgrade("/v1/client", "unclaimed")
NOTHING = head("/nothing", ("Host", "relay"))
SETTINGS: Mapping[str, object] = {
    "upgrade-quota": "1/hour burst 3",
    "max-connections-per-address": 3,
    "trusted-proxy": ["127.0.0.8"],
    "trust-x-forwarded-for": True,
}

StartConfigured: TypeAlias = "Callable[..., tuple[Relay, Path]]"


@pytest.fixture
def configured(tmp_path: Path, start_relay: StartRelay) -> StartConfigured:
    """Start a relay with `SETTINGS` and others in a file, and return the file, too."""

    def start(*options: str, **more: object) -> tuple[Relay, Path]:
        path = write_settings(tmp_path / "relay.toml", {**SETTINGS, **more})
        return start_relay("--config", str(path), *options), path

    return start


def _change(path: Path, **more: object) -> None:
    write_settings(path, {**SETTINGS, **{name.replace("_", "-"): value for name, value in more.items()}})


async def _hang_up(relay: Relay) -> str:
    """Send SIGHUP, and return what the log says then."""
    before = len(relay.log())

    def news() -> str:
        text = relay.log()[before:]
        return text if "reloaded, changed" in text or "reload changed nothing" in text else ""

    relay.signal(signal.SIGHUP)
    return await eventually(news, "the relay has tried")


@asynccontextmanager
async def _undisturbed(relay: Relay) -> AsyncIterator[Pair]:
    """Connect a pair that exchanges frames before and after the block."""
    async with pair(relay.uri, source="127.0.0.99") as peers:
        conn_id = await peers.exchange()
        yield peers
        assert await peers.exchange() == conn_id


@asynchronous
async def test_quotas(configured: StartConfigured) -> None:
    """A new quota applies from the next attempt on; an unchanged quota keeps its state."""
    relay, path = configured()
    async with _undisturbed(relay):
        assert await statuses(relay.address, ATTEMPT, 4) == [101] * 3 + [429]
        assert "changed: nothing" in await _hang_up(relay)
        assert await statuses(relay.address, ATTEMPT, 1) == [429]
        _change(path, upgrade_quota="1/hour burst 5", http_quota="1/hour burst 1")
        assert "reloaded, changed: upgrade-quota, http-quota" in await _hang_up(relay)
        assert await statuses(relay.address, ATTEMPT, 6) == [101] * 5 + [429]
        assert await statuses(relay.address, NOTHING, 2) == [404, 429]
        _change(path, upgrade_quota="off")
        assert sorted(told(relay, "reload")) == ["http-quota\tchanged", "upgrade-quota\tchanged"]
        assert await statuses(relay.address, ATTEMPT, 10) == [101] * 10


@asynchronous
async def test_caps(configured: StartConfigured) -> None:
    """Lower caps end no connection, and higher ones apply at once."""
    relay, path = configured()
    async with _undisturbed(relay), raw_peer(relay, "a", "/v1/server"), raw_peer(relay, "b", "/v1/server"):
        _change(path, max_connections_per_address=1)
        await _hang_up(relay)
        answer = await ask(relay.address, upgrade("/v1/server", "c"))
        assert (answer.status, answer.fields["retry-after"]) == (429, "5")
        assert sum(relay.connections().values()) == 4
        _change(path, max_connections_per_address=9, upgrade_quota="off")
        await _hang_up(relay)
        assert await statuses(relay.address, ATTEMPT, 5) == [101] * 5


@asynchronous
async def test_trust(configured: StartConfigured) -> None:
    """A newly trusted proxy is trusted from the next request on, and the previous one is not."""
    relay, path = configured()

    def attempt(client: str) -> bytes:
        return upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", client))

    async with _undisturbed(relay):
        assert await statuses(relay.address, attempt("192.0.2.1"), 4, source="127.0.0.8") == [101] * 3 + [429]
        assert await statuses(relay.address, attempt("192.0.2.1"), 3, source="127.0.0.9") == [101] * 3
        _change(path, trusted_proxy=["127.0.0.9"], client_address_header="x-real-ip")
        assert "changed: client-address-header, trusted-proxy" in await _hang_up(relay)
        real = upgrade("/v1/client", "unclaimed", ("X-Real-IP", "192.0.2.2"), ("X-Forwarded-For", "192.0.2.1"))
        assert await statuses(relay.address, real, 4, source="127.0.0.9") == [101] * 3 + [429]
        assert await statuses(relay.address, real, 4, source="127.0.0.8") == [101] * 3 + [429]
        steps = told(relay, "whoami", "--peer", "127.0.0.9", "--header", "X-Real-IP: 192.0.2.7")
        assert steps == ["peer 127.0.0.9 is a trusted proxy", "x-real-ip names 192.0.2.7, which is the client"]


@asynchronous
async def test_lists_jail_and_answers(configured: StartConfigured) -> None:
    """The deny list, the jail's rules and the dropped reasons can change, too."""
    relay, path = configured()
    async with _undisturbed(relay):
        _change(path, deny=["127.0.0.20"], refusal=["unknown_path=drop"], max_phones=1, log_client_address="none")
        outcome = pyryrelay(relay, "--json", "reload")
        answer = json.loads(outcome.stdout)
        assert set(answer["changed"]) == {"deny", "refusal", "max-phones", "log-client-address"}
        assert answer["needs_restart"] == []
        assert (await ask(relay.address, ATTEMPT, source="127.0.0.20")).status == 403
        assert "127.0.0.20" not in relay.log()
        _change(path)
        await _hang_up(relay)
        assert await statuses(relay.address, ATTEMPT, 1, source="127.0.0.20") == [101]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("upgrade-quota = 'often'\n", ("upgrade-quota", "'often' is not a quota")),
        ("upgrade-quotas = '1/hour'\n", ("upgrade-quotas",)),
        ("trusted-proxy = ['10.0.0.0/8']\n", ("trusted-proxy", "has no effect without --trust-x-forwarded-for")),
        ("upgrade-quota = \n", ("relay.toml",)),
        ("deny-file = '/nowhere/to/be/found'\n", ("/nowhere/to/be/found",)),
        ("jail-after = '1/minute'\n", ("1",)),
    ],
)
@asynchronous
async def test_an_invalid_file_changes_nothing(text: str, words: tuple[str, ...], configured: StartConfigured) -> None:
    """An invalid file is one line from the command and in the log, and changes nothing."""
    relay, path = configured()
    async with _undisturbed(relay):
        assert await statuses(relay.address, ATTEMPT, 2) == [101] * 2
        path.write_text("http-quota = '1/hour burst 1'\n" + text, encoding="utf-8")
        outcome = pyryrelay(relay, "reload")
        assert (outcome.returncode, outcome.stdout) == (1, "")
        (line,) = outcome.stderr.splitlines()
        assert line.startswith("pyryrelay: ")
        assert line.count("pyryrelay: ") == 1
        logged = await _hang_up(relay)
        assert logged.count("\n") == 1
        for word in words:
            assert word in line
            assert word in logged
        # The valid part is not applied either, and the state of the quota is kept.
        assert await statuses(relay.address, NOTHING, 3) == [404] * 3
        assert await statuses(relay.address, ATTEMPT, 2) == [101, 429]


@asynchronous
async def test_what_needs_a_restart_is_named(configured: StartConfigured) -> None:
    """Options that need a restart are named in one line, and all others take effect."""
    relay, path = configured()
    async with _undisturbed(relay):
        _change(path, kernel_drop=True, jail_file="elsewhere.sqlite", http_quota="1/hour burst 1")
        lines = sorted(told(relay, "reload"))
        assert lines == ["http-quota\tchanged", "jail-file\tneeds a restart", "kernel-drop\tneeds a restart"]
        (line,) = [line for line in relay.log().splitlines() if "needs a restart" in line]
        assert line.endswith("needs a restart: jail-file, kernel-drop")
        assert await statuses(relay.address, NOTHING, 2) == [404, 429]


@asynchronous
async def test_new_endpoints_need_a_restart(tmp_path: Path, start_relay: StartRelay) -> None:
    """The relay keeps its listeners, whatever the file says now."""
    path = write_settings(tmp_path / "relay.toml", {"max-phones": 3})
    relay = start_relay("--config", str(path))
    write_settings(path, {"max-phones": 4, "listen": ["tcp:1:interface=127.0.0.1"], "max-message-bytes": 5000})
    # The command line, which names the listener, wins over the file, so that only the size changes.
    assert sorted(told(relay, "reload")) == ["max-message-bytes\tneeds a restart", "max-phones\tchanged"]
    async with pair(relay.uri) as peers:
        await peers.exchange()
        text = f'"{"x" * 10_000}"'
        await peers.phone.send(text)
        assert text in str(await peers.binary.recv())


@asynchronous
async def test_without_a_file(start_relay: StartRelay) -> None:
    """SIGHUP does not end a relay without a configuration file."""
    relay = start_relay(launch=Launch(listen=[f"tcp:{{port}}:interface={LOCALHOST}"]))
    async with _undisturbed(relay):
        for _ in range(3):
            assert "changed: nothing" in await _hang_up(relay)
        assert told(relay, "reload") == []


@asynchronous
async def test_many_reloads_at_once(configured: StartConfigured) -> None:
    """Reloads in quick succession run one after the other, or are told that one is waiting."""
    relay, path = configured()
    async with _undisturbed(relay) as peers:
        for number in range(20):
            _change(path, max_phones=number + 1)
            relay.signal(signal.SIGHUP)
            await peers.exchange()
        await relay.log_will_have("changed: max-phones")
        while told(relay, "reload"):
            pass
        assert "Traceback" not in relay.log()
