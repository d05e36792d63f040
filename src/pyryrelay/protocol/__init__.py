"""The interface between the transport and a protocol: what each may ask of the other.

A protocol brings a `ProtocolKind`, which `pyryrelay.mounts` lists and ``service`` builds. What it builds mounts an
`Application` on each of its paths. The transport asks an application, in this order and nothing else:
`Application.gate_headers` before the upgrade, `Application.opened` when the upgrade is complete, then
`Session.messages` and, exactly once, `Session.closed`; and `Application.http` for a request that asks for no upgrade.
In return the application holds a `Peer`, and knows nothing else about the connection.

Messages travel in batches: all whole messages of one received chunk at once, so that a protocol can write once per
peer. One message is a batch of one. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from pyryrelay.protocol.application import Application, Peer, PeerPolicy, Session
from pyryrelay.protocol.explaining import Named, Rule
from pyryrelay.protocol.operating import Action, ActionError, Figure, Panel, Plot
from pyryrelay.protocol.requests import (
    Fields,
    Headers,
    HttpAnswer,
    HttpRefusal,
    HttpRequest,
    Message,
    Page,
    RepeatedHeaderError,
    Request,
    only_value,
)
from pyryrelay.protocol.running import Predecessor, ProtocolKind, RunningProtocol
from pyryrelay.protocol.services import (
    Cancellable,
    Child,
    ChildStarter,
    LineWriter,
    QuotaSharing,
    Services,
    SharedStarter,
)

__all__ = [
    "Action",
    "ActionError",
    "Application",
    "Cancellable",
    "Child",
    "ChildStarter",
    "Fields",
    "Figure",
    "Headers",
    "HttpAnswer",
    "HttpRefusal",
    "HttpRequest",
    "LineWriter",
    "Message",
    "Named",
    "Page",
    "Panel",
    "Peer",
    "PeerPolicy",
    "Plot",
    "Predecessor",
    "ProtocolKind",
    "QuotaSharing",
    "RepeatedHeaderError",
    "Request",
    "Rule",
    "RunningProtocol",
    "Services",
    "Session",
    "SharedStarter",
    "only_value",
]
