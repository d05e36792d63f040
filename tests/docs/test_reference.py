"""The hand-written pages of docs/reference agree with the program."""

from __future__ import annotations

import ast
import configparser
import io
import re
import runpy
from pathlib import Path

import pytest
from twisted.logger import globalLogPublisher, textFileLogObserver

import pyryrelay
from pyryrelay import close_codes
from pyryrelay.admin.api import ROUTES
from pyryrelay.guard import Gate, GateConfig, LeaseLimits, Reason, client_address
from pyryrelay.guard.leases import FEW_LEASES, RESERVED_SHARE
from pyryrelay.http.answering import ANSWER_TIMEOUT_S, DISCARD_BYTES, LINGER_S, PROGRESS_BYTES
from pyryrelay.mounts import Settings
from pyryrelay.nostr.observe.log import NostrLog
from pyryrelay.nostr.tools.actions import Actions
from pyryrelay.observe.log import ALLOWED_FIELDS, EventLog
from pyryrelay.observe.log_formats.records import event_name
from pyryrelay.preflight.open_files import files_needed
from pyryrelay.pyry.close_codes import PyryCloseCode
from pyryrelay.pyry.log import PyryLog
from pyryrelay.pyry.registry import CLOSES, TRANSITIONS
from pyryrelay.refusal_words import NEVER_ANSWERED, RefusalWord
from pyryrelay.websocket import states
from pyryrelay.websocket.context import WebSocketLimits

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = Path(pyryrelay.__file__).parent


def page(name: str) -> str:
    """Return the text of a page of the reference."""
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def rows(name: str, heading: str) -> list[list[str]]:
    """Return the cells of the table whose header row begins with `heading`, without rule and header."""
    table = page(name).split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def words(cell: str) -> list[str]:
    """Return what a cell has in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def code(cell: str) -> str:
    """Return the only code of a cell; code with backticks in it is surrounded by more of them."""
    found = re.fullmatch(r"(`+) ?(.*?) ?\1", cell)
    assert found, cell
    return found[2]


# Generated pages

GENERATE = runpy.run_path(str(DOCS / "generate.py"))


@pytest.mark.parametrize("name", sorted(set(GENERATE["generated"]()) - {"options.md"}))
def test_generated_pages_are_current(name: str) -> None:
    """A page that is generated, or has a generated table, is what `make docs` writes."""
    text: str = GENERATE["generated"]()[name]
    assert page(name) == text, f"docs/reference/{name} is not current: run make docs"


# The registry


def test_the_registry_page_shows_the_whole_table() -> None:
    """Every state, transition and close is in the diagram or a table."""
    text = page("registry.md")
    for (source, event), transition in TRANSITIONS.items():
        assert f"    {source.name} --> {transition.target.name}: {event} / {transition.action}\n" in text
        assert (
            f"| {source.name} | {event} | {transition.target.name} | `{transition.action}` | {transition.effect} |"
            in text
        )
    for cause, (code, reason) in CLOSES.items():
        assert f"| `{cause}` | {code} | {reason or '(empty)'} |" in text


# The admin API


def test_the_admin_api_page_has_every_request() -> None:
    """Each request that the API answers has its row, and each row is such a request."""
    told = [words(row[0])[0] for row in rows("admin-api.md", "request | does | answers")]
    assert told == list(map(str, ROUTES))


def test_the_admin_api_page_has_every_action_of_the_nostr_relay() -> None:
    """Each action has its row, and each row is such an action."""
    told = [
        words(row[0])[0].removeprefix("POST /nostr/") for row in rows("admin-api.md", "action | body | does | answers")
    ]
    assert told == list(Actions(None, None, None, None).all())  # type: ignore[arg-type]


# The states of a connection


def test_the_page_of_states_shows_the_whole_table() -> None:
    """Every state and transition is in a table; the diagram has all but those that lead from everywhere to the end."""
    text = page("connection-states.md")
    for state in states.State:
        assert f"| {state.name} | {state.meaning} |" in text
    for event in states.Event:
        assert f"| {event} | {event.meaning} |" in text
    for (source, event), transition in states.TRANSITIONS.items():
        arrow = f"    {source.name} --> {transition.target.name}: {event}\n"
        assert (arrow in text) is (event not in ("lost", "cut off"))
        assert (
            f"| {source.name} | {event} | {transition.target.name} | `{transition.action}` | {transition.effect} |"
            in text
        )
    limits = WebSocketLimits()
    assert f"may take {limits.close_timeout_s:g} seconds" in text


# Metrics


def metrics_table() -> str:
    """Return the table of metrics, which must be the only one of the page."""
    table: str = GENERATE["metrics_table"]()
    return table


def test_every_metric_that_is_mentioned_exists() -> None:
    """A metric or label value that any page mentions exists."""
    known = set(words(metrics_table()))
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.rglob("*.md")]]
    named = {name for text in texts for name in re.findall(r"\bpyr(?:ycode_relay|yrelay)_[a-z_]+[a-z]\b", text)}
    events = set(map(event_name, GENERATE["logged_lines"]()))
    assert named - known - events - {"pyryrelay_plugin"} == set()
    selected = {found for text in texts for found in re.findall(r"\b(pyr[a-z_]+)\{(\w+)=\"(\w+)\"\}", text)}
    assert selected
    for name, label, value in selected:
        assert re.search(rf"^\| `{name}` .*\b{label}: [^|]*`{value}`", metrics_table(), re.MULTILINE)


# Close codes


def test_the_reasons_of_close_codes_are_real() -> None:
    """The relay sends each code with a reason on the page, and its source has each reason in backticks."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for code, reasons, _ in rows("close-codes.md", "code | reason | what the client should do"):
        assert int(code) in {*close_codes.CloseCode, *PyryCloseCode}
        for reason in words(reasons):
            assert f'"{reason}"' in source


