"""The gate: one decision, asked at three depths."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.client import Client
from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.jail import JailPolicy
from pyryrelay.guard.leases import Lease, LeaseLimits
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import CAP_RETRY_AFTER_S, Reason, Refusal

QUOTA = Quota.parse("1/10s burst 2")
SMALL = GateConfig(upgrade_quota=QUOTA)
OFF = GateConfig(upgrade_quota=None)


def client(text: str) -> ClientAddress:
    """Return a client address."""
    found = client_address(text)
    assert found is not None
    return found


ALICE, NEIGHBOUR, BOB = client("192.0.2.1"), client("192.0.2.2"), client("2001:db8::1")


def admitted(gate: Gate, address: ClientAddress, now: float = 0.0) -> Lease:
    """Admit a client that must be admitted, and return its lease."""
    answer = gate.admit(address, "/a", now)
    assert isinstance(answer, Lease)
    return answer


def test_the_default_gate_is_ten_a_minute_with_a_burst_of_twenty() -> None:
    """By default 20 attempts pass at once and the next one after 6 s."""
    gate = Gate()
    for _ in range(20):
        admitted(gate, ALICE, 5.0)
    assert gate.admit(ALICE, "/a", 5.0) == Refusal(429, Reason.RATE_LIMIT, 6.0, gate.config.upgrade_quota)
    assert gate.tracked == 1
    admitted(gate, BOB, 5.0)
    admitted(gate, ALICE, 11.0)


def test_configuration_that_cannot_be_enforced_is_refused() -> None:
    """A gate whose table is too small is an error."""
    with pytest.raises(GuardError, match="max_tracked 10 "):
        Gate(GateConfig(max_tracked=10))


class TestQuota:
    """Tokens are spent once per attempt."""

    def test_peek_never_spends_and_names_the_same_refusal(self) -> None:
        """Any number of peeks changes no bucket, and a peeked refusal equals that of `admit`."""
        gate = Gate(SMALL)
        for _ in range(10):
            assert gate.peek(ALICE, "/a", 0.0) is None
        assert gate.tracked == 0
        admitted(gate, ALICE)
        admitted(gate, ALICE)
        assert (
            gate.peek(ALICE, "/a", 3.0) == gate.admit(ALICE, "/a", 3.0) == Refusal(429, Reason.RATE_LIMIT, 7.0, QUOTA)
        )

    def test_spend_takes_the_token_of_a_bad_attempt(self) -> None:
        """An attempt that fails for another reason costs a token and no place."""
        gate = Gate(SMALL)
        assert gate.spend(ALICE, 0.0) is None
        assert gate.spend(ALICE, 0.0) is None
        assert gate.spend(ALICE, 0.0) == Refusal(429, Reason.RATE_LIMIT, 10.0, QUOTA)
        assert gate.leases.connections == 0

    def test_refuse_costs_what_admit_would_take(self) -> None:
        """A refusal by a cap spends the token, one by a quota does not, and without one nothing is spent."""
        gate = Gate(replace(SMALL, limits=LeaseLimits(max_connections_per_address=1)))
        assert gate.refuse(ALICE, "/a", 0.0) is None
        assert gate.tracked == 0
        admitted(gate, ALICE)
        assert gate.refuse(ALICE, "/a", 0.0) == Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S)
        foretold = gate.peek(ALICE, "/a", 0.0)
        assert foretold == gate.refuse(ALICE, "/a", 0.0) == Refusal(429, Reason.RATE_LIMIT, 10.0, QUOTA)
        assert gate.refuse(None, "/a", 0.0) == gate.peek(None, "/a", 0.0)

    def test_unattributable_attempts_are_refused_without_a_bucket(self) -> None:
        """Without an address the refusal is 429 with a short wait, and nothing is tracked."""
        gate = Gate(SMALL)
        refusal = Refusal(429, Reason.UNATTRIBUTABLE, CAP_RETRY_AFTER_S)
        assert gate.peek(None, "/a", 0.0) == gate.spend(None, 0.0) == gate.admit(None, "/a", 0.0) == refusal
        assert gate.tracked == 0

    def test_sweeps_forget_idle_clients(self) -> None:
        """The gate's sweep frees what its buckets no longer need."""
        gate = Gate(SMALL)
        admitted(gate, ALICE)
        for now in (1.0, 30.0):
            gate.sweep(now)
        assert gate.tracked == 0

    def test_without_a_quota_nothing_is_spent(self) -> None:
        """A quota that is off admits any number and tracks no address; caps still hold."""
        gate = Gate(replace(OFF, limits=LeaseLimits(max_connections_per_address=30)))
        for _ in range(30):
            assert gate.spend(ALICE, 0.0) is None
            admitted(gate, ALICE)
        assert gate.admit(ALICE, "/a", 0.0) == Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S)
        gate.sweep(1.0)
        assert gate.tracked == 0


