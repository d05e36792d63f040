"""The actions of protocols in the admin API: ``POST /<protocol>/<action>`` hands the body to one.

They have the protection of all requests that change something, and longer bodies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from pyryrelay.admin.resources import (
    MAX_ACTION_BYTES,
    ApiError,
    ApiResource,
    ApiResponse,
    alternatives,
    body_of,
    subpath_of,
)
from pyryrelay.protocol import Action

__all__ = ["action_resources", "unknown_action"]


def action_resources(protocols: Mapping[str, Mapping[str, Action]]) -> dict[str, Resource]:
    """Return the resources of the protocols that have actions, by path, for `pyryrelay.admin.site.admin_site`.

    ``protocols`` has the actions of each protocol, by the name of the protocol.
    """
    return {
        f"/{name}": ApiResource({"POST": partial(_act, name, actions)}, MAX_ACTION_BYTES)
        for name, actions in protocols.items()
        if actions
    }


def _act(protocol: str, actions: Mapping[str, Action], request: Request) -> Deferred[ApiResponse]:
    action = actions.get(subpath_of(request))
    if action is None:
        raise unknown_action(protocol, [*actions])
    return maybeDeferred(action, body_of(request)).addCallback(partial(ApiResponse, 200))


def unknown_action(protocol: str, actions: Sequence[str]) -> ApiError:
    """Return the error for an action that a protocol does not have."""
    known = f": use {alternatives(f'/{protocol}/{name}' for name in actions)}" if actions else ""
    return ApiError(404, f"there is no such action{known}")
