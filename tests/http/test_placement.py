"""What a placement may answer, as its types tell it."""

from __future__ import annotations

import socket

import pytest
from tests.support.harness import ALICE, PATH, client_of, request_head
from twisted.internet.defer import Deferred, succeed

from pyryrelay.guard import Gate, Lease
from pyryrelay.http.placement import HERE, Attempt, Carrier, Place, Placement
from pyryrelay.protocol import HttpRefusal, Page, Request


class Recording:
    """A carrier that keeps what it got, or refuses it."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.is_full = is_full
        self.carried: list[Attempt] = []

    def carry(self, attempt: Attempt) -> None:
        """See `Carrier`."""
        if self.is_full:
            attempt.refuse(HttpRefusal(503, "busy"))
        else:
            self.carried.append(attempt)


class Fixed:
    """A placement that answers the same always."""

    def __init__(self, answer: Place | Deferred[Place]) -> None:
        self._answer = answer

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """See `Placement`."""
        return self._answer


def kind_of(place: Place) -> str:
    """Tell the kinds apart as callers do."""
    if place is HERE:
        return "here"
    if isinstance(place, HttpRefusal | Page):
        return "answer"
    return "carrier"


@pytest.mark.parametrize(
    ("place", "kind"),
    [(HERE, "here"), (HttpRefusal(503, "busy"), "answer"), (Page(200), "answer"), (Recording(), "carrier")],
)
def test_kinds_of_places(place: Place, kind: str) -> None:
    """A place is here, an answer, or a carrier, whether it is known at once or later."""
    at_once: Placement = Fixed(place)
    later: Placement = Fixed(succeed(place))
    found: list[Place] = []
    answer = later.place("server", "key")
    assert isinstance(answer, Deferred)
    answer.addCallback(found.append)
    now = at_once.place("server", "key")
    assert not isinstance(now, Deferred)
    assert [kind_of(each) for each in (now, *found)] == [kind, kind]


@pytest.mark.parametrize("is_full", [False, True])
def test_an_attempt_is_carried_or_given_back(is_full: bool) -> None:
    """A carrier keeps the attempt with its lease, or refuses it."""
    refused: list[HttpRefusal] = []
    lease = Gate().admit(client_of(ALICE), "server", 0.0)
    assert isinstance(lease, Lease)
    with socket.socket() as sock:
        request = Request(PATH, {}, client_of(ALICE))
        attempt = Attempt(
            request_head(),
            b"",
            "server",
            "key",
            request,
            "",
            lease,
            sock,
            (ALICE, 5),
            refused.append,
            lambda call: call(),
        )
        recording = Recording(is_full=is_full)
        carrier: Carrier = recording
        carrier.carry(attempt)
    assert recording.carried == ([] if is_full else [attempt])
    assert attempt.client is request.client
    assert refused == ([HttpRefusal(503, "busy")] if is_full else [])
    assert (attempt.head, attempt.rest) == (request_head(), b"")