class TestPrefixQuota:
    """The quota that addresses of a prefix share."""

    SHARED = Quota.parse("1/5s burst 3")

    def test_neighbours_share_it(self) -> None:
        """All addresses of a /24 share a quota, and other prefixes are not affected."""
        gate = Gate(replace(OFF, prefix_quota=self.SHARED))
        for address in (ALICE, NEIGHBOUR, client("192.0.2.3")):
            admitted(gate, address)
        refusal = Refusal(429, Reason.PREFIX_RATE_LIMIT, 5.0, self.SHARED)
        assert gate.peek(ALICE, "/a", 0.0) == gate.spend(NEIGHBOUR, 0.0) == refusal
        assert gate.admit(ALICE, "/a", 0.0) == refusal._replace(retry_after_s=10.0)
        admitted(gate, BOB)
        admitted(gate, ALICE, 5.0)
        assert gate.tracked == 2

    def test_a_refusal_by_one_quota_spends_from_neither(self) -> None:
        """A refusal by the quota of the address or of the prefix spends no token of either."""
        gate = Gate(replace(SMALL, prefix_quota=self.SHARED))
        admitted(gate, ALICE)
        admitted(gate, ALICE)
        for number in range(1, 6):
            assert gate.admit(ALICE, "/a", 0.0) == Refusal(429, Reason.RATE_LIMIT, 10.0 * number, QUOTA)
        admitted(gate, NEIGHBOUR)
        refusal = gate.admit(NEIGHBOUR, "/a", 0.0)
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.PREFIX_RATE_LIMIT
        admitted(gate, NEIGHBOUR, 5.0)

    def test_the_longer_wait_is_told(self) -> None:
        """If both quotas refuse, the one with the longer wait is named."""
        slow = Quota.parse("1/30s burst 2")
        gate = Gate(replace(SMALL, prefix_quota=slow))
        admitted(gate, ALICE)
        admitted(gate, ALICE)
        assert gate.admit(ALICE, "/a", 0.0) == Refusal(429, Reason.PREFIX_RATE_LIMIT, 30.0, slow)

    def test_clients_that_are_folded_to_more_than_a_48_are_a_prefix_each(self) -> None:
        """For clients with a prefix as coarse as /48 both quotas count the same client."""
        gate = Gate(replace(OFF, prefix_quota=self.SHARED))
        found = client_address("2001:db8::1", ipv6_prefix=32)
        assert found is not None
        for _ in range(3):
            admitted(gate, found)
        assert gate.peek(found, "/a", 0.0) == Refusal(429, Reason.PREFIX_RATE_LIMIT, 5.0, self.SHARED)
        assert gate.peek(BOB, "/a", 0.0) is None


class TestRequest:
    """Requests that ask for no upgrade."""

    ASKING = GateConfig(http_quota=Quota.parse("1/10s burst 2"))

    def test_requests_have_a_quota_of_their_own(self) -> None:
        """Plain requests spend no token of upgrades, and take no place."""
        gate = Gate(self.ASKING)
        assert gate.request(ALICE, 0.0) is None
        assert gate.request(ALICE, 0.0) is None
        assert gate.request(ALICE, 4.0) == Refusal(429, Reason.HTTP_RATE_LIMIT, 6.0, self.ASKING.http_quota)
        assert gate.request(BOB, 4.0) is None
        assert gate.peek(ALICE, "/a", 4.0) is None
        assert gate.request(ALICE, 10.0) is None
        assert (gate.tracked, gate.leases.connections) == (2, 0)

    def test_requests_without_an_address_are_refused_only_if_there_is_a_quota(self) -> None:
        """Without a quota a request needs no address."""
        assert Gate(self.ASKING).request(None, 0.0) == Refusal(429, Reason.UNATTRIBUTABLE, CAP_RETRY_AFTER_S)
        assert Gate().request(None, 0.0) is None

    @pytest.mark.parametrize("config", [ASKING, GateConfig()])
    def test_lists_hold_for_requests(self, config: GateConfig) -> None:
        """Allowed addresses have no quota, and denied ones get 403, quota or not."""
        gate = Gate(replace(config, allow=CidrSet(["192.0.2.1"]), deny=CidrSet(["192.0.2.0/24"])))
        for _ in range(5):
            assert gate.request(ALICE, 0.0) is None
            assert gate.request(NEIGHBOUR, 0.0) == Refusal(403, Reason.DENIED, None)
        assert gate.tracked == 0

    def test_requests_behind_a_proxy_without_a_client_address(self) -> None:
        """Requests behind a proxy without a client address have a bucket of their own; all UNIX sockets share one."""
        gate = Gate(self.ASKING)
        for proxy in (ALICE, BOB, None):
            assert [gate.request_by_proxy(proxy, 4.0) for _ in range(3)] == [
                None,
                None,
                Refusal(429, Reason.HTTP_RATE_LIMIT, 10.0, self.ASKING.http_quota),
            ]
            if proxy is not None:
                assert gate.request(proxy, 4.0) is None
        assert Gate().request_by_proxy(ALICE, 0.0) is None

    def test_requests_are_forgotten_too(self) -> None:
        """The gate's sweep frees what every quota no longer needs."""
        gate = Gate(replace(self.ASKING, prefix_quota=Quota.parse("9/10s")))
        gate.request(ALICE, 0.0)
        admitted(gate, ALICE)
        assert gate.tracked == 3
        for now in (1.0, 200.0, 400.0):
            gate.sweep(now)
        assert gate.tracked == 0


