"""The commands of an operator against a real relay: probe, status, top, explain and config."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.end_to_end.admin import pyryrelay, told
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import LOCALHOST, ROOT, Launch, Relay, reserve_port, run, until
from tests.end_to_end.proxies import NGINX_CONFIGURATION, needs_nginx, nginx
from tests.support.tls_peers import endpoint_arguments

SLOW = "1/hour burst 1"


def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a probe, whatever becomes of it."""
    return run(sys.executable, "-m", "pyryrelay.cli.command", "probe", *arguments)


def names(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the names of the steps that were fine."""
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [row[1] for row in rows if row[0] == "ok"]


def problem(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line about what is wrong, which is the only one on standard error."""
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("pyryrelay: ws")
    return line


# Probe


def test_a_pair_of_pyry(start_relay: StartRelay) -> None:
    """A binary and a phone talk through the relay; a frame goes each way, and the close notice comes."""
    relay = start_relay("--nostr")
    done = probe(f"ws://{LOCALHOST}:{relay.port}")
    assert (done.returncode, done.stderr) == (0, "")
    assert names(done) == [
        *("name", "binary: TCP", "binary: upgrade", "binary: registration"),
        *("phone: TCP", "phone: upgrade", "phone: registration"),
        *("frame: phone to binary", "answer: binary to phone"),
        *("phone: close", "binary: close notice", "binary: close"),
    ]
    assert "binary: close notice\t" in done.stdout
    assert "\tcode 1000\n" in done.stdout


def test_a_nostr_client(start_relay: StartRelay) -> None:
    """The document, a subscription and an ephemeral event; a relay that asks for authentication gets it."""
    relay = start_relay("--nostr", "--nostr-read", "auth", "--nostr-write", "auth")
    url = f"ws://{LOCALHOST}:{relay.port}"
    done = probe("--nostr", "--publish", url, "--json")
    body = json.loads(done.stdout)
    assert (done.returncode, body["ok"], body["url"]) == (0, True, url)
    taken = [step["name"] for step in body["steps"]]
    assert {"information document", "AUTH to OK", "REQ to EOSE", "EVENT to OK", "client: close"} <= set(taken)
    assert all(step["seconds"] >= 0 for step in body["steps"])


def test_a_nostr_relay_of_others() -> None:
    """The relay of nostr-sdk (Rust) does well too; that it has no information document is a warning."""
    with reserve_port() as held:
        port = held.getsockname()[1]
    program = ROOT / "benchmarks" / "rivals" / "nostr_sdk_relay.py"
    with subprocess.Popen([sys.executable, str(program), str(port)]) as other:
        try:
            until(lambda: is_listening(port), "the other relay listens")
            done = probe("--nostr", "--publish", f"ws://{LOCALHOST}:{port}")
        finally:
            other.kill()
    assert (done.returncode, done.stderr) == (0, "")
    assert {"REQ to EOSE", "EVENT to OK", "client: close"} <= set(names(done))
    assert "warning\tinformation document\t" in done.stdout


def is_listening(port: int) -> bool:
    """Tell whether a port of this machine accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection((LOCALHOST, port), 5):
        return True
    return False


def test_a_relay_with_tls(start_relay: StartRelay, tmp_path: Path) -> None:
    """A certificate that is not known here is a problem; trusted it is not, and its end soon is a warning."""
    listen = (f"ssl:{{port}}:{endpoint_arguments(tmp_path)}:interface={LOCALHOST}",)
    relay = start_relay(launch=Launch(listen=listen))
    url = f"wss://localhost:{relay.port}"
    assert "binary: TLS: the certificate is refused: " in problem(probe(url))
    assert "; write wss:// in the URL" in problem(probe(f"ws://{LOCALHOST}:{relay.port}"))
    done = probe("--insecure", url)
    assert (done.returncode, "warning\tcertificate\t" in done.stdout) == (0, True)
    assert ": certificate: it ends in 1 days; renew it" in problem(probe("--insecure", "--strict", url))


def test_what_the_relay_refuses(start_relay: StartRelay) -> None:
    """Quota, deny list and path are told from each other, with the fix."""
    relay = start_relay("--upgrade-quota", SLOW)
    line = problem(probe(f"ws://{LOCALHOST}:{relay.port}"))
    assert "phone: upgrade: it was answered 429 Too Many Requests: it has had too many attempts" in line
    assert " s (Retry-After); on the relay's machine, `pyryrelay explain ADDRESS`" in line
    denying = start_relay("--deny", LOCALHOST)
    url = f"ws://{LOCALHOST}:{denying.port}"
    assert "403 Forbidden: this client is jailed or denied" in problem(probe(url))
    allowing = start_relay()
    line = problem(probe(f"ws://{LOCALHOST}:{allowing.port}/elsewhere"))
    assert "404 Not Found: it does not know the path of the protocol; check the URL" in line
    assert "with a page (text/plain), and not upgraded" in problem(
        probe("--nostr", f"ws://{LOCALHOST}:{allowing.admin_port}")
    )


def test_a_server_id_that_is_taken(start_relay: StartRelay) -> None:
    """The close code of the protocol is explained in its own words."""
    relay = start_relay("--max-phones", "1")
    url = f"ws://{LOCALHOST}:{relay.port}"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, f"{url}/v1/server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        line = problem(probe("--server-id", "mine", url))
        # The relay first asks whether the one that holds it is still there.
        assert "closed with 4409 'server-id already claimed': another binary has that server-id" in line
        first.communicate("")


HOLDER = """
import sys
from websockets.sync.client import connect
headers = {"X-Pyrycode-Server": "mine", "X-Pyrycode-Version": "1"}
with connect(sys.argv[1], additional_headers=headers):
    print("held", flush=True)
    sys.stdin.read()
"""


@needs_nginx
def test_a_proxy_that_does_not_pass_upgrades_on(start_relay: StartRelay, tmp_path: Path) -> None:
    """An nginx without the Upgrade field is explained with the three lines that it lacks; with them all is well."""
    relay = start_relay("--trust-x-forwarded-for", "--trusted-proxy", LOCALHOST)
    upgrade = "proxy_set_header Upgrade $http_upgrade;"
    broken = NGINX_CONFIGURATION.replace(upgrade, "").replace("Connection $connection_upgrade", 'Connection ""')
    for number, configuration in enumerate((broken, NGINX_CONFIGURATION)):
        with nginx(tmp_path / f"nginx-{number}", f"{LOCALHOST}:{relay.port}", configuration) as proxy:
            done = probe(proxy.uri)
            if configuration is broken:
                line = problem(done)
                assert "binary: upgrade: it was answered 426 Upgrade Required: it saw no request for an upgrade" in line
                assert "proxy_set_header Upgrade $http_upgrade" in line
            else:
                assert (done.returncode, done.stderr) == (0, "")


@needs_nginx
def test_a_proxy_without_a_relay(start_relay: StartRelay, tmp_path: Path) -> None:
    """A proxy that cannot reach the relay is told from the relay."""
    relay = start_relay()
    with nginx(tmp_path / "nginx", f"{LOCALHOST}:{relay.port}") as proxy:
        relay.stop()
        assert "502 Bad Gateway: the proxy in front cannot reach the relay" in problem(probe(proxy.uri))


# The others


@pytest.fixture
def busy(start_relay: StartRelay) -> Relay:
    """A relay that has refused something, and has two quotas of its own."""
    relay = start_relay("--upgrade-quota", SLOW, "--grace", "7")
    assert probe(f"ws://{LOCALHOST}:{relay.port}").returncode == 1
    return relay


def test_status_and_top(busy: Relay) -> None:
    """The figures are those of the relay, as rows, as JSON and as a line for each moment."""
    rows = dict(line.split("\t") for line in told(busy, "status"))
    assert (rows["state"], rows["refused.rate_limit"], rows["limits.grace"]) == ("running", "1", "7")
    assert json.loads("".join(told(busy, "status", "--json")))["admitted"]["server"] == 1
    first, second = told(busy, "top", "--count", "2", "--interval", "0.2")
    assert first.count("\t") == second.count("\t") == 10
    assert "-" in first
    assert "-" not in second.split("\t")[2]


def test_explain(busy: Relay) -> None:
    """The quota that refuses is named, with the exit code 1; asking changes nothing."""
    for _ in range(3):
        done = pyryrelay(busy, "explain", LOCALHOST)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(f"{LOCALHOST} ({LOCALHOST}/32) would now be refused: rate_limit; it should try")
        assert "\nREFUSES\tquota of upgrades\tnone left for " in done.stdout
    assert told(busy, "explain", "192.0.2.7")[0] == "192.0.2.7 (192.0.2.7/32) would now be admitted"
    told(busy, "jail", "add", "192.0.2.7")
    assert "would now be jailed" in pyryrelay(busy, "explain", "192.0.2.7").stdout


def test_settings_of_a_running_relay(busy: Relay) -> None:
    """They have the sources of the start."""
    rows = dict(line.split("\t", 1) for line in told(busy, "config", "print", "--changed"))
    assert rows["--grace"] == "7\tcommand line"
    assert rows["--upgrade-quota"] == "1/hour burst 1\tcommand line"
    assert "--deny" not in rows
