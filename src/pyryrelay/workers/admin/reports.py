"""The worker's side: it answers what the supervisor asks for its admin listener.

An answer that an operator may cause to fail is an object with the key ``ok`` or ``error``, because a failure of an
answer would be a bug. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from pyryrelay.admin.actions import RelayActions
from pyryrelay.admin.dashboard.feed import ClusterSight, RecentRefusals
from pyryrelay.admin.status import Status
from pyryrelay.guard.errors import GuardError
from pyryrelay.protocol import Action, ActionError, Rule, RunningProtocol
from pyryrelay.workers.rpc import Rpc

__all__ = ["BODY_ERRORS", "Reports"]

BODY_ERRORS: Final = "surrogateescape"
"""How bodies of actions, which are bytes, become texts and bytes again."""


class Reports:
    """Answers the questions of a supervisor, see `listen`.

    ``health`` returns the object of ``/healthz``, ``scrape`` one scrape of the metrics. ``others`` has further actions,
    which belong to no protocol, by name as those of protocols. ``cluster`` shows the cluster, if there is one.
    """

    def __init__(
        self,
        status: Status,
        refusals: RecentRefusals,
        actions: RelayActions,
        protocols: Mapping[str, RunningProtocol[Any]],
        health: Callable[[], Mapping[str, Any]],
        scrape: Callable[[], bytes],
        others: Mapping[str, Mapping[str, Action]] = MappingProxyType({}),
        cluster: ClusterSight | None = None,
    ) -> None:
        self._status = status
        self._refusals = refusals
        self._actions = actions
        self._protocols = protocols
        self._health = health
        self._scrape = scrape
        self._cluster = cluster
        self._protocol_actions = {name: protocol.actions() for name, protocol in protocols.items()} | {**others}

    def listen(self, rpc: Rpc) -> None:
        """Answer what comes over this connection."""
        for name, handler in {
            "about": self._about,
            "sample": self._sample,
            "status": self._object,
            "health": lambda body: self._health(),
            "metrics": lambda body: self._scrape().decode(),
            "standing": self._standing,
            "jail_add": self._jail_add,
            "jail_release": self._jail_release,
            "action": self._action,
        }.items():
            rpc.on(name, handler)

    def _about(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return what does not change: the panel of each protocol, and the names of its actions."""
        return {
            "panels": {name: asdict(protocol.panel()) for name, protocol in self._protocols.items()},
            "actions": {name: [*actions] for name, actions in self._protocol_actions.items() if actions},
        }

    def _sample(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a sample, and return it with the refusals since the last one; asked once a second."""
        snapshot = self._status.sampler.take()
        # `dataclasses.asdict` copies everything that the snapshot holds, which takes longer than all the rest.
        figures = {name: getattr(snapshot, name) for name in type(snapshot).__slots__}
        figures["refused"] = {reason: count for reason, count in snapshot.refused.items() if count}
        return {
            "snapshot": figures,
            "refusals": self._refusals.new(is_watched=bool(body.get("is_watched"))),
            "health": self._health(),
            "cluster": None if self._cluster is None else self._cluster(bool(body.get("lists_instances"))),
        }

    def _object(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object of ``GET /status``, with the number of decisions that ``decision_s`` is the mean of."""
        return self._status.object() | {"decided": self._status.sampler.decided}

    # What operators do

    def _standing(self, body: Mapping[str, Any]) -> dict[str, Any]:
        def explained() -> dict[str, Any]:
            found = self._actions.found(str(body["address"]))
            rules = {protocol: [_fields(rule) for rule in some] for protocol, some in found.rules.items()}
            return {**found._asdict(), "explanation": dict(found.explanation), "rules": rules}

        return _outcome(explained)

    def _jail_add(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return _outcome(lambda: self._actions.jail_add(ip_network(body["network"]), float(body["seconds"])))

    def _jail_release(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return _outcome(lambda: self._actions.jail_release(ip_network(body["network"])))

    def _action(self, body: Mapping[str, Any]) -> dict[str, Any] | Deferred[dict[str, Any]]:
        """Have a protocol perform an action; the answer is the text of its JSON."""
        action: Action | None = self._protocol_actions.get(body["protocol"], {}).get(body["action"])
        if action is None:
            return {"unknown": True}
        done = maybeDeferred(action, body["body"].encode("utf-8", BODY_ERRORS))
        return done.addCallbacks(lambda answer: {"ok": answer.decode("utf-8", BODY_ERRORS)}, _refused)


def _outcome(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call returns, or the operator's mistake."""
    try:
        return {"ok": call()}
    except (GuardError, ActionError) as error:
        return {"error": str(error)}


def _fields(rule: Rule) -> list[Any]:
    """Return a rule as JSON has it."""
    return [dict(field) if isinstance(field, Mapping) else field for field in rule]


def _refused(failure: Failure) -> dict[str, Any]:
    failure.trap(ActionError)
    return {"error": str(failure.value)}
