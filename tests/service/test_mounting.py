"""How applications get their connections."""

from __future__ import annotations

from typing import Any

from tests.support.service import Machine

from pyryrelay.mounts import Settings
from pyryrelay.service.assembly import Assembly
from pyryrelay.service.foundation import Times
from pyryrelay.service.mounting import mounted


def routes(machine: Machine, times: Times, **options: Any) -> dict[str, Any]:
    """Return the factories by path of a relay with these options."""
    settings = Settings(listen=("tcp:81",), nostr=True, **options)
    relay = Assembly(settings, machine, machine.seconds, times)
    return mounted(relay.protocols, settings, times, relay.gate, relay.wheel, machine.seconds, relay.fair_queue)


def test_each_application_has_one_factory(machine: Machine) -> None:
    """It is found at all paths of its protocol."""
    found = routes(machine, Times())
    names = {path: factory.application.name for path, factory in found.items()}
    assert names["/v1/server"] == names["/v2/server"] == "server"
    assert names["/"] == "nostr"
    assert found["/v1/server"] is found["/v2/server"]
    assert len(set(found.values())) == len(set(names.values()))


def test_the_interval_of_pings(machine: Machine) -> None:
    """It is that of the option, unless a test has another one."""
    for times, wanted in ((Times(), 17.0), (Times(ping_interval_s=0.5), 0.5)):
        found = routes(machine, times, ping_interval_s=17.0)
        assert {factory.context.limits.ping_interval_s for factory in found.values()} == {wanted}
