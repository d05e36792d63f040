"""Proxies that run with the files of contrib/, with ports, certificates and the relay's address of the test.

Only the process that was started here is ended, by its pid.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, until
from tests.end_to_end.proxies import HAPROXY, NGINX, SYSTEM_PATH
from tests.support.tls_peers import key_pair

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
CADDY = shutil.which("caddy", path=SYSTEM_PATH)
NAME = "relay.example.org"
FROM_THE_RELAY = (200, 404, 426)
"""Answers of a relay to a plain request for /."""
needs_caddy = pytest.mark.skipif(CADDY is None, reason="caddy is not installed (Debian: caddy)")


def text_of(name: str) -> str:
    """Return the text of a file of contrib/."""
    return (CONTRIB / name).read_text(encoding="utf-8")


def with_changes(text: str, changes: Mapping[str, str]) -> str:
    """Return the text with every key replaced by its value. Each key must be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Front:
    """A proxy that terminates TLS on a port of this machine."""

    port: int

    @property
    def uri(self) -> str:
        """Return the beginning of a WebSocket URI."""
        return f"wss://{NAME}:{self.port}"


def trusting() -> ssl.SSLContext:
    """Return a context that accepts the proxy's certificate, whatever its name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def write_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Write a certificate, its key, and a file with both; return their paths."""
    key, certificate = key_pair()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = certificate.public_bytes(pem)
    paths = folder / "cert.pem", folder / "key.pem", folder / "both.pem"
    for path, content in zip(paths, (public, secret, public + secret), strict=True):
        path.write_bytes(content)
    return paths


def _passes(front: Front) -> bool:
    """Tell whether the proxy passes a plain request on to the relay, which answers what it does without an upgrade."""
    connection = http.client.HTTPConnection(LOCALHOST, front.port, timeout=DEADLINE_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        plain = socket.create_connection((LOCALHOST, front.port), DEADLINE_S)
        connection.sock = trusting().wrap_socket(plain, server_hostname=NAME)
        connection.request("GET", "/", headers={"Host": NAME})
        return connection.getresponse().status in FROM_THE_RELAY
    return False


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    front: Front,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Front]:
    """Run a proxy in the foreground until the end of the block."""
    log_path = folder / "front.log"
    variables = {**os.environ, **(environment or {})}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def ready() -> bool:
        assert process.poll() is None, f"{command[0]} ended at once:\n{log_path.read_text(encoding='utf-8')}"
        return _passes(front)

    try:
        until(ready, f"{command[0]} passes requests on")
        yield front
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nginx(file: str, folder: Path, port: int, relay: int | Path) -> Iterator[Front]:
    """Run nginx with a file that Debian's nginx.conf would include from sites-enabled.

    ``relay`` is the port of the relay, or the folder of its workers' sockets.
    """
    certificate, key, _ = write_certificate(folder)
    site = with_changes(
        text_of(file),
        {
            "    listen 443 ssl;\n    listen [::]:443 ssl;": f"    listen {LOCALHOST}:{port} ssl;",
            f"/etc/letsencrypt/live/{NAME}/fullchain.pem": str(certificate),
            f"/etc/letsencrypt/live/{NAME}/privkey.pem": str(key),
            **_where(relay),
        },
    )
    (folder / "site.conf").write_text(site, encoding="utf-8")
    paths = "".join(f"{kind}_temp_path {kind}; " for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"daemon off; pid nginx.pid; error_log stderr; events {{}} {'user root;' if os.getuid() == 0 else ''}\n"
    main += f"http {{ access_log off; client_body_temp_path body; {paths} include {folder}/site.conf; }}\n"
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    with started([str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], folder, Front(port)) as front:
        yield front


def _where(relay: int | Path) -> dict[str, str]:
    """Return what changes in a file of a proxy that looks for the relay elsewhere."""
    if isinstance(relay, Path):
        return {"/run/pyryrelay": str(relay)}
    return {"127.0.0.1:8080": f"{LOCALHOST}:{relay}"}


@contextlib.contextmanager
def haproxy(folder: Path, port: int, relay: int | Path, file: str = "haproxy/haproxy.cfg") -> Iterator[Front]:
    """Run haproxy with a file; see `nginx`."""
    both = write_certificate(folder)[2]
    changes = {
        "bind :443": f"bind {LOCALHOST}:{port}",
        f"/etc/haproxy/{NAME}.pem": str(both),
        **_where(relay),
        # It must be able to open twice as many files.
        "maxconn 20000": "maxconn 200",
    }
    (folder / "haproxy.cfg").write_text(with_changes(text_of(file), changes), encoding="utf-8")
    with started([str(HAPROXY), "-db", "-f", "haproxy.cfg"], folder, Front(port)) as front:
        yield front


@contextlib.contextmanager
def caddy(folder: Path, port: int, relay_port: int) -> Iterator[Front]:
    """Run Caddy with its file, and with a certificate of its own instead of one that it would ask the internet for."""
    certificate, key, _ = write_certificate(folder)
    head = "{\n\tadmin off\n\tauto_https off\n}\n"
    head += f"https://{NAME}:{port} {{\n\tbind {LOCALHOST}\n\ttls {certificate} {key}"
    changes = {f"{NAME} {{": head, "127.0.0.1:8080": f"{LOCALHOST}:{relay_port}"}
    (folder / "Caddyfile").write_text(with_changes(text_of("caddy/Caddyfile"), changes), encoding="utf-8")
    homes = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    command = [str(CADDY), "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    with started(command, folder, Front(port), homes) as front:
        yield front
