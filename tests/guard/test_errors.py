"""The errors of the guard: one base, and one line with the value and what to write instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyryrelay.guard import CidrSet, GateConfig, JailPolicy, LeaseLimits, Nat64Prefix, Quota, TrustPolicy, errors
from pyryrelay.guard.address.clientip import client_address
from pyryrelay.guard.errors import AddressError, CidrError, GuardError, LimitError, QuotaSyntaxError, TrustError
from pyryrelay.guard.gate import Gate


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_have_one_base(name: str) -> None:
    """Every error of the guard is a `GuardError`, which is a `ValueError`."""
    assert issubclass(getattr(errors, name), GuardError)
    assert issubclass(GuardError, ValueError)


@pytest.mark.parametrize(
    ("make", "error", "value"),
    [
        (lambda: Quota.parse("10/fortnight"), QuotaSyntaxError, "'10/fortnight'"),
        (lambda: Quota(0, 1.0, 1), QuotaSyntaxError, "0"),
        (lambda: CidrSet(["10.0.0.1/8"]), CidrError, "'10.0.0.1/8'"),
        (lambda: Nat64Prefix.parse("192.0.2.0/24"), CidrError, "'192.0.2.0/24'"),
        (lambda: client_address("2001:db8::1", ipv6_prefix=129), AddressError, "129"),
        (lambda: LeaseLimits(max_connections=0), LimitError, "0"),
        (lambda: JailPolicy(refusals=1), LimitError, "1"),
        (lambda: Gate(GateConfig(max_tracked=7)), LimitError, "7"),
        (lambda: TrustPolicy(True, header="X Real IP"), TrustError, "'X Real IP'"),
    ],
)
def test_a_message_is_one_line_with_value_and_fix(
    make: Callable[[], object], error: type[GuardError], value: str
) -> None:
    """The message has the value as `repr` writes it, then what is wrong, and the fix behind a colon."""
    with pytest.raises(error) as caught:
        make()
    problem, _, fix = str(caught.value).rpartition(": ")
    assert str(caught.value).isprintable()
    assert value in problem
    assert fix.startswith(("use ", "write "))
