"""What operators ask a member of a cluster: ``POST /cluster/instances`` of the admin API.

An instance is also asked for ``where`` and ``rebalance``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pyryrelay.cluster.directory.directory import Answer, NoOwner
from pyryrelay.cluster.directory.members import Listed, Member
from pyryrelay.cluster.instance import Instance
from pyryrelay.cluster.operating.overview import Overview
from pyryrelay.cluster.operating.problems import problems
from pyryrelay.cluster.operating.rebalance import Rebalance, share_of
from pyryrelay.cluster.redis.interface import RedisError
from pyryrelay.protocol import Action, ActionError

__all__ = ["instance_actions", "member_actions"]

_MAX_KEY_BYTES: Final = 1024
_MAX_OVER_S: Final = 86_400.0


def member_actions(overview: Overview) -> Mapping[str, Action]:
    """Return the actions of all members."""

    def seen(sight: Mapping[str, object]) -> bytes:
        return json.dumps({**sight, "problems": problems(sight)}).encode()

    return {"instances": lambda body: overview.fresh().addCallback(seen)}


def instance_actions(instance: Instance, rebalance: Rebalance) -> Mapping[str, Action]:
    """Return the actions of an instance, whose keys ``rebalance`` moves."""
    actions = _Actions(instance)
    moving = _Moving(instance, rebalance)
    return {"where": actions.where, "rebalance": moving.act}


class _Actions:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def where(self, body: bytes) -> Deferred[bytes]:
        """Tell which instance holds the key that the body names."""
        try:
            key = json.loads(body)["key"]
        except (ValueError, KeyError, TypeError, RecursionError):
            key = None
        if not isinstance(key, str) or not 0 < len(key.encode(errors="replace")) <= _MAX_KEY_BYTES:
            raise ActionError('send {"key": "..."}, with the key that you look for')
        return self._instance.directory.look(key).addCallback(self._found)

    def _found(self, answer: Answer) -> bytes:
        if answer in (NoOwner.WAIT, NoOwner.DOWN):
            raise ActionError("the server of the cluster does not answer now: try again")
        if answer is NoOwner.FORGED:
            raise ActionError(
                "the entry names an instance whose address is not proven: see who can write to the server"
            )
        owner = answer.address if isinstance(answer, Member) else None
        if answer is NoOwner.HERE:
            owner = self._instance.directory.member.address
        return json.dumps({"address": owner}).encode()


class _Moving:
    """Begins to move keys, and tells how far that is."""

    def __init__(self, instance: Instance, rebalance: Rebalance) -> None:
        self._instance = instance
        self._rebalance = rebalance

    def act(self, body: bytes) -> bytes | Deferred[bytes]:
        """Do what the body says: see docs/reference/admin-api.md."""
        try:
            wish = json.loads(body or b"{}")
            what, over_s = wish.get("do", "look"), float(wish.get("over_s", 0.0))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            what, over_s = None, 0.0
        if what not in ("look", "plan", "start", "stop") or not 0.0 <= over_s <= _MAX_OVER_S:
            problem = f'send {{"do": "look"}}, "plan", "stop", or "start" with "over_s" from 0 to {_MAX_OVER_S:.0f}'
            raise ActionError(problem)
        if what in ("look", "stop"):
            if what == "stop":
                self._rebalance.stop()
            return self._state({})
        if self._rebalance.is_running:
            raise ActionError("keys are moved already: see how far it is, or stop it first")
        if self._instance.directory.is_left:
            raise ActionError("this instance leaves the cluster")
        listed = self._instance.directory.members()
        return listed.addCallbacks(self._listed, _away, callbackArgs=(what == "start", over_s))

    def _listed(self, listed: Sequence[Listed], starts: bool, over_s: float) -> bytes:
        rebalance, share = self._rebalance, share_of(listed)
        keys = rebalance.plan(share)
        astray = sum(map(rebalance.is_astray, keys))
        plan = {"share": share, "planned": len(keys), "astray": astray}
        if starts and not rebalance.is_running:
            rebalance.start(keys, over_s)
        return self._state(plan)

    def _state(self, more: Mapping[str, object]) -> bytes:
        row = {"address": self._instance.directory.member.address, **self._rebalance.state(), **more}
        return json.dumps({"instances": [row]}).encode()


def _away(failure: Failure) -> bytes:
    failure.trap(RedisError)
    raise ActionError(f"the server of the cluster does not answer: {failure.value}")
