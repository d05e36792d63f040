"""What an operator can do for a client that is refused."""

from __future__ import annotations

import pytest

from pyryrelay.admin.explain.advice import advice
from pyryrelay.guard import Reason, Sentence
from pyryrelay.guard.client import named

SENTENCE = Sentence(named("192.0.2.7").key, 60.0, 1)


def test_a_jailed_client_is_released() -> None:
    """By its network, and in a cluster everywhere."""
    release = "release it with: pyryrelay jail release 192.0.2.7/32"
    everywhere = f"{release}, which releases it at all members of the cluster"
    assert advice(Reason.JAILED, SENTENCE, is_shared=False) == release
    assert advice(Reason.JAILED, SENTENCE, is_shared=True) == everywhere


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (Reason.DENIED, "deny list"),
        (Reason.GLOBAL_CAP, "raise the cap"),
        (Reason.ADDRESS_CAP, "raise the cap"),
        (Reason.PREFIX_CAP, "raise the cap"),
        (Reason.ROUTE_CAP, "raise the cap"),
        (Reason.HANDSHAKE_CAP, "within seconds"),
        (Reason.HANDSHAKE_ADDRESS_CAP, "within seconds"),
        (Reason.RATE_LIMIT, "once it has waited"),
        (Reason.PREFIX_QUEUE_FULL, "once it has waited"),
        (Reason.TLS_RATE_LIMIT, "once it has waited"),
    ],
)
def test_each_refusal_has_a_way_out(reason: Reason, said: str) -> None:
    """Lists and caps are changed by the operator, and quotas fill up."""
    assert said in advice(reason, None, is_shared=True)
