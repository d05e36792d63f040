"""Admission control that any asynchronous server can use on its own: standard library only, no I/O, no clock.

The caller passes the client's address and the time. The guard admits the client, with a lease, or refuses it, with a
status and a wait::

    from pyryrelay.guard import CidrSet, Gate, GateConfig, Lease, Quota, TrustPolicy

    trust = TrustPolicy(trust_forwarded=True, proxies=CidrSet("10.0.0.0/8"))
    gate = Gate(GateConfig(upgrade_quota=Quota.parse("10/minute burst 20")))

    # for each attempt, with the peer's address and the lines of the policy's header (default X-Forwarded-For)
    client = trust.derive("10.0.0.7", ["198.51.100.4"])
    answer = gate.admit(client, "/chat", clock.seconds())
    if isinstance(answer, Lease):
        with answer:                 # or call answer.release() when the connection is gone
            ...
    else:
        # send answer.status, answer.phrase and answer.retry_after_header
        gate.strike(client, answer.reason, clock.seconds())

    # about once a second
    gate.sweep(clock.seconds())

The parts work alone as well: `decide` is one bucket without state, `Buckets` is many of them in bounded memory, for
keys of any type, `Leases` counts open connections, `Throttle` limits how fast one connection sends, and `CidrSet` looks
addresses up.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from pyryrelay.guard.address.clientip import ClientAddress, TrustPolicy, client_address
from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.guard.address.forwarded import forwarded_for
from pyryrelay.guard.address.keys import (
    ADDRESS_LADDER,
    AddressKey,
    address_key,
    coarser,
    covering_prefix,
    network_of,
)
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.client import Client
from pyryrelay.guard.errors import AddressError, CidrError, GuardError, LimitError, QuotaSyntaxError, TrustError
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.jail import Jail, JailPolicy, News, Sentence
from pyryrelay.guard.jitter import Jitter
from pyryrelay.guard.leases import CapReason, Held, Lease, LeaseLimits, Leases
from pyryrelay.guard.rate.buckets import Buckets, Level, Tracking
from pyryrelay.guard.rate.cluster_buckets import ClusterBuckets, Debt, Spent
from pyryrelay.guard.rate.gcra import RESOLUTION_S, Decision, decide
from pyryrelay.guard.rate.ladder import HashLadder, Ladder
from pyryrelay.guard.rate.quota import ByteQuota, Quota
from pyryrelay.guard.rate.tables import HashedDict, ShardedDict, SortedTable, Table
from pyryrelay.guard.rate.throttle import Throttle, ThrottlePolicy
from pyryrelay.guard.rate.worker_buckets import WorkerBuckets
from pyryrelay.guard.refusal import Reason, Refusal
from pyryrelay.guard.standing import Standing

__all__ = [
    "ADDRESS_LADDER",
    "RESOLUTION_S",
    "AddressError",
    "AddressKey",
    "Buckets",
    "ByteQuota",
    "CapReason",
    "CidrError",
    "CidrSet",
    "Client",
    "ClientAddress",
    "ClusterBuckets",
    "Debt",
    "Decision",
    "Gate",
    "GateConfig",
    "GuardError",
    "HashLadder",
    "HashedDict",
    "Held",
    "Jail",
    "JailPolicy",
    "Jitter",
    "Ladder",
    "Lease",
    "LeaseLimits",
    "Leases",
    "Level",
    "LimitError",
    "Nat64Prefix",
    "News",
    "Quota",
    "QuotaSyntaxError",
    "Reason",
    "Refusal",
    "Sentence",
    "ShardedDict",
    "SortedTable",
    "Spent",
    "Standing",
    "Table",
    "Throttle",
    "ThrottlePolicy",
    "Tracking",
    "TrustError",
    "TrustPolicy",
    "WorkerBuckets",
    "address_key",
    "client_address",
    "coarser",
    "covering_prefix",
    "decide",
    "forwarded_for",
    "network_of",
]
