"""The figures of a relay for people: sections, rates, and what another version leaves out."""

from __future__ import annotations

import pytest
from tests.support.status import NOW, status

from pyryrelay.cli.figures import (
    Rates,
    Row,
    amount,
    flat,
    headline,
    overview,
    rates,
    refused_most,
    refused_per_second,
    size,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 KiB"), (1_536, "1.5 KiB"), (900_000, "879 KiB"), (2**50, "1024 TiB")],
)
def test_sizes(number: float, text: str) -> None:
    """A size has at most four digits, in the unit that fits."""
    assert size(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (1_234_567, "1,234,567"), (12.34, "12.3"), (0.1234, "0.123"), (150.4, "150")]
)
def test_amounts(number: float, text: str) -> None:
    """Thousands are separated; decimals are for small numbers."""
    assert amount(number) == text


def test_every_figure_has_a_line() -> None:
    """Nested keys are joined, and what is no number is JSON."""
    rows = dict(flat(status()))
    assert rows["refused.jailed"] == "7000"
    assert rows["protocols.echo.mood"] == "fine"
    assert rows["decision_s"] == "null"
    assert rows["connections_per_address"] == "[[1, 90], [null, 0]]"


def test_the_page() -> None:
    """The sections have what is open, what happened, the state, certificates, protocols and limits."""
    assert headline(status()) == "pyryrelay 26.11.0, process 4242, running for 1d 1h"
    sections = {section.title: dict(section.rows) for section in overview(status(), NOW)}
    assert sections["connections"] == {"open": "92", "open: server": "12", "open: client": "80"}
    since = sections["since the start"]
    assert list(since) == [
        *("admitted", "refused", "refused: jailed", "refused: rate_limit"),
        *("messages in", "bytes in", "messages out", "bytes out"),
    ]
    assert (since["refused"], since["bytes in"]) == ("7,050", "5.0 MiB")
    assert sections["now"]["longest wait for a turn"] == "2.6 ms"
    assert "time to decide" not in sections["now"]
    assert sections["certificates"] == {"relay.example": "expires in 30d"}
    assert sections["echo"] == {"echoes_total": "1,500,000", "kept_bytes": "2.0 KiB", "mood": "fine"}
    assert sections["limits in force"] == {"--upgrade-quota": "10/minute burst 20"}


def test_certificates_that_have_ended() -> None:
    """A certificate without names is called by its source; one that has expired says so."""
    one = {"names": [], "expires_at": NOW - 1, "source": "file a.pem"}
    sections = {section.title: section.rows for section in overview(status(certificates=[one]), NOW)}
    assert sections["certificates"] == [Row("file a.pem", "EXPIRED")]


def test_a_protocol_that_has_done_nothing() -> None:
    """Figures that are 0 are left out, unless all are."""
    sections = {section.title: section.rows for section in overview(status(protocols={"echo": {"a": 0}}), NOW)}
    assert sections["echo"] == [Row("everything", "0")]


def test_an_answer_of_another_version() -> None:
    """What is missing, or is of another shape, is left out."""
    assert headline({}) == "pyryrelay ?, process ?"
    sections = [*overview({"connections": 7, "protocols": {"echo": 3}, "certificates": None}, NOW)]
    assert [section.title for section in sections] == ["connections", "since the start", "now", "limits in force"]
    assert rates({}, {}) is None


def test_rates() -> None:
    """What grew between two answers is divided by the time of the relay between them."""
    later = status(
        uptime_s=90_010.0,
        admitted={"server": 100, "client": 1_000},
        refused={"rate_limit": 70, "jailed": 7_000},
        messages={"in": 10_500, "out": 20_000},
        bytes={"in": 5_242_880, "out": 10_585_760},
        cpu_s=80.0,
    )
    assert rates(status(), later) == Rates(10.0, 2.0, 50.0, 0.0, 0.0, 10_000.0, 0.5)
    assert refused_per_second(status(), later) == {"rate_limit": 2.0, "jailed": 0.0}
    assert refused_per_second(later, later) == {}
    assert rates(later, later) is None
    assert rates(status(pid=1), later) is None


def test_the_most_frequent_refusals() -> None:
    """They are sorted by number and then by name, at most five, without zeros."""
    counts = {"f": 1.0, "a": 9.0, "zero": 0.0, "c": 3.0, "b": 3.0, "d": 2.0, "e": 2.0}
    assert [reason for reason, _ in refused_most(counts)] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), 1e308, "text", None, [], {}])
def test_figures_of_a_server_that_is_odd(odd: object) -> None:
    """Whatever it sends in place of a number or a list, there are lines, and no traceback."""
    whole = {"expires_at": 86_401.0, "names": ["a.example"], "source": "files"}
    body = {
        "state": odd,
        "uptime_s": odd,
        "certificates": [whole, odd, whole | {"expires_at": odd}, whole | {"names": odd}, {"names": ["a"]}],
    }
    assert headline(body).startswith("pyryrelay ?, process ?")
    rows = [row for section in overview(body, 1.0) for row in section.rows]
    assert ("a.example", "expires in 1d") in [(row.name, row.value) for row in rows]


def test_problems_of_a_cluster() -> None:
    """A row each, with the time if that is known; what is odd is left out."""
    problems: list[object] = [{"text": "a is away", "since_s": 70.0}, {"text": "two secrets", "since_s": None}, {}, 7]
    cluster = {"name": "relay", "members": 3, "problems": problems}
    sections = {section.title: section.rows for section in overview(status(cluster=cluster), NOW)}
    assert sections["cluster"] == [
        Row("members", "3, of cluster relay"),
        Row("problem", "for 1m 10s: a is away"),
        Row("problem", "two secrets"),
    ]
    for odd in (None, {"name": 1}, cluster | {"problems": 3}):
        assert "cluster" not in {section.title for section in overview(status(cluster=odd), NOW)}