# HTTP answers


def test_http_answers_have_every_reason() -> None:
    """The page has a row for each reason of a refusal, and no other row."""
    told = [words(row[1])[0] for row in rows("http-answers.md", "status | reason | when | header fields")]
    assert sorted(told) == sorted([*Reason, *RefusalWord, *Settings.protocol_words()])


def test_http_answers_have_the_right_status() -> None:
    """The status of a row is the one that the source gives with the reason."""
    told = {words(row[1])[0]: row[0] for row in rows("http-answers.md", "status | reason | when | header fields")}
    modules = ("answering", "connection", "placement", "placing", "plain_requests", "refusals", "routing")
    files = [PACKAGE / "http" / f"{name}.py" for name in modules]
    files += [file for protocol in Settings.protocols for file in sorted((PACKAGE / protocol.name).glob("*.py"))]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    source = re.sub(r"\bRefusalWord\.(\w+)", lambda name: f'"{RefusalWord[name[1]]}"', source)
    given = re.findall(r"\b(\d{3}), \"(\w+)\"", source)
    given += [("none", reason) for reason in re.findall(r"\b(?:_drop\(|None, 0, )\"(\w+)\"", source)]
    assert {reason for _, reason in given} == {*RefusalWord, *Settings.protocol_words()}
    for status, reason in given:
        assert status in told[reason].split(", ")
    guard = (PACKAGE / "guard" / "gate.py").read_text(encoding="utf-8")
    for status, name in re.findall(r"Refusal\((\d{3}), Reason\.(\w+)", guard):
        assert told[Reason[name]] == ("none" if Reason[name] in NEVER_ANSWERED else status)


