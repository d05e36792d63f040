"""Common code of the benchmarks: server processes, pinned apart from the load, and results.

Servers run on the first half of the cores. The load generator (this process, from its first server on) runs on the
second half. Both have real-time priority where that is permitted, so that other work of the machine is not measured.
CPU time and memory are read from the operating system. Servers listen on loopback, run in a temporary directory, and
end with the block that started them. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _machine import cores, die_with_parent, machine, pin, pin_load, pin_server, prepare, program
from _results import Row, alternate, publish, save

__all__ = [
    "AUTOBAHN",
    "GENEROUS",
    "HOST",
    "MEMORY_DIRECTORY",
    "NGINX",
    "OURS",
    "ROOT",
    "Row",
    "Server",
    "alternate",
    "arguments",
    "certificate",
    "cores",
    "die_with_parent",
    "directory",
    "free_port",
    "listens",
    "machine",
    "nginx",
    "nginx_command",
    "parser_for",
    "peer",
    "pin",
    "pin_load",
    "pin_server",
    "prepare",
    "program",
    "publish",
    "relay",
    "rival",
    "running",
    "save",
]

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
OURS, AUTOBAHN, NGINX = "pyryrelay", "plain Autobahn", "nginx"
START_S, STOP_S = 20.0, 20.0
MEMORY_DIRECTORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""The folder of temporary files, in memory, so that disk latency is not measured."""
KINDS = ("upgrade", "prefix", "http", "tls", "tls-prefix", "frame", "byte", "ping")
GENEROUS = (
    *(
        word
        for kind in ("upgrade", "prefix", "http", "tls", "tls-prefix", "frame", "byte", "ping")
        for word in (f"--{kind}-quota", "off")
    ),
    *("--max-connections", "100000", "--max-connections-per-address", "100000", "--max-connections-per-prefix", "off"),
    *("--max-binaries-per-address", "off", "--max-phones", "100000", "--jail-after", "off"),
)
"""Options of a relay for measurements in which its limits must not interfere."""


def arguments(description: str) -> argparse.Namespace:
    """Parse the command line of a benchmark: ``quick``, ``json``, ``rounds`` (None: the script's default), ``peer``."""
    parser = parser_for(description)
    options = parser.parse_args()
    prepare()
    return options


def parser_for(description: str) -> argparse.ArgumentParser:
    """Return the parser of `arguments`, for benchmarks with further options; these call `prepare` themselves."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter and rougher")
    parser.add_argument("--json", metavar="FILE", type=Path, help="append the results to this file, one object a row")
    parser.add_argument("--rounds", metavar="N", type=int, help="how often the rivals are measured in turn")
    parser.add_argument("--peer", metavar="URL", help="a running relay to compare with, such as ws://127.0.0.1:8080")
    return parser


# Servers


class Server:
    """A server that listens on ``port`` of ``host`` and runs in ``directory``.

    ``admin_port`` is the port of a relay's metrics, or 0.
    """

    def __init__(self, pid: int, port: int, directory: Path, host: str = HOST, admin_port: int = 0) -> None:
        self._pid = pid
        self.port = port
        self.host = host
        self.directory = directory
        self.admin_port = admin_port

    @property
    def pids(self) -> list[int]:
        """The process numbers of the server and its descendants."""
        found = [self._pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, task.read_text(encoding="ascii").split())
        return found

    def cpu_s(self, settle_s: float = 0.0) -> float:
        """Return the CPU time of all threads so far, user and system. It is exact while the server is idle.

        ``settle_s`` is the time to wait first, so that the server can finish its work.
        """
        time.sleep(settle_s)
        files = [file for pid in self.pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(file.read_text(encoding="ascii").split()[0]) for file in files) / 1e9

    def resident_bytes(self) -> int:
        """Return the resident memory as proportional set size (Pss), which counts shared pages once."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in self.pids]
        return sum(int(size) * 1024 for text in texts for size in re.findall(r"^Pss:\s+(\d+) kB", text, re.M))

    def metric(self, pattern: str) -> float:
        """Return the sum of a relay's samples whose names and labels match the regular expression."""
        url = f"http://{HOST}:{self.admin_port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.M))


