"""The actions of the admin API on a running relay: its status, its jail, its trust policy and its reload.

Times are seconds; ``now`` is the clock of the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

from twisted.internet.defer import Deferred

from pyryrelay.admin.api import JailEntry, JailListing, ReloadOutcome, UpgradeOutcome
from pyryrelay.admin.explain.explanation import explanation
from pyryrelay.admin.explain.protocols import Explainer, Found, is_used, named, with_rules
from pyryrelay.admin.explain.steps import Cluster
from pyryrelay.config.settings import SharedSettings, effective_settings
from pyryrelay.guard.address.clientip import ClientAddress, TrustPolicy
from pyryrelay.guard.address.embedded import is_translated
from pyryrelay.guard.address.keys import IPV6_PREFIX_BITS, AddressKey, address_key, coarser, network_of
from pyryrelay.guard.address.lists import CidrSet, IPNetwork
from pyryrelay.guard.errors import AddressError
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.jail import Sentence

__all__ = ["RelayActions"]


class RelayActions:
    """The `AdminActions` of a relay.

    ``trust`` returns the policy in force, which a reload may replace, and ``settings`` those in force; ``reload``,
    ``upgrade`` and ``status`` are the actions of those names. ``cluster`` shows the cluster, if there is one: its other
    members are told what is done here. If this is a worker, its supervisor, which asks all workers, sees to it that
    they are told once. ``protocols`` add what they know to explanations.
    """

    def __init__(
        self,
        gate: Gate,
        trust: Callable[[], TrustPolicy],
        reload: Callable[[], Deferred[ReloadOutcome]],
        now: Callable[[], float],
        status: Callable[[], Mapping[str, object]],
        *,
        settings: Callable[[], SharedSettings],
        upgrade: Callable[[], Deferred[UpgradeOutcome]],
        is_worker: bool = False,
        cluster: Callable[[], Cluster] | None = None,
        protocols: Mapping[str, Explainer] = MappingProxyType({}),
    ) -> None:
        self._gate = gate
        self._cluster = cluster
        self._protocols = protocols
        self._is_news = not is_worker
        self._trust = trust
        self._now = now
        self._settings = settings
        self.reload = reload
        self.upgrade = upgrade
        self.status = status

    @property
    def forwarding_header(self) -> str:
        """The name of the header that the policy reads."""
        return self._trust().header

    def jail_entries(self, limit: int) -> JailListing:
        """Return clients that are jailed now, in no particular order. Takes half a microsecond per jailed client."""
        now = self._now()
        jailed = [sentence for sentence in self._gate.jail.entries(now) if now < sentence.until_s]
        return JailListing([_entry(sentence, now) for sentence in islice(jailed, limit)], len(jailed))

    def jail_add(self, network: IPNetwork, seconds: float) -> JailEntry:
        """Jail one client. Raises `AddressError` for several clients, and for an exempt one."""
        now, config, network = self._now(), self._gate.config, self._translated(network)
        address = network.network_address
        if address.is_loopback or address in config.allow:
            raise AddressError(f"{str(network)!r} is exempt from the jail: it is loopback or on the allow list")
        if address in config.jail_exempt:
            raise AddressError(
                f"{str(network)!r} is exempt from the jail: it is a trusted proxy; jail the client behind it"
            )
        return _entry(self._gate.jail.add(self._client(network), seconds, now, is_news=self._is_news), now)

    def jail_release(self, network: IPNetwork) -> str | None:
        """Release a client, or a /48 that was jailed as a whole.

        A client that was jailed under an earlier ``--ipv6-prefix`` can be released by that prefix. Raises
        `AddressError` for other networks of several clients, and for a client that is jailed with its /48.
        """
        now, network = self._now(), self._translated(network)
        key = address_key(network.network_address, network.prefixlen)
        if not self._gate.jail.is_jailed(key, now):
            key = self._client(network)
        if not self._gate.jail.is_jailed(key, now):
            if self._gate.jail.holds(key, now):
                prefix = str(network_of(coarser(key, IPV6_PREFIX_BITS)))
                raise AddressError(
                    f"{str(network)!r} is jailed with all of its /{IPV6_PREFIX_BITS}: release {prefix!r}"
                )
            return None
        self._gate.jail.release(key, is_news=self._is_news)
        return str(network_of(key))

    def explain(self, peer: str | None, lines: Sequence[str]) -> Sequence[str]:
        """Explain a client address by the policy in force, step by step."""
        return self._trust().explain(peer, lines)

    def explain_client(self, address: str) -> Mapping[str, object]:
        """Explain what would be decided about a client now, or about what a protocol knows by that name.

        Spends nothing. Raises `AddressError` for what is neither, and `ActionError` as protocols do.
        """
        return self.found(address).explanation

    def found(self, text: str) -> Found:
        """Return what `explain_client` does, and more for those who ask several processes. Raises the same."""
        for protocol, one in self._protocols.items():
            name = one.explain_name(text.strip())
            if name is not None:
                own = {protocol: name.rules}
                return Found(named(name.name, own), own, is_used(own), name.name)
        client, cluster = self._named(text), None if self._cluster is None else self._cluster()
        routes, now = [*self._settings().routes()], self._now()
        explained = explanation(self._gate, client, routes, now, cluster).as_json()
        rules = {protocol: one.explain_client(client) for protocol, one in self._protocols.items()}
        rules = {protocol: some for protocol, some in rules.items() if some}
        is_known = self._gate.standing(client, (), now).is_known or is_used(rules)
        return Found(with_rules(explained, rules), rules, is_known)

    def _named(self, address: str) -> ClientAddress:
        """Return the client that an operator names. Raises `AddressError` if it is not one."""
        (network,) = CidrSet([address.strip()])
        key = self._client(self._translated(network), "name one address of it")
        client = ClientAddress(network_of(key).network_address, key)
        if network.num_addresses == 1:
            client = self._trust().read(str(network.network_address)) or client
        return client

    def effective_settings(self) -> Sequence[Mapping[str, str]]:
        """Return the settings in force."""
        return [row._asdict() for row in effective_settings(self._settings())]

    def _translated(self, network: IPNetwork) -> IPNetwork:
        """Return the network that its clients are counted under: IPv4 for addresses behind a NAT64 translator."""
        (translated,) = CidrSet([network]).translated(self._trust().nat64)
        return translated

    def _client(self, network: IPNetwork, fix: str = "jail one address, or put it on the deny list") -> AddressKey:
        """Return the key that the client of ``network`` is counted under.

        Raises `AddressError` with the fix if the network has several clients.
        """
        trust, value = self._trust(), int(network.network_address)
        bits = 32 if network.version == 4 else 128 if is_translated(value, trust.nat64) else trust.ipv6_prefix
        if network.prefixlen < bits:
            raise AddressError(f"{str(network)!r} holds more than one client (/{bits}): {fix}")
        return address_key(network.network_address, bits)


def _entry(sentence: Sentence, now: float) -> JailEntry:
    return JailEntry(str(sentence.network), round(sentence.until_s - now, 3), sentence.times, sentence.origin)
