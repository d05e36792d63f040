"""A real certification authority for tests: Pebble, the ACME test server, on ports of its own.

It looks names up at a mock DNS server that says 127.0.0.1 for all of them, and checks challenges at the ports that the
test chooses.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port

MISSING = next((name for name in ("pebble", "pebble-challtestsrv") if shutil.which(name) is None), None)
DEADLINE_S = 15.0


@dataclass(frozen=True)
class Pebble:
    """A running authority: the URL of its directory, and the file of the certificate that its HTTPS has."""

    directory: str
    trusted: Path


@contextmanager
def pebble(
    folder: Path, certificate: tuple[Path, Path], http_port: int, tls_port: int, **variables: str
) -> Iterator[Pebble]:
    """Run an authority whose HTTPS has this certificate and key, and which checks challenges at two ports."""
    port, management, dns = free_port(), free_port(), free_port()
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate[0]),
        "privateKey": str(certificate[1]),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}), encoding="utf-8")
    names = ["pebble-challtestsrv", "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]
    names += ["-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{free_port()}"]
    authority = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
    environment = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"} | variables
    with (folder / "pebble.log").open("wb") as log:
        processes = [
            subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            for command in (names, authority)
        ]
        try:
            _wait_for(port, folder / "pebble.log")
            yield Pebble(f"https://localhost:{port}/dir", certificate[0])
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(DEADLINE_S)


def _wait_for(port: int, log: Path) -> None:
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"pebble does not listen: {log.read_text(errors='replace')[-500:]}")