def free_port() -> int:
    """Return an unused loopback port outside the range of ephemeral ports."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    while True:
        port = random.randrange(max(1024, first - 12_000), first)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((HOST, port))
            return port


def listens(port: int) -> bool:
    """Return whether a process listens on a port, without connecting, which would count as a client."""
    return _listening_inode(port) is not None


def _listening_inode(port: int) -> str | None:
    text = "".join(Path(f"/proc/thread-self/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6"))
    found = re.search(rf":{port:04X} [0-9A-F]+:0000 0A (?:\S+ +){{5}}(\d+)", text)
    return found[1] if found else None


@contextlib.contextmanager
def running(
    command: Sequence[str], directory: Path, port: int, admin_port: int = 0, host: str = HOST
) -> Iterator[Server]:
    """Run a process on the server's cores; the block is entered when it listens."""
    pin_load()
    path = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    log = directory / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            # The worker of an address and of a server-id must be known.
            env={name: value for name, value in os.environ.items() if not name.startswith("PYRYRELAY_")}
            | {"_PYRYRELAY_SEED": "0"}
            | {"PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=pin_server,
        )
    server = Server(process.pid, port, directory, host, admin_port)
    try:
        end_s = time.monotonic() + START_S
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end_s:
                raise SystemExit(f"{command[0]} did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")
            time.sleep(0.002)
        yield server
    finally:
        _end(process, server)


def _end(process: subprocess.Popen[bytes], server: Server) -> None:
    """Stop a process, cleanly if it ends in time. A relay that gets a second SIGTERM does not wait for its peers."""
    for patience_s in (1.0, STOP_S):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return
    for pid in server.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Create a temporary directory, in memory if possible."""
    with tempfile.TemporaryDirectory(prefix="pyryrelay-bench-", dir=MEMORY_DIRECTORY) as name:
        yield Path(name)


@contextlib.contextmanager
def relay(
    *options: str,
    tls: bool = False,
    rsa: bool = False,
    generous: bool = True,
    host: str = HOST,
    starter: Sequence[str] = (),
) -> Iterator[Server]:
    """Run ``twistd pyryrelay`` from this source tree.

    ``generous`` disables quotas and caps, except for what ``options``, which come last, set. ``tls`` makes an ``ssl:``
    endpoint with a new certificate, with an ECDSA key or with ``rsa``. ``host`` is the IPv4 address to listen on.
    ``starter`` is a command that is run instead of ``twistd pyryrelay``, with the same options.
    """
    port, admin_port = free_port(), free_port()
    with directory() as where:
        listen = f"tcp:{port}:interface={host}"
        if tls:
            certificate(where, rsa=rsa)
            listen = f"ssl:{port}:interface={host}:privateKey=key.pem:certKey=cert.pem"
        twistd = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "pyryrelay"]
        command = [*(starter or twistd), "--listen", listen, "--jail-file", ""]
        command += ["--admin-listen", f"tcp:{admin_port}:interface={HOST}", *(GENEROUS if generous else ()), *options]
        with running(command, where, port, admin_port, host) as server:
            yield server


@contextlib.contextmanager
def rival(name: str, *args: str, tls: bool = False) -> Iterator[Server]:
    """Run a script of the folder ``rivals``; see there for its arguments."""
    port = free_port()
    with directory() as where:
        if tls:
            certificate(where)
            args = (*args, "--tls")
        script = str(Path(__file__).with_name("rivals") / f"{name}.py")
        with running([sys.executable, script, str(port), *args], where, port) as server:
            yield server


NGINX_CONFIG = """\
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{http}
}}
"""


def nginx_command(http: str, where: Path) -> list[str]:
    """Write a configuration with this content of the ``http`` block; return the command that runs it."""
    user = "user root;" if os.getuid() == 0 else ""
    (where / "nginx.conf").write_text(NGINX_CONFIG.format(user=user, http=http), encoding="utf-8")
    return [program("nginx") or "nginx", "-p", str(where), "-c", "nginx.conf", "-e", "stderr"]


@contextlib.contextmanager
def nginx(http: str) -> Iterator[Server]:
    """Run nginx with one worker. ``http`` is the content of its ``http`` block, with ``$PORT`` for the port."""
    port = free_port()
    with directory() as where, running(nginx_command(http.replace("$PORT", str(port)), where), where, port) as server:
        yield server


@contextlib.contextmanager
def peer(url: str) -> Iterator[Server]:
    """Use a relay that is already running on this machine. It is neither pinned nor stopped."""
    parts = urlsplit(url)
    host, port = parts.hostname or HOST, parts.port or 80
    pin_load()
    inode = _listening_inode(port)
    links = [link for link in Path("/proc").glob("[0-9]*/fd/*") if inode is not None and _is_socket(link, inode)]
    if not links:
        raise SystemExit(f"--peer {url!r}: no process on this machine listens there, or it is not visible")
    with directory() as where:
        yield Server(min(int(link.parts[2]) for link in links), port, where, host)


def _is_socket(link: Path, inode: str) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(link) == f"socket:[{inode}]"
    return False


def certificate(where: Path, *, rsa: bool = False) -> None:
    """Write a self-signed certificate for loopback to ``key.pem`` and ``cert.pem``, with a P-256 or RSA 2048 key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric import rsa as rivest_shamir_adleman

    key: Any = (
        rivest_shamir_adleman.generate_private_key(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())
    )
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (where / "key.pem").touch(0o600)
    (where / "key.pem").write_bytes(secret)
    (where / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
