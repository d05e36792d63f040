"""What operators ask an instance: ``POST /cluster/instances`` and ``POST /cluster/where`` of the admin API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pyryrelay.cluster.directory.directory import Answer, NoOwner
from pyryrelay.cluster.directory.members import Listed, Member
from pyryrelay.cluster.instance import Instance
from pyryrelay.cluster.operating.overview import instance_row
from pyryrelay.cluster.redis.interface import RedisError
from pyryrelay.protocol import Action, ActionError

__all__ = ["instance_actions"]

_MAX_KEY_BYTES: Final = 1024


def instance_actions(instance: Instance) -> Mapping[str, Action]:
    """Return the actions of an instance."""
    actions = _Actions(instance)
    return {"instances": actions.instances, "where": actions.where}


class _Actions:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def instances(self, body: bytes) -> Deferred[bytes]:
        """List the instances with their leases."""
        return self._instance.directory.members().addCallbacks(self._listing, _away)

    def _listing(self, listed: Sequence[Listed]) -> bytes:
        instance = self._instance
        rows = [instance_row(each) for each in sorted(listed)]
        found = {"name": instance.keys.name, "here": instance.directory.member.address, "instances": rows}
        return json.dumps(found).encode()

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


def _away(failure: Failure) -> bytes:
    failure.trap(RedisError)
    raise ActionError(f"the server of the cluster does not answer: {failure.value}")
