"""The jail: ban clients that are refused repeatedly, for increasing periods."""

from __future__ import annotations

from pyryrelay.guard.jail.jail import Jail
from pyryrelay.guard.jail.policy import MAX_DURATION_S, MAX_REFUSALS, JailPolicy
from pyryrelay.guard.jail.sentences import Changes, News, Sentence, origin_of_worker

__all__ = ["MAX_DURATION_S", "MAX_REFUSALS", "Changes", "Jail", "JailPolicy", "News", "Sentence", "origin_of_worker"]
