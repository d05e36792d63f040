"""Every option, changed by a reload: it is enforced as a start with it would, or named as waiting for a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.option_samples import SAMPLES
from tests.support.push import key_text
from tests.support.service import Machine, pyry
from tests.support.tls_peers import named_certificate, write_pair

from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import Option, options_of
from pyryrelay.config.types import FILES, TrustedProxies
from pyryrelay.guard import CidrSet
from pyryrelay.mounts import Settings
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.running import Nostr
from pyryrelay.service import RelayService, Times

PROXIES = TrustedProxies(CidrSet(["10.0.0.0/8"]))
ALONGSIDE: dict[str, dict[str, Any]] = {
    "client-address-header": {"trust_x_forwarded_for": True, "trusted_proxy": PROXIES},
    "trusted-proxy": {"trust_x_forwarded_for": True},
    "proxy-protocol": {"trusted_proxy": PROXIES, "trust_x_forwarded_for": True},
    "kernel-drop": {"listen": ("tcp:8080",)},
    "push-url": {"push_credentials": "env:FCM_KEY"},
    "push-feedback": {"push_credentials": "env:FCM_KEY"},
}
"""What an option needs beside itself, before and after the reload."""
NOSTR_OPTIONS = {option.name for option in options_of(NostrOptions)} - {
    option.name for option in options_of(ConnectionSettings)
}
NOSTR_ON = {"nostr": True, "nostr_url": "wss://relay.example.com/"}
ALONGSIDE |= dict.fromkeys(NOSTR_OPTIONS - {"nostr", "nostr-url"}, NOSTR_ON) | {"nostr-url": {"nostr": True}}


class IdleChild:
    """A child process that takes everything and answers nothing."""

    pid = None

    def send(self, body: bytes) -> None:
        """Take a frame."""

    def close(self) -> None:
        """End, without a word."""

    def kill(self) -> None:
        """End at once, without a word."""


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a key for push wakes."""
    monkeypatch.setenv("FCM_KEY", key_text())


@pytest.fixture(autouse=True)
def _idle_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no processes."""
    for room in ("assembly", "worker"):
        monkeypatch.setattr(f"pyryrelay.service.{room}.start_child", lambda *_arguments: IdleChild())


def running(machine: Machine, settings: Settings) -> tuple[RelayService, list[Settings]]:
    """Return a started relay, and the settings that a reload finds."""
    wanted = [settings]
    service = RelayService(settings, machine, machine.seconds, Times(), lambda: wanted[0])
    service.startService()
    return service, wanted


def enforced(service: RelayService) -> dict[str, object]:
    """Return everything that the rooms enforce and a reload can change."""
    registry, relay = pyry(service).registry, pyry(service).relay
    return {
        "gate": service.gate.config,
        "caps": service.gate.leases.limits,
        "jail": service.gate.jail.policy,
        "tracked": service.gate.config.max_tracked,
        "allowed": sorted(map(str, service.gate.config.allow)),
        "denied": sorted(map(str, service.gate.config.deny)),
        "trust": service.live.trust,
        "dropped": service.live.dropped,
        "hosts": service.live.hosts.names,
        "certificates": []
        if service.certificates is None
        else [info.source for info in service.certificates.expiries()],
        "connections": [factory.context.throttle for factory in service.factories],
        "relay": (registry.grace_s, registry.max_phones, relay.dropped_envelope_quota),
        "log": service.log.address_form,
        "push": pyry(service).push.in_force,
        "admin": (service.admin.access.token, service.admin.access.host_names),
        "drain": service.settings.drain_over_s,
        "nostr": nostr_rules(service),
    }


def nostr_rules(service: RelayService) -> dict[str, object]:
    """Return the options that the Nostr relay of a service has been configured with, lists of files included."""
    found = [protocol for protocol in service.protocols if isinstance(protocol, Nostr)]
    fields = [option.field for option in options_of(NostrOptions)]
    return {field: getattr(nostr.relay.options, field) for nostr in found for field in fields}


def alongside(about: Option, tmp_path: Path) -> dict[str, Any]:
    """Return what an option needs beside itself, before and after the reload."""
    if about.name == "certificate":
        write_pair(named_certificate("own.example.org"), tmp_path / "cert.pem", tmp_path / "key.pem")
        return {"listen": (f"ssl:443:privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem",)}
    return ALONGSIDE.get(about.name, {})


def changed(about: Option, tmp_path: Path) -> dict[str, Any]:
    """Return the settings with another value for an option, and what it needs beside itself."""
    _, _, field, value = SAMPLES[about.name]
    if about.name == "certificate":
        write_pair(named_certificate("new.example.org"), tmp_path / "new" / "tls.crt", tmp_path / "new" / "tls.key")
        value = (CertificatePlace.parse(str(tmp_path / "new")),)
    if about.type is FILES:
        entries = Settings.by_name()[about.name.removesuffix("-file")].example
        (tmp_path / about.name).write_text("\n".join(entries))
        value = (str(tmp_path / about.name),)
    if about.name == "admin-token-file":
        (tmp_path / "token").write_text("a-token-of-the-operator\n")
        (tmp_path / "token").chmod(0o600)
        value = str(tmp_path / "token")
    return {**alongside(about, tmp_path), field: value}


def outcome_of(service: RelayService) -> ReloadOutcome:
    """Reload, and return what became of it."""
    outcomes: list[ReloadOutcome] = []
    service.reload().addCallback(outcomes.append)
    (outcome,) = outcomes
    assert outcome.error is None
    return outcome


@pytest.mark.parametrize("about", Settings.options(), ids=lambda about: about.name)
def test_a_reload_is_as_good_as_a_start(about: Option, tmp_path: Path) -> None:
    """After a reload the rooms enforce what they would after a start, or the option is named and nothing changes."""
    before = Settings(**alongside(about, tmp_path))
    after = Settings(**changed(about, tmp_path))
    service, wanted = running(Machine(), before)
    at_first = enforced(service)
    wanted[0] = after
    outcome = outcome_of(service)
    if about.restart:
        assert (list(outcome.changed), list(outcome.needs_restart)) == ([], [about.name])
        assert enforced(service) == at_first
        assert getattr(service.settings, about.field) == getattr(before, about.field)
        return
    assert (list(outcome.changed), list(outcome.needs_restart)) == ([about.name], [])
    fresh, _ = running(Machine(), after)
    assert enforced(service) == enforced(fresh)
    assert enforced(service) != at_first
    assert service.settings == after


@pytest.mark.parametrize("about", [about for about in Settings.options() if not about.restart], ids=lambda a: a.name)
def test_a_reload_can_be_taken_back(about: Option, tmp_path: Path) -> None:
    """A second reload with the settings of the start enforces what the start did."""
    before = Settings(**alongside(about, tmp_path))
    service, wanted = running(Machine(), before)
    at_first = enforced(service)
    for wanted[0] in (Settings(**changed(about, tmp_path)), before):
        outcome_of(service)
    assert enforced(service) == at_first
