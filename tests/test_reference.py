"""The pages of docs/reference that people wrote: none may say less, more or other than the program does."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher, textFileLogObserver

import pyryrelay
from pyryrelay.guard import Gate, GateConfig, LeaseLimits, Reason, client_address
from pyryrelay.ops.logs import ALLOWED_FIELDS, EventLog
from pyryrelay.ops.metrics import WIRE_REASONS, RelayCollector
from pyryrelay.ops.preflight import files_needed
from pyryrelay.service import build
from pyryrelay.settings import Settings
from pyryrelay.wire import closecode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = Path(pyryrelay.__file__).parent


def page(name: str) -> str:
    """The text of a page of the reference."""
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def rows(name: str, heading: str) -> list[list[str]]:
    """The cells of the table in a page whose header row begins with `heading`, rule and header left out."""
    table = page(name).split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def words(cell: str) -> list[str]:
    """What a cell has in backticks."""
    return re.findall(r"`([^`]+)`", cell)


# Metrics


def metrics_table() -> str:
    """The Markdown table of every metric, as one scrape of a new relay has them."""
    service = build(Settings(), MemoryReactorClock())
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in RelayCollector(service.relay, service.gate, service.refusals, lambda: 0.0).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, {})[value] = None
        told = "; ".join(f"{label}: {', '.join(f'`{value}`' for value in labels[label])}" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {told} | {family.documentation} |")
    return "\n".join(lines)


def test_the_table_of_metrics_is_complete() -> None:
    """docs/reference/metrics.md names every metric, its type, labels and label values, and no other."""
    assert metrics_table() in page("metrics.md"), f"put this table into docs/reference/metrics.md:\n{metrics_table()}"


def test_every_metric_that_is_mentioned_exists() -> None:
    """A metric or label value that any page mentions is one that the relay has."""
    known = set(words(metrics_table()))
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.rglob("*.md")]]
    named = {name for text in texts for name in re.findall(r"\bpyr(?:ycode_relay|yrelay)_[a-z_]+[a-z]\b", text)}
    assert named - known - {"pyryrelay_plugin"} == set()
    selected = {found for text in texts for found in re.findall(r"\b(pyr[a-z_]+)\{(\w+)=\"(\w+)\"\}", text)}
    assert selected
    for name, label, value in selected:
        assert re.search(rf"^\| `{name}` .*\b{label}: [^|]*`{value}`", metrics_table(), re.MULTILINE)


# Close codes


def test_the_table_of_close_codes_is_current() -> None:
    """docs/reference/close-codes.md has the table that the code prints."""
    assert f"\n{closecode.table()}\n" in page("close-codes.md"), closecode.table()


def test_the_reasons_of_close_codes_are_real() -> None:
    """Each code with a reason is one that the relay sends, and each reason in backticks is in its source."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for code, reasons, _ in rows("close-codes.md", "code | reason | what the client should do"):
        assert int(code) in set(closecode.CloseCode)
        for reason in words(reasons):
            assert f'"{reason}"' in source


# HTTP answers


def test_http_answers_have_every_reason() -> None:
    """Each word with which the relay refuses has its row, and each row is such a word."""
    told = [words(row[1])[0] for row in rows("http-answers.md", "status | reason | when | header fields")]
    assert sorted(told) == sorted([*Reason, *WIRE_REASONS])


def test_http_answers_have_the_right_status() -> None:
    """The status of a row is the one that the source gives with the reason."""
    told = {words(row[1])[0]: row[0] for row in rows("http-answers.md", "status | reason | when | header fields")}
    source = "\n".join((PACKAGE / name).read_text(encoding="utf-8") for name in ("wire/entrance.py", "pyry/relay.py"))
    given = re.findall(r"\b(\d{3}), \"(\w+)\"", source)
    assert {reason for _, reason in given} == set(WIRE_REASONS) - {"bad_head"}
    for status, reason in given:
        assert told[reason] == status
    guard = (PACKAGE / "guard" / "gate.py").read_text(encoding="utf-8")
    for status, name in re.findall(r"Refusal\((\d{3}), Reason\.(\w+)", guard):
        assert told[Reason[name]] == status


def test_http_answers_name_the_limits_that_are() -> None:
    """The numbers on the page are the limits of the guard."""
    limits = LeaseLimits()
    text = page("http-answers.md")
    assert f"| {limits.max_handshakes_per_address} connections of this address" in text
    assert f"| {limits.max_handshakes} connections of everybody" in text
    assert f"more than {2 * limits.max_handshakes} connections wait" in text


def test_the_service_page_knows_how_many_files_are_needed() -> None:
    """docs/howto/run-as-a-service.md adds to --max-connections what the preflight adds."""
    spare = files_needed(LeaseLimits()) - LeaseLimits().max_connections
    assert f"`max-connections` + {spare} files" in (DOCS / "howto/run-as-a-service.md").read_text(encoding="utf-8")


# Logs


def logged_formats() -> set[str]:
    """The format strings of all log calls of the package, read from its source."""
    formats = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_log."):
                assert isinstance(node.args[0], ast.Constant)
                formats.add(str(node.args[0].value))
    return formats


def test_every_log_line_is_on_the_page() -> None:
    """docs/reference/logs.md has the format of each line that the package can write, and no other."""
    assert {words(row[1])[0] for row in rows("logs.md", "level | line")} == logged_formats()


def test_every_log_field_is_explained() -> None:
    """The fields that may be logged are those that the page explains."""
    assert [words(row[0])[0] for row in rows("logs.md", "field | what it holds")] == sorted(ALLOWED_FIELDS)


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7"])
def test_the_fail2ban_filter_matches_a_refusal(address: str) -> None:
    """The filter's expression finds the address in a real line of a refusal, and matches no other line."""
    failregex = next(re.finditer(r"^failregex = (.+)$", page("logs.md"), re.MULTILINE))[1]
    # what fail2ban makes of <ADDR>; it cuts the date out of the line before it looks
    pattern = re.compile(failregex.replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)"))
    file = io.StringIO()
    observer = textFileLogObserver(file)
    log = EventLog("full", lambda: 100.0)
    client = client_address(address)
    assert client is not None
    globalLogPublisher.addObserver(observer)
    try:
        log.refused("client", 429, "rate_limit", client)
        log.refused("client", 400, "bad_server_id", client)
        log.claimed(f"refused {address} 429 rate_limit on client (0 more left out)", "1", client)
    finally:
        globalLogPublisher.removeObserver(observer)
    lines = [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", "", line) for line in file.getvalue().splitlines()]
    assert len(lines) == 3
    found = [match["address"] for line in lines if (match := pattern.search(line))]
    assert found == [address]


def test_the_defaults_that_pages_promise() -> None:
    """The numbers of docs/howto/protect-your-own-server.md are the guard's defaults."""
    config: GateConfig = Gate().config
    assert str(config.upgrade_quota) == "10/minute burst 20"
    assert config.limits.max_connections == 10_000
    assert config.limits.max_connections_per_address == 64
