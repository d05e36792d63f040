"""What a protocol brings: the contract, and the protocols that are mounted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.echo_room import EchoKind, EchoRoom

from pyryrelay.mounts import Settings
from pyryrelay.nostr.running import Nostr
from pyryrelay.protocol.running import ProtocolKind, RunningProtocol
from pyryrelay.protocol_options import ProtocolOptions
from pyryrelay.pyry.mount import Pyry


def parameters(owner: type[Any]) -> Mapping[str, list[str]]:
    """Return the public methods of a class, with the names of their parameters."""
    return {
        name: [*inspect.signature(member).parameters]
        for name, member in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("running", [Pyry, Nostr, EchoRoom])
def test_running_protocols_take_what_the_contract_says(running: type[Any]) -> None:
    """The relay may name the arguments of each method of the contract, whichever protocol it asks."""
    theirs = parameters(running)
    assert {name: theirs.get(name) for name in parameters(RunningProtocol)} == parameters(RunningProtocol)


@pytest.mark.parametrize("kind", [*Settings.protocols, EchoKind()])
def test_kinds_have_everything_that_is_asked_before_the_start(kind: ProtocolKind) -> None:
    """An entry of the list of mounts has each method, and each property, of its half of the contract."""
    theirs = parameters(type(kind))
    for name, names in {**parameters(ProtocolKind), **parameters(ProtocolOptions)}.items():
        assert theirs[name] == names
    assert all(hasattr(kind, name) for name, _ in inspect.getmembers(ProtocolOptions, inspect.isdatadescriptor))
