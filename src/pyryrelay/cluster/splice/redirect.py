"""Have the proxy in front take a connection to the instance that holds its key: ``X-Accel-Redirect``.

nginx then repeats the request to an internal location, whose name has the owner's address and a ticket. The connection
costs this process no more than a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.splice.ticket import NONCE_BYTES, Ticket, TicketError, TicketProblem, write
from pyryrelay.protocol import Page

__all__ = ["TICKET_FIELD", "redirect", "ticket_in"]

TICKET_FIELD: Final = "x-pyryrelay-ticket"
"""The field of the repeated request that has the ticket."""


def redirect(
    prefix: str, owner: Member, me: Member, secret: bytes, wall: float, random: Callable[[int], bytes]
) -> Page:
    """Return the answer that nginx carries out; ``prefix`` begins the name of its internal location.

    The ticket names no client: the proxy does, as with any request that it forwards.
    """
    ticket = write(Ticket(me.name, "", wall, random(NONCE_BYTES)), owner, secret)
    return Page(200, (("X-Accel-Redirect", f"{prefix}{owner.address}/{ticket.hex()}"),))


def ticket_in(text: str) -> bytes:
    """Return the bytes of a ticket in a field. Raises `TicketError`."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise TicketError(TicketProblem.UNREADABLE) from None
