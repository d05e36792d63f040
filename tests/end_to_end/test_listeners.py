"""Each kind of Twisted endpoint that --listen takes, with real peers."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import (
    LOCALHOST,
    REACTOR,
    SLOW,
    Launch,
    Relay,
    answers,
    asynchronous,
    environment,
    reserve_port,
    run,
    twistd,
    until,
)
from tests.end_to_end.peers import binary, fresh_id, pair, phone, received
from tests.end_to_end.raw import CLOSE, TEXT, Raw, ask, close_frame, frame, head, raw, statuses, upgrade
from tests.end_to_end.service_manager import passed_socket

HEALTH = head("/healthz", ("Host", "relay"))


@asynchronous
async def test_tcp(start_relay: StartRelay) -> None:
    """tcp: carries both legs, and several listeners share one registry."""
    with reserve_port() as held:
        port = held.getsockname()[1]
        relay = start_relay("--listen", f"tcp:{port}:interface=127.0.0.5")
        server_id = fresh_id()
        async with binary(relay.uri, server_id) as one, phone(f"ws://127.0.0.5:{port}", server_id) as other:
            await other.send("1")
            assert b'"frame":1}' in str(await received(one)).encode()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1, and return the files of key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOCALHOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = directory / "key.pem", directory / "certificate.pem"
    key_file.touch(0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file


@pytest.fixture
def tls(start_relay: StartRelay, tmp_path: Path) -> tuple[Relay, ssl.SSLContext]:
    """A relay behind ssl:, and the context of its clients."""
    key, certificate = _certificate(tmp_path)
    endpoint = f"ssl:{{port}}:privateKey={key}:certKey={certificate}:interface={LOCALHOST}"
    return start_relay(launch=Launch(listen=[endpoint])), ssl.create_default_context(cafile=str(certificate))


@asynchronous
async def test_ssl(tls: tuple[Relay, ssl.SSLContext]) -> None:
    """ssl: carries frames that take several TLS records."""
    relay, context = tls
    async with pair(f"wss://{LOCALHOST}:{relay.port}", ssl=context) as peers:
        conn_id = await peers.exchange()
        big = f'"{"x" * 200_000}"'
        await peers.phone.send(big)
        assert await received(peers.binary) == f'{{"conn_id":"{conn_id}","frame":{big}}}'


@asynchronous
async def test_ssl_with_alpn(tls: tuple[Relay, ssl.SSLContext]) -> None:
    """ssl: accepts clients that offer protocols by ALPN, as most HTTP libraries do, and picks HTTP/1.1."""
    relay, context = tls
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with pair(f"wss://{LOCALHOST}:{relay.port}", ssl=context) as peers:
        await peers.exchange()
        tunnel = peers.phone.transport.get_extra_info("ssl_object")
        assert tunnel.selected_alpn_protocol() == "http/1.1"


@asynchronous
async def test_ssl_with_plain_bytes(tls: tuple[Relay, ssl.SSLContext]) -> None:
    """A peer that does not speak TLS to an ssl: listener is dropped, and others are not affected."""
    relay, context = tls
    async with pair(f"wss://{LOCALHOST}:{relay.port}", ssl=context) as peers:
        async with raw(relay.address) as peer:
            await peer.send(HEALTH)
            assert b"HTTP" not in await peer.rest()
        await peers.exchange()


UNIX_BEHIND_PROXY = ("--trust-x-forwarded-for", "--trusted-proxy", "unix")


@asynchronous
async def test_unix(start_relay: StartRelay) -> None:
    """unix: behind a trusted proxy counts the addresses that the proxy names, and refuses requests without one."""
    relay = start_relay(*UNIX_BEHIND_PROXY, *SLOW, launch=Launch(listen=["unix:{directory}/relay.sock"]))
    path = relay.directory / "relay.sock"
    named = upgrade("/v1/client", "x", ("X-Forwarded-For", "192.0.2.1"))
    assert await statuses(path, named, 21) == [101] * 20 + [429]
    assert await statuses(path, upgrade("/v1/client", "x"), 1) == [429]
    async with pair("ws://relay", unix=path, additional_fields=[("X-Forwarded-For", "192.0.2.2")]) as peers:
        await peers.exchange()
    assert (await ask(path, HEALTH)).status == 200
    assert "192.0.2.2" in relay.log()


@asynchronous
async def test_unix_without_a_trusted_proxy(start_relay: StartRelay) -> None:
    """On a UNIX-domain socket without a trusted proxy no client has an address, so all get 429."""
    relay = start_relay(launch=Launch(listen=["unix:{directory}/relay.sock"]))
    path = relay.directory / "relay.sock"
    assert await statuses(path, upgrade("/v1/client", "x"), 2) == [429, 429]
    assert (await ask(path, HEALTH)).status == 200


def _proxied(source: str) -> bytes:
    """Return a PROXY header of version 1."""
    return f"PROXY TCP4 {source} {LOCALHOST} 40000 443\r\n".encode("ascii")


@asynchronous
async def test_haproxy(start_relay: StartRelay) -> None:
    """haproxy:tcp: takes the client address from the PROXY header, and counts by it."""
    relay = start_relay(*SLOW, launch=Launch(listen=[f"haproxy:tcp:{{port}}:interface={LOCALHOST}"]))
    attempt = upgrade("/v1/client", "x")
    assert await statuses(relay.address, _proxied("192.0.2.7") + attempt, 21) == [101] * 20 + [429]
    assert await statuses(relay.address, _proxied("192.0.2.8") + attempt, 1) == [101]
    server_id = fresh_id()
    async with raw(relay.address) as one, raw(relay.address) as other:
        await _upgraded(one, _proxied("192.0.2.9") + upgrade("/v1/server", server_id))
        await _upgraded(other, _proxied("192.0.2.10") + upgrade("/v1/client", server_id))
        await other.send(frame(TEXT, b"[1]"))
        opcode, payload = await one.frame()
        assert opcode == TEXT
        assert payload.endswith(b'"frame":[1]}')
        await other.send(close_frame(1000))
        assert (await other.frame())[0] == CLOSE
    assert "192.0.2.10" in relay.log()


async def _upgraded(peer: Raw, request: bytes) -> None:
    await peer.send(request)
    assert (await peer.response()).status == 101


@asynchronous
async def test_haproxy_without_a_header(start_relay: StartRelay) -> None:
    """A connection to haproxy: that does not begin with a PROXY header is closed without an answer."""
    relay = start_relay(launch=Launch(listen=[f"haproxy:tcp:{{port}}:interface={LOCALHOST}"]))
    for opening in (upgrade("/v1/client", "x"), b"PROXY TCP4 nonsense\r\n" + HEALTH, b"\r\n\r\n\0\r\nQUIT\n" + HEALTH):
        async with raw(relay.address) as peer:
            await peer.send(opening)
            assert await peer.rest() == b""
    assert (await ask(relay.address, _proxied("192.0.2.1") + HEALTH)).status == 200


@asynchronous
async def test_systemd(start_relay: StartRelay) -> None:
    """systemd: takes over a listening socket that another process opened."""
    with passed_socket() as (port, launch):
        relay = start_relay(launch=launch)
        assert not answers(relay.port)
        async with pair(f"ws://{LOCALHOST}:{port}") as peers:
            await peers.exchange()


def test_an_admin_listener_on_a_unix_socket(tmp_path: Path) -> None:
    """An admin listener on a UNIX socket is open to the relay's user only, and the command can use it."""
    path, log = tmp_path / "admin.sock", tmp_path / "log"
    endpoints = ["--listen", f"tcp:0:interface={LOCALHOST}", "--admin-listen", "unix:admin.sock"]
    command = [twistd(), "-n", "--pidfile=", f"--reactor={REACTOR}", f"--logfile={log}", "pyryrelay", *endpoints]
    with subprocess.Popen(command, cwd=tmp_path, env=environment()) as relay:
        try:
            until(lambda: log.exists() and "metrics on unix:admin.sock" in log.read_text(), "the relay has started")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            done = run(
                sys.executable, "-m", "pyryrelay.cli.command", "--admin", f"unix:{path}", "--json", "jail", "list"
            )
            assert (done.returncode, done.stdout) == (0, "[]\n")
        finally:
            relay.terminate()
    assert relay.returncode == 0
