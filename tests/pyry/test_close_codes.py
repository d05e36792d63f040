"""The close codes of pyry: fit for the wire, and those that the registry closes with."""

from __future__ import annotations

import pytest
from websockets.frames import Close

from pyryrelay.close_codes import CloseCode
from pyryrelay.pyry.close_codes import PyryCloseCode
from pyryrelay.pyry.registry import CLOSES


@pytest.mark.parametrize("code", PyryCloseCode)
def test_a_code_is_allowed_on_the_wire(code: PyryCloseCode) -> None:
    """RFC 6455 section 7.4.2: codes of an application are from 4000 to 4999."""
    assert 4000 <= code <= 4999
    assert Close.parse(Close(code, "").serialize()).code == code


def test_codes_have_meanings_of_their_own() -> None:
    """No two codes have the same meaning, and none has one of the transport's."""
    meanings = [code.meaning for code in (*CloseCode, *PyryCloseCode)]
    assert len(set(meanings)) == len(meanings)
    assert all(meanings)


def test_they_are_what_the_registry_closes_with() -> None:
    """The registry closes with each of these codes, and otherwise with codes of the transport."""
    codes = {code for code, _ in CLOSES.values()}
    assert {code for code in codes if code >= 4000} == set(PyryCloseCode)
    assert codes - set(PyryCloseCode) <= set(CloseCode)


def test_the_codes_of_the_specification() -> None:
    """The specification fixes the numbers (pyry-v1, "Close codes")."""
    assert {code.name: code.value for code in PyryCloseCode} == {
        "NO_SERVER": 4404,
        "SERVER_ID_CLAIMED": 4409,
        "TOO_MANY_PHONES": 4429,
    }
