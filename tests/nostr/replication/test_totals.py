"""The words of the totals."""

from __future__ import annotations

from pyryrelay.nostr.policies.refusal import EVENT_WORDS
from pyryrelay.nostr.replication.totals import OUTCOMES, Totals
from pyryrelay.nostr.storage.interface import Outcome


def test_every_outcome_has_a_word() -> None:
    """Those of the store, and those of refusals, from the start."""
    assert OUTCOMES.keys() == {*Outcome}
    totals = Totals()
    assert totals.taken_in.keys() >= {*OUTCOMES.values(), *EVENT_WORDS}
    assert not any(totals.taken_in.values())
