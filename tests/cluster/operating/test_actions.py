"""What operators ask an instance."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli.commands.test_cluster import LISTING
from tests.cluster.operating.test_rebalance import Here
from tests.cluster.test_instance import OWNER, instance
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from pyryrelay.cluster.directory.directory import Answer, NoOwner
from pyryrelay.cluster.directory.members import Listed, Load
from pyryrelay.cluster.operating.actions import instance_actions, member_actions
from pyryrelay.cluster.operating.problems import problems
from pyryrelay.cluster.operating.rebalance import Rebalance
from pyryrelay.cluster.redis.interface import DownError
from pyryrelay.protocol import ActionError

LISTED = Listed(OWNER, 2.5, True, Load(3, 2, 1, 9))
ROW = {
    "address": OWNER.address,
    "boot": "b2",
    "state": "up",
    "lease_s": 2.5,
    "renewed_s": 3.5,
    "gone_s": None,
    "proven": True,
    "link": None,
    "keys": 3,
    "spliced": 2,
    "arrived": 1,
    "connections": 9,
}
"""What operators see of it."""


def asked(name: str, body: bytes = b"", *, answer: Answer | None = None) -> Any:
    """Return what an action answers, or raise its error."""
    made, clock = instance()
    made.begin("boot")
    looked: Any = succeed(answer)
    made.directory.look = lambda key: looked  # type: ignore[method-assign]
    results: list[Any] = []
    found = instance_actions(made, Rebalance(Here(0), bool, float, clock.callLater))[name](body)
    assert isinstance(found, Deferred)
    found.addBoth(results.append)
    if isinstance(results[0], bytes):
        return json.loads(results[0])
    raise results[0].value


def test_a_cluster_is_shown_with_its_problems() -> None:
    """All members do that, instances or not."""
    sight = LISTING | {"is_secret_shared": False, "lease_age_s": 1.0, "on_outage": "local"}
    overview: Any = SimpleNamespace(fresh=lambda: succeed(sight))
    results: list[Any] = []
    maybeDeferred(member_actions(overview)["instances"], b"").addBoth(results.append)
    found = json.loads(results[0])
    assert found == sight | {"problems": problems(sight)}
    assert found["problems"][0]["kind"] == "secret"


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


class Moving:
    """An instance with ten keys, two of which its peers come to by others, while another instance has none."""

    def __init__(self) -> None:
        self.instance, self.clock = instance()
        self.instance.begin("boot")
        self.here = Here(10)
        for key in ("k2", "k7"):
            self.instance.strays.note(key)
        self.listed: Any = succeed(
            [Listed(self.instance.directory.member, 5.0, True, Load(10)), Listed(OWNER, 5.0, True, Load(0))]
        )
        self.instance.directory.members = lambda: self.listed  # type: ignore[method-assign]
        rebalance = Rebalance(self.here, self.instance.strays.__contains__, self.clock.seconds, self.clock.callLater)
        self._act = instance_actions(self.instance, rebalance)["rebalance"]

    def act(self, **body: object) -> Any:
        """Return the only row of the answer."""
        results: list[Any] = []
        maybeDeferred(self._act, json.dumps(body).encode()).addBoth(results.append)
        if not isinstance(results[0], bytes):
            raise results[0].value
        (row,) = json.loads(results[0])["instances"]
        return row


def test_a_plan_moves_nothing() -> None:
    """It tells how many keys are too many, and how many of them the balancer sends elsewhere."""
    moving = Moving()
    row = moving.act(do="plan")
    assert row == {
        "address": "10.0.0.1:7000",
        "keys": 10,
        "to_move": 0,
        "moved": 0,
        "back": 0,
        "left_s": 0.0,
        "share": 5,
        "planned": 5,
        "astray": 2,
    }
    assert moving.here.moves == []


def test_keys_are_moved() -> None:
    """Those that stray first; meanwhile it tells how far it is, and takes no other order but to stop."""
    moving = Moving()
    row = moving.act(do="start", over_s=10)
    assert (row["planned"], row["to_move"], row["moved"], row["left_s"]) == (5, 4, 1, 10.0)
    with pytest.raises(ActionError, match="already"):
        moving.act(do="start")
    moving.clock.advance(2.0)
    assert set(moving.here.moves) == {"k2", "k7"}
    assert moving.act()["moved"] == 2
    assert moving.act(do="stop")["to_move"] == 0
    moving.clock.advance(20.0)
    assert len(moving.here.moves) == 2


def test_what_cannot_be_moved() -> None:
    """Without the directory nobody knows how many are too many, and an instance that leaves moves everything."""
    moving = Moving()
    moving.listed = fail(DownError("it is away"))
    with pytest.raises(ActionError, match="away"):
        moving.act(do="start")
    moving.instance.directory.hand_over()
    with pytest.raises(ActionError, match="leaves"):
        moving.act(do="start")


@pytest.mark.parametrize(
    "body",
    [{"do": "x"}, {"do": 1}, {"over_s": -1}, {"over_s": 1e9}, {"over_s": "x"}, {"over_s": None}, {"over_s": 10**400}],
)
def test_bodies_that_are_no_order(body: dict[str, object]) -> None:
    """The error shows what to send."""
    with pytest.raises(ActionError, match="send"):
        Moving().act(**body)


def test_a_body_that_is_no_object() -> None:
    """It is no order either."""
    made, clock = instance()
    made.begin("boot")
    act = instance_actions(made, Rebalance(Here(0), bool, float, clock.callLater))["rebalance"]
    for body in (b"[]", b"{", b'"look"', b"1"):
        with pytest.raises(ActionError, match="send"):
            act(body)