class TestHandshakes:
    """TLS handshakes, which are paid for before any request."""

    CONFIG = GateConfig(tls_quota=Quota.parse("1/10s burst 2"), tls_prefix_quota=Quota.parse("1/10s burst 3"))

    def test_an_address_has_a_quota(self) -> None:
        """A handshake spends no token of other quotas, and a refusal spends none at all."""
        gate = Gate(self.CONFIG)
        assert [gate.handshake(ALICE, 0.0) for _ in range(2)] == [None, None]
        assert gate.handshake(ALICE, 4.0) == Refusal(429, Reason.TLS_RATE_LIMIT, 6.0, self.CONFIG.tls_quota)
        assert gate.peek(ALICE, "/a", 4.0) is None
        assert gate.handshake(ALICE, 10.0) is None
        assert gate.tracked == 2

    def test_a_prefix_has_one_too(self) -> None:
        """All addresses of a prefix share a second quota, and a refusal spends neither token."""
        gate = Gate(self.CONFIG)
        assert [gate.handshake(ALICE, 0.0) for _ in range(2)] == [None, None]
        assert gate.handshake(NEIGHBOUR, 0.0) is None
        for _ in range(3):
            refusal = gate.handshake(NEIGHBOUR, 4.0)
            assert refusal == Refusal(429, Reason.TLS_PREFIX_RATE_LIMIT, 6.0, self.CONFIG.tls_prefix_quota)
        assert gate.handshake(BOB, 4.0) is None
        assert gate.handshake(NEIGHBOUR, 10.0) is None
        gate.configure(replace(self.CONFIG, tls_prefix_quota=None), 10.0)
        assert gate.handshake(NEIGHBOUR, 10.0) is None
        assert gate.handshake(NEIGHBOUR, 10.0) == Refusal(429, Reason.TLS_RATE_LIMIT, 10.0, self.CONFIG.tls_quota)

    @pytest.mark.parametrize("change", [{"allow": CidrSet(["192.0.2.1"])}, {"jail_exempt": CidrSet(["192.0.2.1"])}])
    def test_some_are_exempt(self, change: dict[str, CidrSet]) -> None:
        """Allowed addresses, trusted proxies and peers without an address are exempt."""
        gate = Gate(replace(self.CONFIG, **change))  # type: ignore[arg-type]
        assert all(gate.handshake(address, 0.0) is None for address in (ALICE, None) for _ in range(9))
        assert gate.tracked == 0

    @pytest.mark.parametrize("name", ["tls_quota", "tls_prefix_quota"])
    def test_either_may_be_off(self, name: str) -> None:
        """A quota that is off refuses no handshake, the other one holds, and a reload keeps its buckets."""
        gate = Gate(replace(self.CONFIG, **{name: None}))  # type: ignore[arg-type]
        allowed = [gate.handshake(ALICE, 0.0) is None for _ in range(4)]
        assert allowed == ([True, True, True, False] if name == "tls_quota" else [True, True, False, False])
        gate.configure(replace(gate.config, max_tracked=5000), 0.0)
        assert gate.handshake(ALICE, 0.0) is not None
        gate.configure(GateConfig(), 0.0)
        assert all(gate.handshake(ALICE, 0.0) is None for _ in range(9))


