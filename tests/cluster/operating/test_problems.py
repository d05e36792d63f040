"""What is wrong with a cluster, and what to do about it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cli.commands.test_cluster import GONE, LINK, LISTING, ROW, SENTINELS, SERVER

from pyryrelay.cluster.operating.problems import advice, problems

SIGHT = LISTING | {"is_secret_shared": True, "lease_age_s": 1.0, "on_outage": "local", "instances": [ROW]}


def kinds(**changes: Any) -> list[tuple[str, str]]:
    """Return kind and name of each problem of a sight."""
    return [(each["kind"], each["name"]) for each in problems(SIGHT | changes)]


def test_all_is_well() -> None:
    """Also if one has left, and if there are no instances."""
    assert kinds() == kinds(instances=[ROW | {"state": "left"}]) == kinds(instances=None, here=[]) == []


def test_a_server_is_away() -> None:
    """The text says where it was, and what that means for clients."""
    server = SERVER | {"name": "m@s1:1", "problem": "it refuses the user name or the password", "away_s": 9.0}
    (found,) = problems(SIGHT | {"servers": [server], "on_outage": "refuse", "lease_age_s": 50.0})
    assert (found["kind"], found["name"], found["since_s"]) == ("server_away", "m@s1:1", 9.0)
    assert found["text"] == (
        "server m@s1:1 cannot be used: it refuses the user name or the password (it was at 10.0.0.9:6379); limits hold "
        "for each process alone, and new claims are answered 503"
    )
    assert "password-file" in found["next"]
    (found,) = problems(SIGHT | {"servers": [server | {"address": ""}], "here": []})
    assert found["text"].endswith("password; limits hold for each process alone")


def test_a_sentinel_is_away() -> None:
    """It is told how many are left, and whether they can elect."""
    server = SERVER | {"sentinels": SENTINELS}
    (found,) = problems(SIGHT | {"servers": [server]})
    assert found["text"] == "sentinel s2:26379 does not answer: Connection refused; 2 of 3 answer"
    assert found["since_s"] == 42.0
    server = SERVER | {"sentinels": SENTINELS[:2]}
    (found,) = problems(SIGHT | {"servers": [server]})
    assert found["text"].endswith("; 1 of 2 answer, too few for a failover")


def test_a_sentinel_differs() -> None:
    """It calls another server the primary than the one that is used."""
    sentinels = [SENTINELS[0], SENTINELS[0] | {"name": "s9:26379", "primary": "10.0.0.8:6379"}]
    assert kinds(servers=[SERVER | {"sentinels": sentinels}]) == [("sentinel_differs", "s9:26379")]


def test_instances() -> None:
    """One has died, one is forged, and one cannot be reached from here."""
    rows = [ROW, GONE | {"keys": 1}, ROW | {"proven": False}, ROW | {"link": LINK}]
    found = problems(SIGHT | {"instances": rows})
    assert [(each["kind"], each["since_s"]) for each in found] == [
        ("instance_gone", 94.0),
        ("forged", None),
        ("instance_unreachable", 5.0),
    ]
    assert found[0]["text"] == "instance 10.0.0.1:7000 is gone without having left; it held 1 key"
    assert "Connection refused" in found[2]["text"]


def test_a_lease_and_a_secret() -> None:
    """An old lease says nothing of its own while a server is away."""
    assert kinds(lease_age_s=4.5, is_secret_shared=False) == [("secret", "relay"), ("old_lease", "10.0.0.1:7000")]
    assert kinds(lease_age_s=None) == []


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        ("10.0.0.9:6379: Connection refused", "start it"),
        ("no connection in 1 s", "firewalls"),
        ("no answer in 0.5 s", "hangs"),
        ("it refuses the user name or the password", "password-file"),
        ("it wants a password: write ?password-file=FILE at the end of the URL", "password-file"),
        ("it loads its data", "wait"),
        ("it is a replica, which cannot be written to", "failover"),
        ("it refuses to write, because it has too few replicas", "replicas"),
        ("no sentinel knows 'm' (no such name: m)", "SENTINEL MASTERS"),
        ("no sentinel knows 'm' (it closed the connection)", "sentinels"),
        ("it is redis 5.0: 6.2 or newer is needed", "change"),
        ("something new", "--check"),
    ],
)
def test_advice(problem: str, word: str) -> None:
    """Each problem has a next step."""
    assert word in advice(problem)
