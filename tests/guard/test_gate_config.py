"""The configuration of a gate: what it takes, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import Reason


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"upgrade_quota": "10/minute"}, r"upgrade_quota '10/minute' is a text: write Quota\.parse\('10/minute'\)"),
        ({"allow": "10.0.0.0/8"}, r"allow '10\.0\.0\.0/8' is a text: write CidrSet\('10\.0\.0\.0/8'\)"),
        ({"jail_exempt": "10.0.0.0/8"}, r"jail_exempt '10\.0\.0\.0/8' is a text"),
        ({"no_fault_reasons": "full"}, r"no_fault_reasons 'full' is a text: write frozenset\(\{'full'\}\)"),
    ],
)
def test_texts_in_a_configuration(wrong: dict[str, Any], told: str) -> None:
    """A text in place of a configuration's value is an error that says how to make the value."""
    with pytest.raises(GuardError, match=told):
        GateConfig(**wrong)


def test_reasons_without_strike() -> None:
    """They are the guard's, the caller's, and with a quota of requests those that it pays for."""
    own = GateConfig().reasons_without_strike()
    assert own < {*Reason}
    config = GateConfig(no_fault_reasons=frozenset({"closing"}), http_quota_reasons=frozenset({"no_page"}))
    assert config.reasons_without_strike() == own | {"closing"}
    paid = GateConfig(http_quota=Quota.parse("1/s"), http_quota_reasons=frozenset({"no_page"}))
    assert paid.reasons_without_strike() == own | {"no_page"}


@pytest.mark.parametrize(
    ("quota", "tolerated"),
    [
        (None, None),
        ("1/s burst 2", "10/s burst 20"),
        ("1/m burst 300000", "3/m burst 900000"),
        ("1000000/s", "1000000/s"),
    ],
)
def test_refused_requests_are_tolerated_for_a_while(quota: str | None, tolerated: str | None) -> None:
    """The quota is ten times that of requests, as far as a quota can be so large."""
    found = GateConfig(http_quota=None if quota is None else Quota.parse(quota)).http_refusal_quota()
    assert found == (None if tolerated is None else Quota.parse(tolerated))
