"""The values of the options of TLS and of host names."""

from __future__ import annotations

import pytest

from pyryrelay.config.certificate_options import CERTIFICATES, HOSTS, CertificatePlace
from pyryrelay.config.types import InvalidValueError


@pytest.mark.parametrize(
    ("text", "path", "key"),
    [
        ("/etc/letsencrypt/live/relay.example.org", "/etc/letsencrypt/live/relay.example.org", ""),
        ("chain.pem:key.pem", "chain.pem", "key.pem"),
        (r"a\:b.pem:c\\d.pem", "a:b.pem", r"c\d.pem"),
    ],
)
def test_places_of_certificates(text: str, path: str, key: str) -> None:
    """A place is a path, or one of the certificate and one of the key, and is written as it was read."""
    (place,) = places = CERTIFICATES.read((text,))
    assert place == CertificatePlace(text, path, key)
    assert CERTIFICATES.write(places) == (text,)


@pytest.mark.parametrize("text", ["", "a:", ":b", "a:b:c", "a\0"])
def test_what_is_no_place(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidValueError, match="names no certificate"):
        CERTIFICATES.read((text,))


def test_hosts() -> None:
    """Names are kept in lower case and without the final dot."""
    texts = ("Relay.Example.org.", "*.example.org", "192.0.2.7", "[2001:DB8::7]", "localhost")
    hosts = HOSTS.read(texts)
    assert hosts == ("relay.example.org", "*.example.org", "192.0.2.7", "[2001:db8::7]", "localhost")
    assert HOSTS.read(HOSTS.write(hosts)) == hosts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relay example.org",
        "relay.example.org:443",
        "a..b",
        "*",
        "a.*.org",
        "-a.org",
        "[::1",
        "\u00e4.org",
        "a" * 64,
    ],
)
def test_what_is_no_host(text: str) -> None:
    """Ports, blanks, wildcards elsewhere and names that no certificate can have are refused."""
    with pytest.raises(InvalidValueError, match="is no host name"):
        HOSTS.read((text,))


def test_a_url_is_no_host() -> None:
    """A URL is refused with what to write."""
    with pytest.raises(InvalidValueError) as caught:
        HOSTS.read(("https://relay.example.org/",))
    assert (caught.value.problem, caught.value.fix) == ("is a URL", "write the name alone, such as relay.example.org")
