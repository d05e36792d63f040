"""Endpoint strings: where they can be reached from, which ones clash, and mistakes found before Twisted parses them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.config.endpoints import (
    ENDPOINTS,
    OPTIONAL_ENDPOINT,
    Endpoint,
    collide,
    for_each_worker,
    has_tls_files,
    has_worker,
    of_worker,
    of_workers,
    tls_files,
    unix_mode,
    without_tls,
)
from pyryrelay.config.types import InvalidValueError


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("tcp:8080:interface=127.0.0.1", True),
        ("tcp:8080:127.9.9.9", True),
        ("tcp:port=8080:interface=localhost", True),
        (r"tcp:8080:interface=\:\:1", True),
        (r"tcp6:8080:interface=\:\:1", True),
        (r"tcp6:8080:50:\:\:1", True),
        ("haproxy:tcp:8080:interface=127.0.0.1", True),
        ("unix:/run/relay", True),
        ("haproxy:unix:/run/relay", True),
        ("systemd:domain=UNIX:index=0", True),
        ("systemd:UNIX:index=0", True),
        ("systemd:domain=INET:index=0", False),
        ("tcp:8080", False),
        ("tcp6:8080", False),
        ("tcp:8080:interface=0.0.0.0", False),
        ("tcp:8080:interface=relay.example", False),
        ("ssl:443:privateKey=k:certKey=c", False),
        ("ssl:443:privateKey=k:interface=127.0.0.1", True),
        ("haproxy:tcp:8080", False),
        ("other:8080", False),
        ("haproxy", False),
        ("=", False),
    ],
)
def test_is_local(text: str, local: bool) -> None:
    """Only loopback addresses and UNIX-domain sockets are out of reach for other machines."""
    assert Endpoint.parse(text).is_local is local


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("tcp:80", "tcp:port=80", True),
        ("tcp:80", "ssl:80:privateKey=k", True),
        (r"tcp:80:interface=\:\:1", "tcp:80:interface=127.0.0.1", False),
        (r"tcp:80:interface=\:\:1", "tcp:80", False),
        (r"tcp:80:interface=\:\:1", "tcp6:80", True),
        ("tcp:80", "tcp6:80", True),
        ("tcp:80", "tcp:80:interface=127.0.0.1", True),
        ("tcp:80:interface=0.0.0.0", "haproxy:tcp:080:interface=10.0.0.1", True),
        ("tcp:80:interface=127.0.0.1", "tcp:80:interface=127.0.0.2", False),
        ("tcp:80", "tcp:81", False),
        ("tcp:0", "tcp:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/a:mode=600", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "tcp:80", False),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=1", False),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0", True),
    ],
)
def test_what_cannot_both_be_listened_on(one: str, other: str, same: bool) -> None:
    """Two endpoints clash on one port of overlapping addresses or on one path; port 0 never clashes."""
    assert collide(one, other) is same
    assert collide(other, one) is same


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("ssl:443", ("server.pem", "server.pem", "")),
        ("ssl:443:key.pem", ("key.pem", "key.pem", "")),
        ("ssl:443:key.pem:cert.pem", ("key.pem", "cert.pem", "")),
        ("ssl:443:certKey=c:privateKey=/k:extraCertChain=chain", ("/k", "c", "chain")),
        ("haproxy:ssl:443:privateKey=k", ("k", "k", "")),
    ],
)
def test_tls_files(text: str, files: tuple[str, str, str]) -> None:
    """Key and certificate files are found by position or by name, with Twisted's defaults."""
    assert tls_files(text) == files


@pytest.mark.parametrize(
    ("text", "mode"), [("unix:/a", None), ("unix:/a:660", 0o660), ("unix:/a:mode=600", 0o600), ("unix:/a:mode=x", None)]
)
def test_unix_mode(text: str, mode: int | None) -> None:
    """The mode of a UNIX-domain socket is the one that the endpoint asks for, if it does."""
    assert unix_mode(text) == mode


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("8080", "is not an endpoint", "write tcp:8080:interface=127.0.0.1"),
        (":8080", "is not an endpoint", "write tcp:8080:interface=127.0.0.1"),
        ("0.0.0.0:8080", "is not an endpoint", "write tcp:8080:interface=0.0.0.0"),
        ("localhost:80", "is not an endpoint", "write tcp:80:interface=localhost"),
        ("tcp:80:interface=::1", "has colons that end its interface", r"write tcp:80:interface=\:\:1"),
        ("tcp", "has no port from 0 to 65535", ""),
        ("tcp:notaport", "has no port from 0 to 65535", ""),
        ("tcp:65536", "has no port from 0 to 65535", ""),
        ("tcp:-1", "has no port from 0 to 65535", ""),
        (
            "ssl:443:sslmethod=TLSv1_2_METHOD",
            "has sslmethod=, which has no meaning",
            "remove it: the relay speaks TLS 1.2 and 1.3",
        ),
        (
            "ssl:443:dhParameters=dh.pem",
            "has dhParameters=, which has no meaning",
            "remove it: no cipher that needs them is spoken",
        ),
        ("ssl:\u0661:privateKey=k", "has no port from 0 to 65535", ""),
        ("haproxy:tcp:999999", "has no port from 0 to 65535", ""),
        ("unix", "has no path", ""),
        ("unix:", "has no path", ""),
        (":", "is not an endpoint", ""),
        ("", "is not an endpoint", ""),
    ],
)
def test_common_mistakes(text: str, problem: str, fix: str) -> None:
    """A common mistake is answered with the string that was probably meant, where that is plain."""
    with pytest.raises(InvalidValueError) as caught:
        ENDPOINTS.read(("tcp:1", text))
    assert (caught.value.text, caught.value.problem, caught.value.fix) == (text, problem, fix)


