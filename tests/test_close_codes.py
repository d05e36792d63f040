"""The close codes: which may be sent, and the table of the reference page."""

from __future__ import annotations

import pytest
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from pyryrelay.close_codes import ALLOWED_CODES, CloseCode, table
from pyryrelay.pyry.close_codes import PyryCloseCode

REPORTED_ONLY = {CloseCode.NO_STATUS, CloseCode.ABNORMAL}


@pytest.mark.parametrize("code", [code for code in CloseCode if code not in REPORTED_ONLY])
def test_every_other_code_is_allowed_on_the_wire(code: CloseCode) -> None:
    """RFC 6455 section 7.4: an independent implementation accepts each code that the relay sends."""
    assert Close.parse(Close(code, "").serialize()).code == code


@pytest.mark.parametrize("code", REPORTED_ONLY)
def test_reported_codes_say_so(code: CloseCode) -> None:
    """Codes that must not be sent are marked as reported only."""
    assert code.meaning.startswith("reported only: ")


@pytest.mark.parametrize("code", [999, *range(1000, 1017), 1999, 2999, 3000, 3999, 4000, 4999, 5000])
def test_which_codes_a_close_frame_may_contain(code: int) -> None:
    """An independent implementation accepts the same codes."""
    try:
        Close.parse(code.to_bytes(2, "big"))
    except ProtocolError:
        assert code not in ALLOWED_CODES
    else:
        assert code in ALLOWED_CODES


def test_codes_are_integers_with_a_meaning() -> None:
    """A member is its number, and no two have the same meaning."""
    assert [int(code) for code in CloseCode] == [code.value for code in CloseCode]
    assert f"{PyryCloseCode.NO_SERVER:d}" == "4404"
    assert len({code.meaning for code in CloseCode}) == len(CloseCode)


def test_the_table_has_a_row_for_each() -> None:
    """The Markdown table lists every code once, in order."""
    head, rule, *rows = table(PyryCloseCode).splitlines()
    assert head.count("|") == rule.count("|") == 4
    assert [int(row.split("|")[1]) for row in rows] == sorted([*CloseCode, *PyryCloseCode])
    assert "| 4409 | `SERVER_ID_CLAIMED` | another live binary holds the server-id |" in rows
