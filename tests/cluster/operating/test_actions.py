"""What operators ask an instance."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cluster.test_instance import OWNER, instance
from twisted.internet.defer import Deferred, fail, succeed

from pyryrelay.cluster.directory.directory import Answer, NoOwner
from pyryrelay.cluster.directory.members import Listed, Load
from pyryrelay.cluster.operating.actions import instance_actions
from pyryrelay.cluster.redis.interface import DownError
from pyryrelay.protocol import ActionError


def asked(name: str, body: bytes = b"", *, listed: Any = None, answer: Answer | None = None) -> Any:
    """Return what an action answers, or raise its error."""
    made, _ = instance()
    made.begin("boot")
    made.directory.members = lambda: listed  # type: ignore[method-assign]
    looked: Any = succeed(answer)
    made.directory.look = lambda key: looked  # type: ignore[method-assign]
    results: list[Any] = []
    found = instance_actions(made)[name](body)
    assert isinstance(found, Deferred)
    found.addBoth(results.append)
    if isinstance(results[0], bytes):
        return json.loads(results[0])
    raise results[0].value


def test_instances_are_listed() -> None:
    """Each with its lease, and what it has to do."""
    found = asked("instances", listed=succeed([Listed(OWNER, 2.5, True, Load(3, 2, 1, 9))]))
    assert (found["name"], found["here"]) == ("relay", "10.0.0.1:7000")
    assert found["instances"] == [
        {
            "address": OWNER.address,
            "boot": "b2",
            "lease_s": 2.5,
            "renewed_s": 3.5,
            "proven": True,
            "keys": 3,
            "spliced": 2,
            "arrived": 1,
            "connections": 9,
        }
    ]


def test_a_server_that_is_away_is_an_error() -> None:
    """The line says so."""
    with pytest.raises(ActionError, match="away"):
        asked("instances", listed=fail(DownError("it is away")))


@pytest.mark.parametrize(
    ("answer", "address"), [(OWNER, OWNER.address), (NoOwner.HERE, "10.0.0.1:7000"), (NoOwner.NOBODY, None)]
)
def test_where_a_key_is(answer: Answer, address: str | None) -> None:
    """At another instance, here, or nowhere."""
    assert asked("where", b'{"key": "x"}', answer=answer) == {"address": address}


@pytest.mark.parametrize("answer", [NoOwner.WAIT, NoOwner.DOWN, NoOwner.FORGED])
def test_where_it_cannot_be_told(answer: NoOwner) -> None:
    """There is an error for it."""
    with pytest.raises(ActionError):
        asked("where", b'{"key": "x"}', answer=answer)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"key": 1}', b'{"key": ""}', b'{"key": "%b"}' % (b"x" * 2000)])
def test_bodies_that_name_no_key(body: bytes) -> None:
    """The error shows what to send."""
    with pytest.raises(ActionError, match="send"):
        asked("where", body)
