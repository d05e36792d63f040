"""The lists of Nostr, in options and files."""

from __future__ import annotations

from pyryrelay.config.sources import options_of
from pyryrelay.nostr.options.lists import ListOptions


def test_every_list_has_a_file() -> None:
    """Each list option has a twin that names files, and is empty by default."""
    options = {about.name: about for about in options_of(ListOptions)}
    lists = {name for name in options if name.startswith(("nostr-allow-", "nostr-deny-"))} - {"nostr-deny-hides"}
    plain = {name for name in lists if not name.endswith("-file")}
    assert lists - plain == {f"{name}-file" for name in plain}
    assert not any(options[name].default for name in lists)
