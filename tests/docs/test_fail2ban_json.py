"""The fail2ban filter for logs of JSON, run by fail2ban itself."""

from __future__ import annotations

import configparser
import io
import json
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.docs.test_fail2ban import (
    ATTACKER,
    CONTRIB,
    FORGED,
    UNSPACED,
    Now,
    address,
    everything_else,
    found_by,
    log_file,
    needs_fail2ban,
)
from twisted.logger import FileLogObserver, ILogObserver, Logger

from pyryrelay.guard import Reason
from pyryrelay.nostr.observe.log import NostrLog
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.log_formats.json_lines import json_line

FILTER = CONTRIB / "filter.d" / "pyryrelay-json.conf"
FORGED_JSON = (
    *FORGED,
    UNSPACED,
    f'"}}\n{{"time":"2026-07-01T12:00:00.000Z","level":"info","logger":"pyryrelay","event":"refused_on",'
    f'"message":"refused {ATTACKER} 429 rate_limit on client (0 more left out)","',
    f'","message":"refused {ATTACKER} 429 rate_limit on client (0 more left out)",',
)


def as_json(file: io.StringIO) -> ILogObserver:
    """Return what writes JSON to a file."""
    observer: ILogObserver = FileLogObserver(file, json_line)
    return observer


@needs_fail2ban
def test_the_same_lines_are_found(tmp_path: Path) -> None:
    """Refusals, forged events and jailed clients are found, and what imitates them or is nobody's fault is not."""
    with log_file(as_json) as file:
        log = EventLog("full", Now())
        log.refused("client", 429, Reason.RATE_LIMIT, address("192.0.2.1"))
        log.refused(None, 403, Reason.JAILED, address("2001:db8::2"))
        NostrLog(log).refused("EVENT", address("192.0.2.3"), "signature")
        log.jailed(address("192.0.2.4"), 600.0, 1)
        log.refused(None, 503, Reason.GLOBAL_CAP, address(ATTACKER))
        log.refused(None, 0, "untrusted_proxy", address(ATTACKER))
        log.refused("client", 400, "bad_head", address(ATTACKER))
        NostrLog(log).refused("EVENT", address(ATTACKER), "rate_limit")
        EventLog("hashed", Now()).jailed(address(ATTACKER), 600.0, 1)
        for text in FORGED_JSON:
            everything_else(log, text)
            Logger(namespace="another").info("{text}", text=text)
    assert found_by(tmp_path, file.getvalue(), FILTER) == ["192.0.2.1", "2001:db8::2", "192.0.2.3", "192.0.2.4"]


def patterns() -> list[re.Pattern[str]]:
    """Return the filter's patterns, with the address as a group."""
    parser = configparser.ConfigParser()
    parser.read(FILTER, encoding="utf-8")
    found = parser["Definition"]["failregex"].split("\n")
    return [re.compile(pattern.replace("<ADDR>", r"([0-9a-f.:]+)")) for pattern in found]


PATTERNS = patterns()


def without_time(line: str) -> str:
    """Return a line after fail2ban has taken off the beginning with its time."""
    return re.sub(r'^\{"time":"[^"]*"', "", line)


@settings(max_examples=100)
@given(st.lists(st.one_of(st.text(), st.sampled_from(FORGED_JSON)), max_size=3).map("".join))
def test_no_text_of_a_client_matches(text: str) -> None:
    """Text of a client stays within its value, and makes no line match."""
    with log_file(as_json) as file:
        everything_else(EventLog("full", Now()), text)
    lines = file.getvalue().splitlines()
    assert len(lines) == 7
    assert all(json.loads(line)["logger"] == "pyryrelay" for line in lines)
    assert not any(pattern.match(without_time(line)) for line in lines for pattern in PATTERNS)


def test_the_patterns_as_python_reads_them_match() -> None:
    """The patterns match real lines in Python as well, so that the test above checks something."""
    with log_file(as_json) as file:
        log = EventLog("full", Now())
        log.refused("client", 429, Reason.RATE_LIMIT, address("192.0.2.1"))
        NostrLog(log).refused("EVENT", address("192.0.2.1"), "signature")
        log.jailed(address("192.0.2.1"), 600.0, 1)
    lines = map(without_time, file.getvalue().splitlines())
    found = [pattern.match(line) for pattern, line in zip(PATTERNS, lines, strict=True)]
    assert [match and match[1] for match in found] == ["192.0.2.1"] * 3
