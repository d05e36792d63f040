"""Who may write and read by default."""

from __future__ import annotations

from pyryrelay.nostr.kinds import PRIVATE_KINDS
from pyryrelay.nostr.options.access import AccessOptions


def test_everybody_may_write_and_read_by_default() -> None:
    """The relay is open, except for private kinds, and trusts nobody."""
    options = AccessOptions()
    assert (options.nostr_write, options.nostr_read) == ("open", "open")
    assert options.nostr_private_kinds == PRIVATE_KINDS
    assert not options.nostr_trusted
