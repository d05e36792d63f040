"""The part of a relay in a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.service import Machine

from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings
from pyryrelay.service import RelayService, Times
from pyryrelay.service.cluster import cluster_collectors, gate_of_member


def test_without_a_cluster_nothing_is_shared(machine: Machine, tmp_path: Path) -> None:
    """The gate has plain buckets, and there is nothing to show."""
    gate, membership = gate_of_member(Settings(), tmp_path, machine, machine.seconds, print)
    assert membership is None
    assert gate.shared_tables() == {}
    assert cluster_collectors(None) == []


def test_a_relay_starts_without_its_server(machine: Machine, tmp_path: Path) -> None:
    """It shares its quotas, has the metrics, and ends without a word about the server."""
    (tmp_path / "s").write_text("0123456789abcdefghij")
    (tmp_path / "s").chmod(0o600)
    settings = Settings(cluster=("redis+unix:///nowhere/redis.sock",), cluster_secret_file="s", jail_file="")
    service = RelayService(settings, machine, machine.seconds, Times(), base=tmp_path)
    service.startService()
    assert list(service.gate.shared_tables()) == ["upgrade", "prefix", "http"]
    assert service.membership is not None
    names = {family.name for collector in service.collectors() for family in collector.collect()}
    assert {"pyryrelay_cluster_up", "pyryrelay_cluster_charged_keys"} <= names
    for _ in range(5):
        machine.advance(1.0)
        assert service.membership.shards.clients[0].is_up is False
    service.stopService()
    for _ in range(200):
        machine.advance(0.1)
    assert service.membership.shards.clients[0].problem == "this relay stops"


def test_protocols_can_tell_other_relays_what_is_new(machine: Machine, tmp_path: Path) -> None:
    """With a cluster; without one there is nobody."""
    (tmp_path / "s").write_text("0123456789abcdefghij")
    (tmp_path / "s").chmod(0o600)
    settings = Settings(cluster=("redis+unix:///nowhere/redis.sock",), cluster_secret_file="s", jail_file="")
    member = RelayService(settings, machine, machine.seconds, Times(), base=tmp_path)
    assert member.membership is not None
    assert member._services().broadcast == member.membership.broadcasts.of
    alone = RelayService(Settings(jail_file=""), machine, machine.seconds, Times(), base=tmp_path)
    assert alone._services().broadcast is None


def test_a_secret_that_cannot_be_used_ends_the_start(machine: Machine, tmp_path: Path) -> None:
    """With the line that the command line would print."""
    settings = Settings(cluster=("redis://127.0.0.1",), cluster_secret_file="missing")
    with pytest.raises(SettingsError, match="cannot be read"):
        RelayService(settings, machine, machine.seconds, Times(), base=tmp_path)
