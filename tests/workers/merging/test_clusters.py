"""What several workers see of their cluster."""

from __future__ import annotations

from typing import Any

from pyryrelay.workers.merging.clusters import merge_sights, merge_summaries


def server(**others: Any) -> dict[str, Any]:
    """Return what one worker sees of a server."""
    return {"name": "a", "problem": "", "away_s": 0.0, "sentinels": [], **others}


def row(address: str, link: Any = None) -> dict[str, Any]:
    """Return what one worker sees of an instance."""
    return {"address": address, "link": link}


def sight(here: str, **others: Any) -> dict[str, Any]:
    """Return what one worker sees."""
    seen: dict[str, Any] = {
        "name": "relay",
        "here": [here],
        "members": 2,
        "is_secret_shared": True,
        "lease_age_s": 1.0,
        "on_outage": "refuse",
        "servers": [server()],
        "instances": None,
        "listed_s": None,
    }
    return {**seen, **others}


def test_no_cluster() -> None:
    """Relays without one see nothing, and neither do those whose workers have not answered yet."""
    assert merge_sights([]) is None
    assert merge_sights([None, None]) is None


def test_one_relay() -> None:
    """It has the addresses of all workers, the oldest lease, and the last list."""
    first = sight("h:0", instances=[row("old")], listed_s=9.0)
    second = sight("h:1", members=3, lease_age_s=2.5, instances=[row("new")], listed_s=0.5)
    found = merge_sights([None, first, second, sight("h:2")])
    assert found == sight("h:0") | {
        "here": ["h:0", "h:1", "h:2"],
        "members": 3,
        "lease_age_s": 2.5,
        "instances": [row("new")],
        "listed_s": 0.5,
    }


def test_what_is_wrong_with_one_is_wrong() -> None:
    """With its server, its lease, or its secret."""
    away = [server(problem="Connection refused")]
    longer = [server(problem="Connection refused", away_s=7.0)]
    found = merge_sights(
        [
            sight("h:0", servers=away),
            sight("h:1", servers=longer, lease_age_s=None),
            sight("h:2", is_secret_shared=False),
        ]
    )
    assert found is not None
    assert (found["servers"], found["lease_age_s"], found["is_secret_shared"]) == (longer, None, False)


def test_what_one_cannot_reach() -> None:
    """An instance, or a sentinel, that is away for one worker is shown as away."""
    link = {"problem": "Connection refused"}
    missing = server(sentinels=[{"problem": "Connection refused"}])
    found = merge_sights(
        [
            sight("h:0", instances=[row("x"), row("y")], listed_s=0.5, servers=[server(sentinels=[{"problem": ""}])]),
            sight("h:1", instances=[row("x", link)], listed_s=3.0, servers=[missing]),
        ]
    )
    assert found is not None
    assert (found["instances"], found["servers"]) == ([row("x", link), row("y")], [missing])


def test_summaries() -> None:
    """A problem that several workers see is told once, with the longest time."""
    away = {"kind": "server_away", "name": "a", "since_s": 3.0}
    secret = {"kind": "secret", "name": "relay", "since_s": None}
    first = {"name": "relay", "members": 2, "problems": [away, secret]}
    second = {"name": "relay", "members": 3, "problems": [away | {"since_s": 5.0}, secret]}
    found = merge_summaries([None, first, second])
    assert found == {"name": "relay", "members": 3, "problems": [away | {"since_s": 5.0}, secret]}
    assert merge_summaries([None]) is None
