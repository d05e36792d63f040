"""The options of an instance that takes connections of other instances."""

from __future__ import annotations

from typing import Any

import pytest

from pyryrelay.config.options.cluster_listen_options import ClusterListenOptions, cluster_listen_problem
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import SettingsError
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet

PEERS = TrustedProxies(CidrSet(["10.0.0.0/24"]))
WHOLE: dict[str, Any] = {
    "cluster_listen": "tcp:7000:interface=10.0.0.1",
    "cluster_advertise": "10.0.0.1:7000",
    "cluster_peers": PEERS,
}


def read(name: str, text: str) -> object:
    """Return the value that an option makes of a text."""
    return SharedSettings.by_name()[name].read((text,), "command line")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.0.0.1:7000", "10.0.0.1:7000"),
        ("[FD00::0:1]:07000", "[fd00::1]:7000"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("", ""),
        ("10.0.0.1:700{worker}", "10.0.0.1:700{worker}"),
    ],
)
def test_addresses(text: str, value: str) -> None:
    """One address has one spelling, because it is a name."""
    assert read("cluster-advertise", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "host:7000",
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:x",
        "10.0.0.1:70000",
        "fd00::1:7000",
        "[10.0.0.1]:7",
        "0.0.0.0:7",
        "[::]:7",
        "unix:",
        "unix:/a b",
        "unix:/" + "x" * 130,
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Names would be looked up for each connection, and others cannot connect to no address."""
    with pytest.raises(SettingsError):
        read("cluster-advertise", text)


@pytest.mark.parametrize("text", ["hop/", "/hop", "/", "/a b/", "/a?b/"])
def test_what_is_no_location(text: str) -> None:
    """It is put in front of an address, in a header field."""
    with pytest.raises(SettingsError):
        read("cluster-redirect", text)
    assert read("cluster-redirect", "/hop/on/") == "/hop/on/"


def test_nothing_and_everything_are_fine() -> None:
    """The defaults, and what belongs together."""
    assert cluster_listen_problem(ClusterListenOptions(), has_cluster=False) is None
    assert cluster_listen_problem(ClusterListenOptions(), has_cluster=True) is None
    assert cluster_listen_problem(ClusterListenOptions(**WHOLE), has_cluster=True) is None


@pytest.mark.parametrize(
    ("given", "has_cluster", "name"),
    [
        ({"cluster_advertise": "10.0.0.1:1"}, True, "cluster-advertise"),
        ({"cluster_peers": PEERS}, True, "cluster-peers"),
        ({"cluster_redirect": "/hop/"}, True, "cluster-redirect"),
        ({"cluster_on_outage": "refuse"}, True, "cluster-on-outage"),
        (WHOLE, False, "cluster-listen"),
        (WHOLE | {"cluster_listen": "ssl:7000"}, True, "cluster-listen"),
        (WHOLE | {"cluster_listen": "haproxy:tcp:7000"}, True, "cluster-listen"),
        (WHOLE | {"cluster_advertise": "10.0.0.1:700{worker}"}, True, "cluster-listen"),
        (WHOLE | {"cluster_advertise": ""}, True, "cluster-listen"),
        (WHOLE | {"cluster_peers": TrustedProxies(CidrSet())}, True, "cluster-listen"),
    ],
)
def test_what_does_not_belong_together(given: dict[str, Any], has_cluster: bool, name: str) -> None:
    """Each mistake names its option and a fix."""
    found = cluster_listen_problem(ClusterListenOptions(**given), has_cluster=has_cluster)
    assert found is not None
    assert found[0] == name
    assert all(found)
