"""The options of automatic certificates."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pyryrelay.config.options.acme_options import challenge_kinds, directory_url
from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings

LISTEN = {"PYRYRELAY_LISTEN": "ssl:443"}


def settings(**variables: str) -> Settings:
    """Return the settings of environment variables, with an endpoint for TLS."""
    environment: Mapping[str, str] = LISTEN | {f"PYRYRELAY_{name.upper()}": text for name, text in variables.items()}
    return Settings.from_sources({}, environment, {})


def test_names_are_read_as_an_authority_writes_them() -> None:
    """In lower case, without the dot of the root, each once."""
    assert settings(acme="Relay.Example.org. relay.example.org b.example").acme == ("relay.example.org", "b.example")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("*.example.org", "is a wildcard, which is proven by DNS only; write each name, or use --certificate"),
        ("192.0.2.1", "is an address"),
        ("::1", "is an address"),
        ("localhost", "is no host name that an authority would certify"),
        ("https://relay.example.org", "is no host name"),
        ("relay.example.org:443", "is no host name"),
        ("-a.example.org", "is no host name"),
        (f"{'a.' * 124}example", "is no host name"),
        ("../../etc/passwd", "is no host name"),
    ],
)
def test_names_that_cannot_be_certified(name: str, problem: str) -> None:
    """One line with the name, and the fix. A name is part of a path, and cannot leave the folder."""
    with pytest.raises(SettingsError) as caught:
        settings(acme=name)
    assert problem in str(caught.value)
    assert repr(name[:20])[:-1] in str(caught.value)


def test_authorities_that_have_a_name() -> None:
    """The two that nearly everybody needs are words."""
    assert directory_url(settings().acme_directory) == "https://acme-v02.api.letsencrypt.org/directory"
    staging = settings(acme_directory="letsencrypt-staging").acme_directory
    assert directory_url(staging) == "https://acme-staging-v02.api.letsencrypt.org/directory"


@pytest.mark.parametrize(
    "url", ["https://ca.example/dir", "http://localhost:1/dir", "http://127.0.0.1/", "http://[::1]/"]
)
def test_directories(url: str) -> None:
    """Plain HTTP is for an authority on this machine only."""
    assert directory_url(settings(acme_directory=url).acme_directory) == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ca.example/dir", "is no URL"),
        ("https://", "is no URL"),
        ("https://ca.example:0/", "is no URL"),
        ("https://ca.example:x/", "is no URL"),
        ("ftp://ca.example/", "is no URL"),
        ("https://cä.example/", "is no URL"),
        ("http://ca.example/dir", "is not encrypted"),
        ("http://127.0.0.1.example.org/", "is not encrypted"),
    ],
)
def test_directories_that_cannot_be_used(url: str, problem: str) -> None:
    """One line, with an example."""
    with pytest.raises(SettingsError, match=problem):
        settings(acme_directory=url)


def test_a_password_in_a_url_is_not_shown() -> None:
    """Secrets are withheld from errors."""
    with pytest.raises(SettingsError) as caught:
        settings(acme_directory="https://user:geheim@ca.example/dir")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [("acme_cache", "", "is no path"), ("acme_email", "operator", "is no address"), ("acme_email", "a@b c@d", "is no")],
)
def test_other_values_that_cannot_be_used(name: str, text: str, problem: str) -> None:
    """One line each."""
    with pytest.raises(SettingsError, match=problem):
        settings(**{name: text})


@pytest.mark.parametrize(
    ("endpoints", "kinds"),
    [
        (["ssl:443"], ("tls-alpn-01",)),
        (["tcp:80", "ssl:443"], ("http-01", "tls-alpn-01")),
        (["ssl:8443", "tcp:80"], ("http-01", "tls-alpn-01")),
        (["tcp:8080", "ssl:443"], ("tls-alpn-01", "http-01")),
        (["unix:/run/x", "systemd:domain=INET:name=x"], ()),
        (["tcp6:80", "ssl:8443"], ("http-01", "tls-alpn-01")),
    ],
)
def test_what_proves_a_name(endpoints: list[str], kinds: tuple[str, ...]) -> None:
    """Endpoints on the ports to which an authority connects come first."""
    assert challenge_kinds(endpoints) == kinds
