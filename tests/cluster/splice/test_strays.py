"""Keys whose peers came by another instance."""

from __future__ import annotations

from pyryrelay.cluster.splice.strays import Strays


def test_keys_are_remembered() -> None:
    """Until they are forgotten, or too many others have come since."""
    strays = Strays(2)
    for key in ("a", "b", "a", "c"):
        strays.note(key)
    assert ("a" in strays, "b" in strays, "c" in strays) == (True, False, True)
    strays.forget("a")
    strays.forget("never")
    assert "a" not in strays
