"""The relay gets its certificates from a real authority, Pebble, and serves clients with them."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import LOCALHOST, Launch, Relay, reserve_port, until
from tests.support.certificates import write_certificate
from tests.support.pebble import MISSING, Pebble, pebble
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is not installed")

NAME, OTHER = "relay.example.org", "other.example.org"
ISSUED_S = 60.0


class Site:
    """An authority, and the ports to which it connects: those of the relay."""

    def __init__(self, folder: Path, ports: tuple[int, int], authority: Pebble) -> None:
        self.folder = folder
        self.http_port, self.tls_port = ports
        self.authority = authority

    def launch(self, *schemes: str) -> Launch:
        """Return how to start a relay with endpoints for TLS, plain HTTP or both."""
        ports = {"ssl": self.tls_port, "tcp": self.http_port}
        listen = [f"{scheme}:{ports[scheme]}:interface={LOCALHOST}" for scheme in schemes]
        return Launch(listen=listen, environment={"REQUESTS_CA_BUNDLE": str(self.authority.trusted)})

    def options(self, *names: str) -> list[str]:
        """Return the options of a relay that has these names."""
        found = ["--acme-directory", self.authority.directory, "--acme-cache", str(self.folder / "cache")]
        return [*found, *(word for name in names for word in ("--acme", name))]

    def certificate(self, name: str, *, alpn: str | None = None) -> x509.Certificate | None:
        """Return the certificate that clients of a name get; None if there is no handshake."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        try:
            with (
                socket.create_connection((LOCALHOST, self.tls_port), 10) as sock,
                context.wrap_socket(sock, server_hostname=name) as client,
            ):
                der = client.getpeercert(binary_form=True)
        except OSError:
            return None
        return None if der is None else x509.load_der_x509_certificate(der)

    def is_served(self, name: str) -> bool:
        """Tell whether clients of a name get a certificate of the authority for it."""
        found = self.certificate(name)
        if found is None:
            return False
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName) == [name] and "Pebble" in found.issuer.rfc4514_string()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A running authority that checks challenges at two free ports."""
    with reserve_port() as first, reserve_port() as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        with pebble(tmp_path, write_certificate(tmp_path, "localhost"), *ports) as authority:
            yield Site(tmp_path, ports, authority)


def served(site: Site, relay: Relay, *names: str) -> None:
    """Wait until all names have their certificate. Handshakes have a quota, so the log tells when."""
    for name in names:
        until(lambda: f"certificate of {name} issued by ACME" in relay.log(), f"{name} has one", ISSUED_S)  # noqa: B023
        assert site.is_served(name)


@pytest.mark.parametrize("schemes", [["ssl"], ["tcp", "ssl"]], ids=["tls-alpn-01", "http-01"])
def test_certificates_are_ordered_and_kept(site: Site, start_relay: StartRelay, schemes: list[str]) -> None:
    """Each name gets one; after a restart they are there at once, and nothing is ordered."""
    options = site.options(NAME, OTHER)
    relay = start_relay(*options, launch=site.launch(*schemes))
    served(site, relay, NAME, OTHER)
    assert relay.metrics()['pyryrelay_acme_orders_total{outcome="issued"}'] == 2
    assert site.certificate(NAME, alpn="acme-tls/1") is None
    relay.stop()
    again = start_relay(*options, launch=site.launch(*schemes))
    assert site.is_served(NAME)
    assert site.is_served(OTHER)
    assert again.metrics()['pyryrelay_acme_orders_total{outcome="issued"}'] == 0
    assert again.metrics()['pyryrelay_acme_orders_total{outcome="failed"}'] == 0
    modes = {path.stat().st_mode & 0o077 for path in [site.folder / "cache", *(site.folder / "cache").rglob("*")]}
    assert modes == {0}


def test_secrets_are_not_told(site: Site, start_relay: StartRelay) -> None:
    """No key is in the log, the arguments of the child, or the metrics."""
    relay = start_relay(*site.options(NAME), launch=site.launch("ssl"))
    served(site, relay, NAME)
    assert "PRIVATE KEY" not in relay.log()
    assert '"d"' not in relay.log()
    relay.log_has(f"certificate of {NAME} issued by ACME")


def test_an_authority_that_is_down_does_not_matter(tmp_path: Path, start_relay: StartRelay) -> None:
    """The relay runs, says why there is no certificate, and when it tries again."""
    directory = f"http://{LOCALHOST}:{free_port()}/dir"
    relay = start_relay("--acme", NAME, "--acme-directory", directory, launch=Launch(listen=("ssl:{port}", "tcp:0")))
    [line] = relay.log_has("no certificate of", "cannot be reached (Connection refused)", "trying again in")
    assert NAME in line
    assert relay.metrics()['pyryrelay_acme_orders_total{outcome="failed"}'] == 1


def test_the_end_of_the_relay_ends_an_order(tmp_path: Path, start_relay: StartRelay) -> None:
    """An authority that does not answer delays nothing."""
    with reserve_port() as silent:
        silent.listen()
        directory = f"http://{LOCALHOST}:{silent.getsockname()[1]}/dir"
        relay = start_relay("--acme", NAME, "--acme-directory", directory, launch=Launch(listen=("ssl:{port}",)))
        silent.settimeout(ISSUED_S)
        peer, _ = silent.accept()
        children = subprocess.run(
            ["pgrep", "-P", str(relay.process.pid), "-f", "pyryrelay.acme.child"], capture_output=True, check=False
        ).stdout.split()
        assert len(children) == 1
        relay.stop()
        until(lambda: not Path(f"/proc/{children[0].decode()}").exists(), "the child has ended")
        peer.close()