@pytest.mark.parametrize(
    "text",
    [
        "tcp:0",
        "tcp:65535",
        "tcp:1:interface=relay.example",
        "unix:/a:mode=660",
        "unix:address=/a",
        "systemd:domain=INET:index=0",
        "other:x",
    ],
)
def test_the_rest_is_left_to_twisted(text: str) -> None:
    """Endpoints without a common mistake pass unchanged, and so do unknown types, which plugins may add."""
    assert ENDPOINTS.read((text,)) == (text,)
    assert ENDPOINTS.write((text,)) == (text,)


def test_an_optional_endpoint_may_be_empty() -> None:
    """An empty text means off; any other text is checked like every endpoint."""
    assert OPTIONAL_ENDPOINT.read(("",)) == ""
    assert OPTIONAL_ENDPOINT.read(("tcp:1",)) == "tcp:1"
    assert OPTIONAL_ENDPOINT.write("tcp:1") == ("tcp:1",)
    with pytest.raises(InvalidValueError):
        OPTIONAL_ENDPOINT.read(("tcp:x",))


@given(st.text(alphabet="tcpunixhaproxy:=\\0123456789.interface"))
def test_parse_never_raises(text: str) -> None:
    """Any text can be parsed, and asked for its reach."""
    assert Endpoint.parse(text).is_local in (True, False)


@pytest.mark.parametrize(
    ("text", "plain", "names_files"),
    [
        ("ssl:443", "tcp:443", False),
        ("ssl:443:interface=127.0.0.1", "tcp:443:interface=127.0.0.1", False),
        (r"haproxy:ssl:443:key:cert:interface=\:\:1:x=1", r"haproxy:tcp:443:interface=\:\:1:x=1", True),
        (r"ssl:port=443:privateKey=/etc/ssl:certKey=a\:b:backlog=5", "tcp:443:backlog=5", True),
        ("ssl:443:k:c::127.0.0.1:50:chain", "tcp:443:interface=127.0.0.1:backlog=50", True),
        ("SSL:443:certKey=c", "tcp:443", True),
    ],
)
def test_what_of_an_endpoint_is_tls(text: str, plain: str, names_files: bool) -> None:
    """Below TLS there is a TCP endpoint of the same place; what TLS does not know is left to Twisted's parser."""
    assert without_tls(text) == plain
    assert has_tls_files(text) == names_files


@pytest.mark.parametrize("text", ["unix:/run/{worker}.sock", "tcp:900{worker}:interface=127.0.0.1"])
def test_the_number_of_a_process(text: str) -> None:
    """A path or a port may have the number of a process in it."""
    assert ENDPOINTS.read((text,)) == (text,)
    assert has_worker(text)
    assert of_worker(text, 3) == text.replace("{worker}", "3")
    assert of_workers([text, "tcp:1"], 2) == [of_worker(text, 0), of_worker(text, 1), "tcp:1"]
    assert not has_worker(of_worker(text, 0))


@pytest.mark.parametrize("wrong", ["{workers}", "{WORKER}", "{ worker }"])
def test_a_misspelt_number(wrong: str) -> None:
    """What was meant as the number of a process is not taken as part of a path."""
    with pytest.raises(InvalidValueError) as raised:
        ENDPOINTS.read((f"unix:/run/{wrong}.sock",))
    assert wrong in str(raised.value)
    assert raised.value.fix == "write {worker}"


@pytest.mark.parametrize(
    ("text", "count", "instead"),
    [
        ("tcp:8080:interface=127.0.0.1", 4, "tcp:808{worker}:interface=127.0.0.1"),
        ("haproxy:tcp6:9001", 10, "haproxy:tcp6:900{worker}"),
        ("tcp:65530", 4, "tcp:6553{worker}"),
        ("tcp:65530", 8, "unix:/run/pyryrelay/{worker}.sock"),
        ("tcp:8080", 11, "unix:/run/pyryrelay/{worker}.sock"),
        ("tcp:0", 2, "unix:/run/pyryrelay/{worker}.sock"),
        ("unix:/run/relay", 4, "unix:/run/relay-{worker}"),
        ("unix:/run/a.b/relay.sock:mode=660:backlog=7", 4, "unix:/run/a.b/relay-{worker}.sock:mode=660:backlog=7"),
        ("systemd:domain=INET:index=0", 4, "unix:/run/pyryrelay/{worker}.sock"),
    ],
)
def test_what_to_write_instead(text: str, count: int, instead: str) -> None:
    """Another endpoint for each process is close to the one that they would share, and legal for all of them."""
    assert for_each_worker(text, count) == instead
    for index in range(count):
        assert ENDPOINTS.read((of_worker(instead, index),))