class TestLeaving:
    """Connections that end without a request."""

    def test_once_a_second_is_nothing(self) -> None:
        """One a second, as load balancers make, is no strike; more is, also after a reload."""
        gate = Gate()
        assert not any(gate.closed_early(ALICE, float(second)) for second in range(600))
        assert [gate.closed_early(BOB, 0.0) for _ in range(62)].count(True) == 2
        gate.configure(GateConfig(max_tracked=1000), 0.0)
        assert gate.closed_early(BOB, 0.0)
        assert not gate.closed_early(BOB, 1.0)

    def test_exempt_clients_may_leave_at_any_rate(self) -> None:
        """Addresses that are never jailed, and peers without an address, get no strikes."""
        lists = GateConfig(allow=CidrSet(["192.0.2.1"]), jail_exempt=CidrSet(["192.0.2.2"]))
        gate = Gate(lists)
        assert not any(
            gate.closed_early(one, 0.0) for one in (ALICE, NEIGHBOUR, client("127.0.0.1"), None) for _ in range(99)
        )
        assert gate.tracked == 0


class TestLists:
    """Deny refuses, allow exempts from deny and quota."""

    def test_denied_clients_are_refused_everywhere_and_spend_nothing(self) -> None:
        """A denied address gets 403 at every depth, and spends no token."""
        gate = Gate(replace(SMALL, deny=CidrSet(["192.0.2.0/24"])))
        refusal = Refusal(403, Reason.DENIED, None)
        assert gate.arrive(ALICE, 0.0) == refusal
        assert gate.peek(ALICE, "/a", 0.0) == gate.spend(ALICE, 0.0) == gate.admit(ALICE, "/a", 0.0) == refusal
        assert (gate.tracked, gate.leases.handshakes, gate.leases.connections) == (0, 0, 0)
        admitted(gate, BOB)

    def test_allowed_clients_have_no_quota_but_caps(self) -> None:
        """An allowed address spends no tokens and is still capped."""
        limits = LeaseLimits(max_connections_per_address=5)
        gate = Gate(replace(SMALL, allow=CidrSet(["192.0.2.1"]), limits=limits))
        for _ in range(5):
            assert gate.peek(ALICE, "/a", 0.0) is None
            assert gate.spend(ALICE, 0.0) is None
            admitted(gate, ALICE)
        assert gate.tracked == 0
        refusal = Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S)
        assert gate.peek(ALICE, "/a", 0.0) == gate.admit(ALICE, "/a", 0.0) == refusal

    def test_who_is_allowed(self) -> None:
        """Only addresses on the allow list are allowed, and the machine itself only if it is on it."""
        gate = Gate(replace(SMALL, allow=CidrSet(["192.0.2.1"])))
        assert [gate.is_allowed(address) for address in (ALICE, client("127.0.0.1"))] == [True, False]

    def test_allow_wins_over_deny(self) -> None:
        """An address on both lists is admitted."""
        gate = Gate(replace(SMALL, allow=CidrSet(["192.0.2.1"]), deny=CidrSet(["192.0.2.0/24"])))
        assert isinstance(gate.arrive(ALICE, 0.0), Lease)
        admitted(gate, ALICE)
        assert gate.admit(client("192.0.2.2"), "/a", 0.0) == Refusal(403, Reason.DENIED, None)


