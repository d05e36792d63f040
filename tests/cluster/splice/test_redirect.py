"""Redirects that the proxy in front carries out."""

from __future__ import annotations

import os

import pytest

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.splice.redirect import redirect, ticket_in
from pyryrelay.cluster.splice.ticket import Nonces, TicketError, read

SECRET = b"secret"
ME = Member("10.0.0.1:7000", "b1", "10.0.0.1:7000")
OWNER = Member("10.0.0.2:7000", "b2", "10.0.0.2:7000")


def test_the_location_has_the_address_and_a_ticket() -> None:
    """The owner can read the ticket, which names no client."""
    page = redirect("/hop/", OWNER, ME, SECRET, 1000.0, os.urandom)
    ((name, location),) = page.fields
    assert (page.status, name) == (200, "X-Accel-Redirect")
    _, prefix, address, text = location.split("/")
    assert (prefix, address) == ("hop", OWNER.address)
    ticket = read(ticket_in(text), OWNER, SECRET, 1000.0, Nonces())
    assert (ticket.sender, ticket.client) == (ME.name, "")


def test_what_is_no_hexadecimal_is_no_ticket() -> None:
    """The one error of tickets is raised."""
    with pytest.raises(TicketError):
        ticket_in("zz")
