"""The arguments of the command, and its errors of one line."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from pyryrelay.cli.arguments import Parser, admin_url, common_options, header, jail_seconds, positive_seconds


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2h30m", 9_000), ("45", 45), ("366d", 31_622_400)])
def test_durations(text: str, seconds: float) -> None:
    """A duration has units, or is a number of seconds."""
    assert jail_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1w", "0s", "367d", "-5", "1.5h"])
def test_what_is_no_duration(text: str) -> None:
    """Other texts are refused with the fix."""
    with pytest.raises(ArgumentTypeError, match="write"):
        jail_seconds(text)


@pytest.mark.parametrize(("text", "seconds"), [("0.5", 0.5), ("3600", 3600), ("1e1", 10)])
def test_numbers_of_seconds(text: str, seconds: float) -> None:
    """Fractions of a second are allowed."""
    assert positive_seconds(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "3601", "nan", "inf", "1s", ""])
def test_what_is_no_number_of_seconds(text: str) -> None:
    """Zero, more than an hour, and what is no number are refused with the fix."""
    with pytest.raises(ArgumentTypeError, match="write one above 0, up to 3600"):
        positive_seconds(text)


def test_headers_and_urls() -> None:
    """A header has a name, and an admin listener a host or a path."""
    assert header("X-Forwarded-For: 203.0.113.9") == "X-Forwarded-For: 203.0.113.9"
    assert admin_url("http://[::1]:9090/") == "http://[::1]:9090/"
    assert admin_url("unix:/run/a b") == "unix:/run/a b"
    for wrong, read in (("203.0.113.9", header), ("unix:", admin_url), ("http://", admin_url), ("//x", admin_url)):
        with pytest.raises(ArgumentTypeError):
            read(wrong)


def test_options_may_stand_anywhere_and_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    """Shared options have no defaults, so that one before the command counts; abbreviations are an error."""
    parser = Parser(prog="p", parents=[common_options()])
    assert vars(parser.parse_args([])) == {}
    assert parser.parse_args(["--admin", "unix:a", "--json"]).admin == "unix:a"
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--adm", "x\x1b"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "p: unrecognized arguments: --adm x\\x1b; see p --help\n"
