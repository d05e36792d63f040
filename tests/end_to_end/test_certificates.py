"""Certificates of a real relay: several names, files that change, and who may read them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import (
    DEADLINE_S,
    LOCALHOST,
    Launch,
    Relay,
    asynchronous,
    eventually,
    reserve_port,
    run_twistd,
    twistd,
    until,
)
from tests.end_to_end.peers import pair
from tests.end_to_end.raw import head, upgrade
from tests.support.tls_peers import client_context, named_certificate, write_pair

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ENDPOINT = f"ssl:{{port}}:interface={LOCALHOST}"


def write(where: Path, *names: str) -> Path:
    """Write a certificate for names as certbot does, and return its folder."""
    write_pair(named_certificate(*names), where / "fullchain.pem", where / "privkey.pem")
    return where


def names_at(relay: Relay, server_name: str | None = None) -> list[str]:
    """Return the names of the certificate that a new client gets."""
    with (
        socket.create_connection(relay.address, DEADLINE_S) as sock,
        client_context().wrap_socket(sock, server_hostname=server_name) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    found = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


def asked(relay: Relay, host: str, path: str = "/healthz", server_name: str | None = None) -> bytes:
    """Return the status line of the answer to a request."""
    request = upgrade(path, "unclaimed") if path.startswith("/v1") else head(path)
    request = request.replace(b"Host: relay\r\n", b"").replace(b"\r\n", f"\r\nHost: {host}\r\n".encode(), 1)
    with (
        socket.create_connection(relay.address, DEADLINE_S) as sock,
        client_context().wrap_socket(sock, server_hostname=server_name) as tls,
    ):
        tls.sendall(request)
        return tls.recv(65536).partition(b"\r\n")[0]


def s_client(relay: Relay, *options: str) -> tuple[int, str]:
    """Return the exit code and the output of openssl's client."""
    command = ["openssl", "s_client", "-connect", f"{LOCALHOST}:{relay.port}", *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.thorough
@needs_openssl
def test_openssl_as_a_client(start_relay: StartRelay, tmp_path: Path) -> None:
    """Each name has its certificate; TLS 1.2 has a floor and modern ciphers; ALPN is http/1.1."""
    one, wild = write(tmp_path / "one", "one.example.org"), write(tmp_path / "wild", "*.example.org")
    relay = start_relay("--certificate", str(one), "--certificate", str(wild), launch=Launch([ENDPOINT]))
    for name, subject in (("one.example.org", "one.example.org"), ("two.example.org", "*.example.org")):
        code, output = s_client(relay, "-servername", name, "-alpn", "http/1.1")
        assert (code, f"subject=CN = {subject}" in output.replace("CN=", "CN = ")) == (0, True)
        assert "ALPN protocol: http/1.1" in output
    assert "subject=CN = one.example.org" in s_client(relay, "-noservername")[1].replace("CN=", "CN = ")
    for option in ("-tls1", "-tls1_1"):
        code, output = s_client(relay, option, "-cipher", "ALL:@SECLEVEL=0")
        assert code != 0
        assert "Cipher is (NONE)" in output
    assert s_client(relay, "-tls1_2")[0] == s_client(relay, "-tls1_3")[0] == 0
    for ciphers in ("AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"):
        assert "Cipher is (NONE)" in s_client(relay, "-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0")[1]
    for ciphers in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        assert f"Cipher is {ciphers}" in s_client(relay, "-tls1_2", "-cipher", ciphers)[1]


@pytest.mark.thorough
@asynchronous
async def test_files_change_and_nobody_is_disconnected(start_relay: StartRelay, tmp_path: Path) -> None:
    """Peers go on while certificates are rewritten and links are swapped; new connections get the new ones."""
    first, second = write(tmp_path / "archive1", "a.example.org"), write(tmp_path / "archive2", "b.example.org")
    live = tmp_path / "live"
    live.symlink_to(first)
    relay = start_relay("--certificate", str(live), launch=Launch([ENDPOINT]))
    uri = f"wss://{LOCALHOST}:{relay.port}"
    async with pair(uri, ssl=client_context()) as peers:
        exchanged = 0

        async def talk() -> None:
            nonlocal exchanged
            while True:
                await peers.exchange()
                exchanged += 1
                await asyncio.sleep(0)

        talking = asyncio.create_task(talk())
        try:
            assert await asyncio.to_thread(names_at, relay) == ["a.example.org"]
            (tmp_path / "swapped").symlink_to(second)
            (tmp_path / "swapped").rename(live)
            await relay.log_will_have("took over a new certificate of b.example.org")
            assert await asyncio.to_thread(names_at, relay) == ["b.example.org"]
            write(second, "c.example.org")
            await relay.log_will_have("took over a new certificate of c.example.org")
            assert await asyncio.to_thread(names_at, relay) == ["c.example.org"]
            (second / "privkey.pem").write_bytes((first / "privkey.pem").read_bytes())
            await relay.log_will_have("not taken over: the key in ")
            assert await asyncio.to_thread(names_at, relay) == ["c.example.org"]
            before = exchanged
            await eventually(lambda: exchanged > before, "the pair still talks")
            assert not talking.done()
        finally:
            talking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await talking
    assert relay.log().count("not taken over") == 1


@pytest.mark.thorough
def test_a_reload_adds_a_name(start_relay: StartRelay, tmp_path: Path) -> None:
    """SIGHUP takes in certificates and hosts that the configuration names now, and keeps all if one is broken."""
    one, two = write(tmp_path / "one", "one.example.org"), write(tmp_path / "two", "two.example.org")
    config = tmp_path / "relay.toml"
    config.write_text(f'certificate = ["{one}"]\nhost = ["one.example.org"]\n')
    relay = start_relay("--config", str(config), launch=Launch([ENDPOINT]))
    assert names_at(relay, "two.example.org") == ["one.example.org"]
    config.write_text(f'certificate = ["{one}", "{tmp_path}/nowhere"]\nhost = ["two.example.org"]\n')
    relay.signal(signal.SIGHUP)
    relay.log_has("reload changed nothing: --certificate", "No such file or directory")
    assert asked(relay, "one.example.org", "/v1/client").startswith(b"HTTP/1.1 101 ")
    config.write_text(f'certificate = ["{one}", "{two}"]\nhost = ["two.example.org"]\n')
    relay.signal(signal.SIGHUP)
    relay.log_has("reloaded, changed: certificate, host")
    assert names_at(relay, "two.example.org") == ["two.example.org"]
    assert asked(relay, "one.example.org", "/v1/client") == b"HTTP/1.1 421 Misdirected Request"
    assert asked(relay, "two.example.org", "/v1/client", "two.example.org").startswith(b"HTTP/1.1 101 ")
    assert asked(relay, "two.example.org", "/v1/client", "one.example.org") == b"HTTP/1.1 421 Misdirected Request"
    assert asked(relay, "10.0.0.5").startswith(b"HTTP/1.1 200 ")
    assert relay.refusals("wrong_host") == 2
    source = f'name="two.example.org",source="{two}"'
    assert relay.metrics()[f"pyryrelay_tls_certificate_expiry_timestamp_seconds{{{source}}}"] > 0


@pytest.mark.thorough
@needs_root
@pytest.mark.parametrize("is_folder_closed", [True, False])
def test_a_key_that_only_root_may_read(is_folder_closed: bool) -> None:
    """The relay reads the key as root, serves it as another user, and says once that it cannot read it again."""
    # Other users may not enter pytest's own folder.
    with tempfile.TemporaryDirectory() as name:
        where, run_directory = Path(name), Path(name) / "run"
        live = write(where / "live", "one.example.org")
        run_directory.mkdir()
        for folder, mode in ((where, 0o755), (live, 0o700 if is_folder_closed else 0o755)):
            folder.chmod(mode)
        os.chown(run_directory, 65534, 65534)
        launch = Launch([ENDPOINT], program=(twistd(), "--uid=65534", "--gid=65534"))
        relay = Relay(run_directory, ["--certificate", str(live), "--jail-file", ""], launch)
        try:
            assert names_at(relay) == ["one.example.org"]
            (line,) = relay.log_has("cannot be read by the relay's user")
            assert "have a renewal hook copy the files" in line
            write(live, "two.example.org")
            for path, mode in ((live / "fullchain.pem", 0o644), (live / "privkey.pem", 0o640), (live, 0o755)):
                shutil.chown(path, group=65534)
                path.chmod(mode)
            until(lambda: names_at(relay) == ["two.example.org"], "the new certificate is served")
            assert relay.log().count("not taken over") == 1
        finally:
            relay.stop()


def admin(port: int, path: str) -> bytes:
    """Return the answer of an admin listener that speaks TLS; nothing if it does not listen yet."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((LOCALHOST, port), DEADLINE_S) as sock,
        client_context(alpn=["h2", "http/1.1"]).wrap_socket(sock) as tls,
    ):
        tls.sendall(head(path, ("Host", LOCALHOST), ("Connection", "close")))
        return b"".join(iter(lambda: tls.recv(65536), b""))
    return b""


@pytest.mark.thorough
def test_the_admin_listener_over_tls(tmp_path: Path) -> None:
    """The admin listener has the certificates of all endpoints."""
    live = write(tmp_path / "live", "one.example.org")
    with reserve_port() as held:
        port: int = held.getsockname()[1]

        class TlsAdminRelay(Relay):
            def _is_ready(self) -> bool:
                return admin(port, "/healthz").startswith(b"HTTP/1.1 200 ")

        options = ["--certificate", str(live), "--admin-listen", f"ssl:{port}:interface={LOCALHOST}"]
        relay = TlsAdminRelay(tmp_path / "relay", options)
        try:
            metrics = admin(port, "/metrics")
            assert b"\npyryrelay_uptime_seconds " in metrics
            assert b'expiry_timestamp_seconds{name="one.example.org"' in metrics
        finally:
            relay.stop()


@pytest.mark.thorough
def test_what_prevents_a_start(tmp_path: Path) -> None:
    """A key that any user can use is one line with the fix, and exit code 2."""
    live = write(tmp_path / "live", "one.example.org")
    (live / "privkey.pem").chmod(0o644)
    for more in ([], ["--check"]):
        done = run_twistd(tmp_path, "--certificate", str(live), "--listen", "ssl:0", *more)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert line.endswith(f"that any user of this machine can use (mode 644); chmod 640 {live}/privkey.pem")
