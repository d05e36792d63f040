"""The part of a relay in a cluster, for relays that have one. Most need neither Redis nor the packages for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.registry import Collector

from pyryrelay.admin.dashboard.feed import ClusterSight
from pyryrelay.cluster.secret import check_secret_file
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import Gate
from pyryrelay.protocol import Action

if TYPE_CHECKING:
    from pyryrelay.cluster.instance import Instance
    from pyryrelay.cluster.membership import Membership
    from pyryrelay.cluster.operating.overview import Overview

__all__ = ["cluster_actions", "cluster_collectors", "cluster_overview", "cluster_sight", "gate_of_member"]


def gate_of_member(
    settings: SharedSettings, base: Path, reactor: Any, now: Callable[[], float], warn: Callable[[str], object]
) -> tuple[Gate, Membership | None]:
    """Return the gate of a relay, and what shares its limits; None without a cluster. Raises `SettingsError`."""
    secret = check_secret_file(settings, base)
    if not settings.cluster:
        return Gate(), None
    from pyryrelay.cluster.membership import Membership

    membership = Membership(settings, secret, base, reactor, now, time.time, warn)
    gate = Gate(on_change=membership.wake)
    membership.join(gate)
    return gate, membership


def cluster_collectors(membership: Membership | None) -> list[Collector]:
    """Return what `/metrics` shows of a cluster."""
    if membership is None:
        return []
    from pyryrelay.cluster.metrics import ClusterCollector

    return [ClusterCollector(membership)]


def cluster_overview(
    membership: Membership | None, instance: Instance | None, now: Callable[[], float]
) -> Overview | None:
    """Return what shows operators the cluster; None without one."""
    if membership is None:
        return None
    from pyryrelay.cluster.operating.overview import Overview

    return Overview(membership.keys.name, membership, instance, now)


def cluster_sight(overview: Overview | None) -> ClusterSight | None:
    """Return what the dashboard asks; None without a cluster."""
    return None if overview is None else lambda with_instances: overview.object(with_instances=with_instances)


def cluster_actions(overview: Overview | None, of_instance: Mapping[str, Action]) -> Mapping[str, Action]:
    """Return the actions of the admin API of a member, which may be an instance; nothing without a cluster."""
    if overview is None:
        return {}
    from pyryrelay.cluster.operating.actions import member_actions

    return {**member_actions(overview), **of_instance}
