"""The groups of Nostr's options."""

from __future__ import annotations

from pyryrelay.config.groups import GROUPS
from pyryrelay.nostr.options import groups


def test_groups_are_of_this_protocol() -> None:
    """Titles say Nostr, and none is that of a shared group."""
    titles = [value for name, value in vars(groups).items() if name.isupper()]
    assert all(title.startswith("Nostr") for title in titles)
    assert not {*titles} & {*GROUPS}