class TestCaps:
    """Caps are checked after the quota, the global one first."""

    def test_global_cap(self) -> None:
        """With every place taken every client gets 503."""
        gate = Gate(replace(SMALL, limits=LeaseLimits(max_connections=1, max_connections_per_address=1)))
        lease = admitted(gate, ALICE)
        refusal = Refusal(503, Reason.GLOBAL_CAP, CAP_RETRY_AFTER_S)
        assert gate.peek(ALICE, "/a", 0.0) == gate.admit(ALICE, "/a", 0.0) == refusal
        assert gate.admit(BOB, "/a", 0.0) == refusal
        lease.release()
        admitted(gate, BOB)

    def test_an_attempt_that_meets_a_cap_has_spent_its_token(self) -> None:
        """Attempts that a cap refuses empty the bucket, and then the quota refuses them."""
        gate = Gate(replace(SMALL, limits=LeaseLimits(max_connections_per_address=1)))
        admitted(gate, ALICE)
        assert gate.admit(ALICE, "/a", 0.0) == Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S)
        assert gate.admit(ALICE, "/a", 0.0) == Refusal(429, Reason.RATE_LIMIT, 10.0, QUOTA)

    @pytest.mark.parametrize(
        ("limits", "refusal"),
        [
            (LeaseLimits(max_per_route={"/a": 1}), Refusal(503, Reason.ROUTE_CAP, CAP_RETRY_AFTER_S)),
            (LeaseLimits(max_per_route_and_address={"/a": 1}), Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S)),
            (LeaseLimits(max_connections_per_prefix=1), Refusal(429, Reason.PREFIX_CAP, CAP_RETRY_AFTER_S)),
        ],
    )
    def test_caps_of_routes_and_prefixes(self, limits: LeaseLimits, refusal: Refusal) -> None:
        """A full route is 503; the cap of an address or prefix is 429; other prefixes and routes are not affected."""
        gate = Gate(replace(SMALL, limits=limits))
        lease = admitted(gate, ALICE)
        assert gate.peek(ALICE, "/a", 0.0) == gate.admit(ALICE, "/a", 0.0) == refusal
        assert isinstance(gate.admit(BOB, "/b", 0.0), Lease)
        lease.release()
        admitted(gate, NEIGHBOUR)

    def test_handshake_caps(self) -> None:
        """Connections that are not upgraded yet are capped per address (429) and globally (503)."""
        gate = Gate(GateConfig(limits=LeaseLimits(max_handshakes=3, max_handshakes_per_address=1)))
        lease = gate.arrive(ALICE, 0.0)
        assert isinstance(lease, Lease)
        assert gate.arrive(ALICE, 0.0) == Refusal(429, Reason.HANDSHAKE_ADDRESS_CAP, CAP_RETRY_AFTER_S)
        assert isinstance(gate.arrive(None, 0.0), Lease)
        assert isinstance(gate.arrive(None, 0.0), Lease)
        refusal = Refusal(503, Reason.HANDSHAKE_CAP, CAP_RETRY_AFTER_S)
        assert gate.arrive(None, 0.0) == gate.arrive(ALICE, 0.0) == refusal
        lease.release()
        assert isinstance(gate.arrive(ALICE, 0.0), Lease)
        assert gate.tracked == 0

    def test_limits_can_be_replaced_while_running(self) -> None:
        """New limits count from the next attempt on."""
        gate = Gate()
        admitted(gate, ALICE)
        gate.leases.limits = LeaseLimits(max_connections=1)
        assert gate.peek(BOB, "/a", 0.0) == Refusal(503, Reason.GLOBAL_CAP, CAP_RETRY_AFTER_S)


@pytest.mark.parametrize("address", [ALICE, NEIGHBOUR, BOB, None])
def test_what_arrive_would_say(address: ClientAddress | None) -> None:
    """`peek_arrival` returns the refusal that `arrive` returns then, and takes no place."""
    limits = LeaseLimits(max_handshakes=3, max_handshakes_per_address=1)
    gate = Gate(GateConfig(deny=CidrSet(["192.0.2.2"]), limits=limits))
    for _ in range(5):
        expected = gate.peek_arrival(address, 0.0)
        found = gate.arrive(address, 0.0)
        assert expected == (found if isinstance(found, Refusal) else None)
    assert isinstance(gate.peek_arrival(address, 0.0), Refusal)
    assert gate.leases.handshakes == {ALICE: 1, NEIGHBOUR: 0, BOB: 1, None: 3}[address]


class TestNames:
    """Clients may be named by their address alone."""

    @pytest.mark.parametrize("name", ["192.0.2.1", ALICE.ip, "::ffff:192.0.2.1", " 192.0.2.1:4711", ALICE])
    def test_an_address_or_its_text_is_its_client(self, name: Client) -> None:
        """Every method accepts an address or its text in place of the client."""
        gate = Gate(replace(SMALL, http_quota=QUOTA, tls_quota=QUOTA, jail=JailPolicy(refusals=2)))
        lease, handshake = gate.admit(name, "/a", 0.0), gate.arrive(name, 0.0)
        assert isinstance(lease, Lease)
        assert isinstance(handshake, Lease)
        assert lease.key == handshake.key == ALICE.key
        assert gate.spend(name, 0.0) is None
        assert (
            gate.peek(name, "/a", 0.0) == gate.refuse(ALICE, "/a", 0.0) == Refusal(429, Reason.RATE_LIMIT, 10.0, QUOTA)
        )
        assert gate.refuse(name, "/a", 0.0) == Refusal(429, Reason.RATE_LIMIT, 20.0, QUOTA)
        assert gate.request(name, 0.0) is gate.handshake(name, 0.0) is gate.peek_arrival(name, 0.0) is None
        assert not gate.closed_early(name, 0.0)
        assert gate.strike(name, "denied", 0.0) is None
        assert gate.strike(ALICE, "denied", 0.0) is not None


def test_when_it_was_swept() -> None:
    """The gate keeps the time of its last sweep."""
    gate = Gate()
    assert gate.swept_s == -inf
    gate.sweep(7.0)
    assert gate.swept_s == 7.0
