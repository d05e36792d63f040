"""The date in answers: correct, behind the status line, and made once a second."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest

from pyryrelay.http.dates import MAX_KEPT, Dates
from pyryrelay.http.message import response

ANSWER = response(429, [("Retry-After", "6")])


def test_the_date_stands_behind_the_status_line() -> None:
    """The date has the form of RFC 9110 section 5.6.7, and the rest of the answer is unchanged."""
    dated = Dates(lambda: 784_111_777.9)(ANSWER)
    assert dated == (
        b"HTTP/1.1 429 Too Many Requests\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Retry-After: 6\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


def test_no_answer_has_no_date() -> None:
    """An empty answer gets no date."""
    assert Dates()(b"") == b""


@pytest.mark.parametrize("second_s", [1_000_000_001.0, 1_000_000_600.0, 999_999_000.0])
def test_it_follows_the_clock(second_s: float) -> None:
    """The date follows the clock second by second, wherever the clock is set."""
    now_s = 1_000_000_000.5
    dates = Dates(lambda: now_s)
    first = dates(ANSWER)
    assert dates(ANSWER) is first
    now_s = second_s
    value = dates(ANSWER).partition(b"\r\nDate: ")[2].partition(b"\r\n")[0]
    assert parsedate_to_datetime(value.decode()).timestamp() == second_s


def test_what_is_kept_is_bounded() -> None:
    """The number of answers that are kept is bounded."""
    dates = Dates(lambda: 0.0)
    for number in range(3 * MAX_KEPT):
        assert dates(b"HTTP/1.1 200 OK\r\n\r\n%d" % number).endswith(b"\r\n\r\n%d" % number)
        assert len(dates._dated) <= MAX_KEPT


def test_a_body_is_left_alone() -> None:
    """Line ends inside a body are not taken for a head."""
    dated = Dates(lambda: 0.0)(response(200, (), b"a\r\nb\r\n"))
    assert dated.endswith(b"\r\n\r\na\r\nb\r\n")
    assert dated.count(b"Date") == 1
