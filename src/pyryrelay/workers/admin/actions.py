"""The actions of the admin API on a relay with several workers, which are asked for what they alone know.

A worker that is asked and ends, or does not answer in time, makes the answer a 503. Times are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from twisted.internet import defer
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from pyryrelay.admin.api import JailEntry, JailListing, ReloadOutcome, UpgradeOutcome
from pyryrelay.admin.explain.protocols import Rules, named, refusing, rules_of, worst
from pyryrelay.admin.protocol_actions import unknown_action
from pyryrelay.admin.resources import (
    MAX_ACTION_BYTES,
    ApiError,
    ApiResource,
    ApiResponse,
    body_of,
    subpath_of,
)
from pyryrelay.cluster.operating.problems import problems
from pyryrelay.config.settings import SharedSettings, effective_settings
from pyryrelay.guard.address.clientip import TrustPolicy
from pyryrelay.guard.address.lists import CidrSet, IPAddress, IPNetwork
from pyryrelay.guard.errors import AddressError
from pyryrelay.protocol import ActionError
from pyryrelay.workers.admin.observed import ANSWER_S, READ_S, WorkersView
from pyryrelay.workers.admin.reports import BODY_ERRORS
from pyryrelay.workers.merging.clusters import merge_sights
from pyryrelay.workers.rpc import RpcError

__all__ = ["ACTION_S", "WorkersActions"]

ACTION_S: Final = 300.0
"""How long the action of a protocol may take, such as an import into a database that is busy."""


CLUSTER: Final = "cluster"


class Jailer(Protocol):
    """The jail of this process: a `pyryrelay.admin.actions.RelayActions`."""

    def jail_entries(self, limit: int) -> JailListing:
        """See `pyryrelay.admin.api.AdminActions`."""

    def jail_add(self, network: IPNetwork, seconds: float) -> JailEntry:
        """See `pyryrelay.admin.api.AdminActions`."""

    def jail_release(self, network: IPNetwork) -> str | None:
        """See `pyryrelay.admin.api.AdminActions`."""


class WorkersActions:
    """The `AdminActions` of a supervisor.

    ``settings`` returns those in force, ``trust`` the policy that follows from them, and ``steer`` the index of the
    worker that accepts the connections of an address. ``spread`` tells others what has changed in the jail, and which
    network only workers had jailed, that is released.
    ``reload``, ``upgrade`` and ``status`` are the actions of those names.
    """

    def __init__(
        self,
        view: WorkersView,
        settings: Callable[[], SharedSettings],
        trust: Callable[[], TrustPolicy],
        steer: Callable[[IPAddress], int],
        *,
        jail: Jailer,
        spread: Callable[[str | None], None],
        status: Callable[[], Deferred[Mapping[str, object]]],
        reload: Callable[[], Deferred[ReloadOutcome]],
        upgrade: Callable[[], Deferred[UpgradeOutcome]],
    ) -> None:
        self._view = view
        self._settings = settings
        self._trust = trust
        self._steer = steer
        self._jail = jail
        self._spread = spread
        self.status = status
        self.reload = reload
        self.upgrade = upgrade

    @property
    def forwarding_header(self) -> str:
        """The name of the header that the policy reads."""
        return self._trust().header

    def explain(self, peer: str | None, lines: Sequence[str]) -> Sequence[str]:
        """Explain a client address by the policy in force, step by step."""
        return self._trust().explain(peer, lines)

    def effective_settings(self) -> Sequence[Mapping[str, str]]:
        """Return the settings in force."""
        return [row._asdict() for row in effective_settings(self._settings())]

    # The jail: that of this process is the one in the file, and each worker has all of it, too

    def jail_entries(self, limit: int) -> JailListing:
        """Return clients that are jailed now. What a worker decided in the last second may be missing."""
        return self._jail.jail_entries(limit)

    def jail_add(self, network: IPNetwork, seconds: float) -> Deferred[JailEntry]:
        """Jail one client; the answer comes when all workers that answer have done so."""
        entry = self._jail.jail_add(network, seconds)
        self._spread(None)
        asked = self._view.ask_all("jail_add", network=entry.network, seconds=seconds)
        return asked.addCallback(lambda _: entry)

    def jail_release(self, network: IPNetwork) -> Deferred[str | None]:
        """Release one client; also one that a worker has jailed in this second."""
        released = self._jail.jail_release(network)
        self._spread(None)

        def first(answers: Mapping[int, Mapping[str, Any]]) -> str | None:
            if released is not None:
                return released
            found: str | None = next((one for each in answers.values() if (one := each.get("ok"))), None)
            if found is not None:
                self._spread(found)
            return found

        return self._view.ask_all("jail_release", network=str(network)).addCallback(first)

    def _ask_any(self, name: str, /, timeout_s: float = ANSWER_S, **body: object) -> Deferred[Any]:
        """Ask one worker that is up."""
        indexes = self._view.answering or self._view.serving
        if not indexes:
            return fail(_no_worker())
        return self._view.ask(indexes[0], name, timeout_s, **body).addErrback(_unanswered, indexes[0])

    # Explain

    def explain_client(self, address: str) -> Deferred[Mapping[str, object]]:
        """Explain what the worker that serves a client would decide about it now.

        That is the one that the kernel steers the client to. Behind a proxy it may be another one: the one that has
        seen the client. What a protocol knows by name is served by all workers. The Deferred fails with `AddressError`
        for what is neither.
        """
        return self._view.ask_all("standing", READ_S, address=address).addCallback(self._explained, address)

    def _explained(self, answers: Mapping[int, Mapping[str, Any]], address: str) -> Mapping[str, object]:
        if not answers:
            raise _no_worker()
        for answer in answers.values():
            if "error" in answer:
                raise AddressError(answer["error"])
        found = {index: answer["ok"] for index, answer in answers.items()}
        rules = {index: rules_of(one["rules"]) for index, one in found.items()}
        name = next((one["name"] for one in found.values() if one["name"] is not None), None)
        if name is not None:
            return named(name, worst(rules.values()))
        (network,) = CidrSet([address.strip()])
        return self._chosen(found, rules, self._steer(network.network_address))

    def _chosen(
        self, found: Mapping[int, Mapping[str, Any]], rules: Mapping[int, Rules], steered: int
    ) -> Mapping[str, object]:
        """Return the answer of the worker that serves a client, with what others say that have seen it."""
        knowing = [index for index, one in found.items() if one["is_known"]]
        index = steered if steered in knowing or not knowing else knowing[0]
        if index not in found:
            raise _no_worker(f"worker {index}, which serves this client, does not answer")
        explained: dict[str, Any] = found[index]["explanation"]
        last = self._view.workers.count - 1
        about = [_step(f"worker {index} serves it, of 0 to {last}")]
        others = [other for other in knowing if other != index]
        about += [
            _step(f"worker {other} has seen it, too, and {_verdict(found[other]['explanation'], rules[other])}")
            for other in others
        ]
        merged = {"steps": [*about, *explained["steps"]], "worker": index, "other_workers": others}
        protocols = {str(other): found[other]["explanation"]["protocols"] for other in others}
        return explained | merged | {"protocols_of_other_workers": protocols}

    # Actions of protocols

    def action_resources(self, protocols: Sequence[str]) -> dict[str, Resource]:
        """Return a resource for the actions of each of these protocols, by path."""
        return {f"/{name}": self._resource(name) for name in protocols}

    def _resource(self, protocol: str) -> Resource:
        return ApiResource({"POST": lambda request: self._act(protocol, request)}, MAX_ACTION_BYTES)

    def _act(self, protocol: str, request: Request) -> Deferred[ApiResponse]:
        """Have one worker that is up perform an action."""
        action, body = subpath_of(request), body_of(request).decode("utf-8", BODY_ERRORS)
        actions = self._view.actions.get(protocol, ())
        together = _OF_ALL.get(action) if protocol == CLUSTER else None
        if together is not None:
            asked = self._view.ask_all("action", protocol=protocol, action=action, body=body)
            return asked.addCallback(_together, together, protocol, actions)

        def respond(answer: Mapping[str, Any]) -> ApiResponse:
            if "unknown" in answer:
                raise unknown_action(protocol, actions)
            if "error" in answer:
                raise ActionError(answer["error"])
            return ApiResponse(200, answer["ok"].encode("utf-8", BODY_ERRORS))

        one = self._ask_any("action", ACTION_S, protocol=protocol, action=action, body=body)
        return one.addCallback(respond)


def _step(detail: str) -> Mapping[str, str]:
    return {"what": "worker", "state": "info", "detail": detail}


def _verdict(explained: Mapping[str, Any], rules: Rules) -> str:
    """Return what a worker would do, and what its protocols would refuse."""
    refused = refusing(rules)
    also = f"; {refused}" if refused else ""
    if explained["reason"] is None:
        return f"would admit it now{also}"
    return f"would refuse it now: {explained['reason']}{also}"


def _together(
    answers: Mapping[int, Mapping[str, Any]],
    together: Callable[[Sequence[Mapping[str, Any]]], object],
    protocol: str,
    actions: Sequence[str],
) -> ApiResponse:
    """Return what all workers answered as one answer."""
    if not answers:
        raise _no_worker()
    for answer in answers.values():
        if "unknown" in answer:
            raise unknown_action(protocol, actions)
        if "ok" not in answer:
            raise ActionError(answer["error"])
    found = [json.loads(answer["ok"]) for _, answer in sorted(answers.items())]
    return ApiResponse(200, json.dumps(together(found)).encode())


def _all_rows(found: Sequence[Mapping[str, Any]]) -> object:
    return {"instances": [row for each in found for row in each["instances"]]}


def _sights(found: Sequence[Mapping[str, Any]]) -> object:
    sight = merge_sights(found) or {}
    return {**sight, "problems": problems(sight)}


_OF_ALL: Final[Mapping[str, Callable[[Sequence[Mapping[str, Any]]], object]]] = {
    "rebalance": _all_rows,
    "instances": _sights,
}
"""The actions of a cluster that all workers perform, as each one is an instance, and how their answers become one."""


def _no_worker(problem: str = "no worker is ready") -> ApiError:
    return ApiError(503, f"{problem}: try again in a moment", **{"Retry-After": "1"})


def _unanswered(failure: Failure, index: int) -> Any:
    failure.trap(RpcError, defer.TimeoutError)
    raise _no_worker(f"worker {index} has ended, or does not answer")
