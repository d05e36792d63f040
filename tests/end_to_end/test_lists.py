"""Lists of networks in files, which are read again when they change, and stay in force when they become bad."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.end_to_end.admin import pyryrelay, told
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Relay, asynchronous, run_twistd
from tests.end_to_end.peers import pair
from tests.end_to_end.raw import head, statuses, upgrade

NOTHING = head("/nothing", ("Host", "relay"))
ATTEMPT = upgrade("/v1/client", "unclaimed")


@pytest.fixture
def deny(tmp_path: Path) -> Path:
    """A list that denies one address."""
    return _write(tmp_path / "deny.txt", "# rented\n127.0.0.16\n\n192.0.2.0/24  # test net\n")


def _write(path: Path, text: str) -> Path:
    """Replace a file by renaming a new one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    return fresh.replace(path)


def _remove(path: Path) -> None:
    path.unlink()


async def _answers(relay: Relay, *sources: str) -> Sequence[int]:
    return [(await statuses(relay.address, NOTHING, 1, source=source))[0] for source in sources]


@asynchronous
async def test_files_at_start(deny: Path, tmp_path: Path, start_relay: StartRelay) -> None:
    """Networks of files count as those of options do, and allowed ones take precedence."""
    allow = _write(tmp_path / "allow.txt", "127.0.0.16/30\n")
    options = ("--deny-file", str(deny), "--allow-file", str(allow), "--deny", "127.0.0.17", "--deny", "127.0.0.40")
    relay = start_relay(*options, "--upgrade-quota", "1/hour burst 1")
    assert await _answers(relay, "127.0.0.16", "127.0.0.17", "127.0.0.20", "127.0.0.40") == [404, 404, 404, 403]
    assert await statuses(relay.address, ATTEMPT, 3, source="127.0.0.18") == [101] * 3
    assert await statuses(relay.address, ATTEMPT, 2, source="127.0.0.20") == [101, 429]


@asynchronous
async def test_a_change_is_noticed(deny: Path, start_relay: StartRelay) -> None:
    """A replaced file is read again without a request, and open connections stay."""
    relay = start_relay("--deny-file", str(deny))
    async with pair(relay.uri, source="127.0.0.18") as peers:
        assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [403, 404]
        _write(deny, "127.0.0.18/31\n")
        await relay.log_will_have("lists reloaded, 1 networks")
        assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [404, 403]
        await peers.exchange()


@asynchronous
async def test_a_bad_line_keeps_the_old_list(deny: Path, start_relay: StartRelay) -> None:
    """A list with a bad line is not applied: the log has file and line once, and the old list stays."""
    relay = start_relay("--deny-file", str(deny))
    _write(deny, "# new\n127.0.0.18\nnot a network\n")
    await relay.log_will_have(f"{deny}:3: ")
    assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [403, 404]
    (line,) = [line for line in relay.log().splitlines() if str(deny) in line]
    assert "list not applied" in line
    assert "'not a network' is not a network" in line
    _write(deny, "127.0.0.18\n")
    await relay.log_will_have("lists reloaded")
    assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [404, 403]
    assert relay.log().count("not applied") == 1


@asynchronous
async def test_a_file_that_vanishes_keeps_its_list(deny: Path, start_relay: StartRelay) -> None:
    """The list of a deleted file stays in force."""
    relay = start_relay("--deny-file", str(deny))
    _remove(deny)
    await relay.log_will_have("not applied")
    assert await _answers(relay, "127.0.0.16") == [403]
    _write(deny, "127.0.0.18\n")
    await relay.log_will_have("lists reloaded")
    assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [404, 403]


def _with_the_times_of_before(path: Path, text: str) -> None:
    """Change a file without a change of its modification time."""
    before = path.stat()
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", ["SIGHUP", "reload"])
@asynchronous
async def test_read_again_on_demand(how: str, deny: Path, start_relay: StartRelay) -> None:
    """SIGHUP and `pyryrelay reload` read the lists at once, whatever their modification times."""
    relay = start_relay("--deny-file", str(deny))
    _with_the_times_of_before(deny, "127.0.0.18\n")
    if how == "SIGHUP":
        relay.signal(signal.SIGHUP)
        await relay.log_will_have("reloaded")
    else:
        told(relay, "reload")
    assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [404, 403]


@pytest.mark.parametrize("how", ["SIGHUP", "reload"])
@asynchronous
async def test_a_bad_line_on_demand(how: str, deny: Path, start_relay: StartRelay) -> None:
    """A reload with a bad list names file and line, and keeps the old list."""
    relay = start_relay("--deny-file", str(deny))
    _write(deny, "127.0.0.18\n127.0.0.256\n")
    if how == "SIGHUP":
        relay.signal(signal.SIGHUP)
    else:
        outcome = pyryrelay(relay, "reload")
        assert outcome.returncode == 1
        assert outcome.stderr.startswith(f"pyryrelay: {deny}:2: ")
    await relay.log_will_have(f"{deny}:2: ")
    assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [403, 404]


def test_a_bad_line_at_start(deny: Path, tmp_path: Path) -> None:
    """A bad list stops the start with one line that names option, file and line, and exit code 2."""
    _write(deny, "127.0.0.18\n\nnonsense\n")
    outcome = run_twistd(tmp_path, "--deny-file", str(deny))
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert f"{deny}:3" in line
    assert "deny-file" in line


def test_a_missing_file_at_start(tmp_path: Path) -> None:
    """A missing list stops the start as well."""
    outcome = run_twistd(tmp_path, "--allow-file", str(tmp_path / "none.txt"))
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert "none.txt" in line
    assert "allow-file" in line


@pytest.mark.slow
@asynchronous
async def test_a_long_list(deny: Path, start_relay: StartRelay) -> None:
    """A list of a hundred thousand networks is applied while the relay serves."""
    relay = start_relay("--deny-file", str(deny))
    networks = [f"10.{first}.{second}.{third}" for first in range(4) for second in range(100) for third in range(250)]
    _write(deny, "\n".join([*networks, "127.0.0.18"]))
    async with pair(relay.uri) as peers:
        while "lists reloaded" not in relay.log():
            await peers.exchange()
    assert await _answers(relay, "127.0.0.16", "127.0.0.18") == [404, 403]
