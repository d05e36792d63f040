"""Real nginx and haproxy, started in front of a relay and ended by their pid. Times are seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, answers, reserve_port, until

SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
NGINX = shutil.which("nginx", path=SYSTEM_PATH)
HAPROXY = shutil.which("haproxy", path=SYSTEM_PATH)
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")

NGINX_CONFIGURATION = """\
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    server {{
        listen {port};
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

NGINX_STREAM_CONFIGURATION = """\
{module}
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
stream {{
    server {{
        listen {port};
        proxy_pass {upstream};
        proxy_protocol on;
    }}
}}
"""

HAPROXY_CONFIGURATION = """\
defaults
    mode {mode}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend public
    bind {port}
    default_backend relay
backend relay
    {option}
    server relay {upstream}
"""


@dataclass(frozen=True)
class Proxy:
    """A reverse proxy that runs in front of a relay."""

    port: int

    @property
    def address(self) -> tuple[str, int]:
        """Return the address that clients connect to."""
        return LOCALHOST, self.port

    @property
    def uri(self) -> str:
        """Return `address` as the beginning of a WebSocket URI."""
        return f"ws://{LOCALHOST}:{self.port}"


@contextlib.contextmanager
def running(command: Sequence[str], directory: Path, port: int, path: str = "/healthz") -> Iterator[None]:
    """Run a proxy in the foreground until the end of the block; only this process is ended, by its pid.

    It is ready when it passes requests for ``path`` on.
    """
    log_path = directory / "proxy.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ready() -> bool:
        assert process.poll() is None, f"the proxy ended at once:\n{log_path.read_text(encoding='utf-8')}"
        return answers(port, path)

    try:
        until(ready, f"the proxy passes {path} on")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nginx(directory: Path, upstream: str, configuration: str = NGINX_CONFIGURATION) -> Iterator[Proxy]:
    """Run nginx, by default as it is usually set up: it appends the peer's address to X-Forwarded-For."""
    directory.mkdir()
    # Workers of a master that runs as root would switch to a user without access to this directory.
    user = "user root;" if os.getuid() == 0 else ""
    with reserve_port() as held:
        port = held.getsockname()[1]
        text = configuration.format(user=user, port=f"{LOCALHOST}:{port}", upstream=upstream)
        (directory / "nginx.conf").write_text(text, encoding="utf-8")
        command = [str(NGINX), "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
        with running(command, directory, port):
            yield Proxy(port)


def stream_module() -> str | None:
    """Return the line that loads nginx's stream module; empty if it is built in, None if it is missing."""
    if NGINX is None:
        return None
    asked = subprocess.run([NGINX, "-V"], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    built = asked.stderr.split()
    if "--with-stream" in built:
        return ""
    folders = [argument.partition("=")[2] for argument in built if argument.startswith("--modules-path=")]
    modules = [Path(folder) / "ngx_stream_module.so" for folder in folders]
    return next((f"load_module {module};" for module in modules if module.exists()), None)


@contextlib.contextmanager
def nginx_stream(directory: Path, upstream: str) -> Iterator[Proxy]:
    """Run an nginx that forwards TCP and names the client in a PROXY header of version 1."""
    directory.mkdir()
    module = stream_module()
    if module is None:
        pytest.skip("nginx has no stream module (Debian: libnginx-mod-stream)")
    user = "user root;" if os.getuid() == 0 else ""
    with reserve_port() as held:
        port = held.getsockname()[1]
        where = f"{LOCALHOST}:{port}"
        text = NGINX_STREAM_CONFIGURATION.format(module=module, user=user, port=where, upstream=upstream)
        (directory / "nginx.conf").write_text(text, encoding="utf-8")
        command = [str(NGINX), "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
        with running(command, directory, port):
            yield Proxy(port)


@contextlib.contextmanager
def haproxy(directory: Path, upstream: str, mode: str, option: str = "") -> Iterator[Proxy]:
    """Run haproxy, in mode tcp or http."""
    directory.mkdir()
    with reserve_port() as held:
        port = held.getsockname()[1]
        text = HAPROXY_CONFIGURATION.format(mode=mode, port=f"{LOCALHOST}:{port}", upstream=upstream, option=option)
        (directory / "haproxy.cfg").write_text(text, encoding="utf-8")
        with running([str(HAPROXY), "-db", "-f", "haproxy.cfg"], directory, port):
            yield Proxy(port)