def test_http_answers_name_the_limits_that_are() -> None:
    """The numbers on the page are the limits of the guard."""
    limits = LeaseLimits()
    text = page("http-answers.md")
    assert f"| {limits.max_handshakes_per_address} connections of this address" in text
    assert f"| {limits.max_handshakes} connections of everybody" in text
    assert f"holds {FEW_LEASES} or more" in text
    assert RESERVED_SHARE == 0.1
    assert "all but the last tenth" in text
    assert f"more than {2 * limits.max_handshakes} connections wait" in text
    assert f"did not answer a request within {ANSWER_TIMEOUT_S:.0f} s" in text
    assert f"A client has {LINGER_S:.0f} s to read its answer" in text
    assert f"{LINGER_S:.0f} s more for every {PROGRESS_BYTES // 1024} KiB" in text
    assert f"is discarded up to {DISCARD_BYTES // 1024} KiB" in text


def test_the_service_page_knows_how_many_files_are_needed() -> None:
    """docs/howto/run-as-a-service.md adds to --max-connections what the preflight adds."""
    spare = files_needed(LeaseLimits(), Settings()) - LeaseLimits().max_connections
    assert f"`max-connections` + {spare} files" in (DOCS / "howto/run-as-a-service.md").read_text(encoding="utf-8")


# Logs


def test_every_log_call_can_be_listed() -> None:
    """The page has each line that the package writes, because each has a literal format."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_log."):
                assert isinstance(node.args[0], ast.Constant), (path, node.lineno)


def test_the_levels_of_lines() -> None:
    """They are those of the calls; failures are critical."""
    levels = {code(row[1]): row[0] for row in rows("logs.md", "level | line")}
    assert levels["metrics on {endpoint}"] == "info"
    assert levels["Periodic work failed"] == levels["A reload failed"] == "critical"
    assert levels["{warning}"].startswith("warn, error, critical")


def test_every_log_field_is_explained() -> None:
    """The page explains exactly the fields that may be logged."""
    assert [words(row[0])[0] for row in rows("logs.md", "field | what it holds")] == sorted(
        ALLOWED_FIELDS.union(*(protocol.log_fields for protocol in Settings.protocols))
    )


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7"])
def test_the_fail2ban_filter_matches_a_refusal(address: str) -> None:
    """The filter finds the address in real lines of a refusal and a ban, and matches no other line."""
    shown = next(re.finditer(r"^```ini\n(\[Definition\]\n.*?)^```", page("logs.md"), re.MULTILINE | re.DOTALL))[1]
    lines_of_filter = (ROOT / "contrib" / "fail2ban" / "filter.d" / "pyryrelay.conf").read_text(encoding="utf-8")
    assert set(shown.splitlines()) <= set(lines_of_filter.splitlines())
    parser = configparser.ConfigParser()
    parser.read_string(shown)
    # What fail2ban makes of <ADDR>; it cuts the date out of a line before it matches.
    patterns = [
        re.compile(line.replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)"))
        for line in parser["Definition"]["failregex"].splitlines()
    ]
    file = io.StringIO()
    observer = textFileLogObserver(file)
    log = EventLog("full", lambda: 100.0)
    client = client_address(address)
    assert client is not None
    globalLogPublisher.addObserver(observer)
    try:
        log.refused("client", 429, "rate_limit", client)
        NostrLog(log).refused("EVENT", client, "signature")
        NostrLog(log).refused("EVENT", client, "rate_limit")
        log.jailed(client, 600.0, 1)
        log.refused("client", 503, "global_cap", client)
        PyryLog(log).claimed(f"refused {address} 429 rate_limit on client (0 more left out)", "1", client, 7)
    finally:
        globalLogPublisher.removeObserver(observer)
    lines = [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", "", line) for line in file.getvalue().splitlines()]
    assert len(lines) == 6
    found = [[match["address"] for line in lines if (match := pattern.search(line))] for pattern in patterns]
    assert found == [[address], [address], [address]]


def test_the_defaults_that_pages_promise() -> None:
    """The numbers of docs/howto/protect-your-own-server.md are the guard's defaults."""
    config: GateConfig = Gate().config
    assert str(config.upgrade_quota) == "10/minute burst 20"
    assert config.limits.max_connections == 10_000
    assert config.limits.max_connections_per_address == 64
