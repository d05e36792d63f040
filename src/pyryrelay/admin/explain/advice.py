"""What an operator can do for a client that is refused."""

from __future__ import annotations

from typing import Final

from pyryrelay.guard.jail import Sentence
from pyryrelay.guard.refusal import Reason

__all__ = ["advice"]

_CAPS: Final = (Reason.GLOBAL_CAP, Reason.ADDRESS_CAP, Reason.PREFIX_CAP, Reason.ROUTE_CAP)
_HANDSHAKE_CAPS: Final = (Reason.HANDSHAKE_CAP, Reason.HANDSHAKE_ADDRESS_CAP)
_RELOAD: Final = "then: pyryrelay reload"


def advice(reason: Reason, sentence: Sentence | None, *, is_shared: bool) -> str:
    """Return what to do about a refusal; ``is_shared`` tells whether other members of a cluster have the same jail."""
    if reason == Reason.JAILED and sentence is not None:
        reach = ", which releases it at all members of the cluster" if is_shared else ""
        return f"release it with: pyryrelay jail release {sentence.network}{reach}"
    if reason == Reason.DENIED:
        return f"take it off the deny list (--deny, --deny-file), {_RELOAD}"
    if reason in _CAPS:
        return f"it gets a place when connections end; to admit more, raise the cap that refuses it, {_RELOAD}"
    if reason in _HANDSHAKE_CAPS:
        return "it gets a place within seconds, when connections that send no request end"
    exempt = f"to exempt it from quotas, put it on the allow list (--allow-file), {_RELOAD}"
    return f"it is admitted once it has waited; {exempt}"
