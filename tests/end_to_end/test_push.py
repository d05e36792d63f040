"""Push wakes of a real relay, sent to services on this machine that answer well, badly and not at all."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Launch, Relay, asynchronous, eventually, run_twistd
from tests.end_to_end.peers import binary, pair, received
from tests.support.push import fcm_error, key_text
from tests.support.push_server import ACCESS_TOKEN, Answer, PushServer, endless, half_closed, plain, push_server
from tests.support.tls_peers import named_certificate, write_pair

TOKEN = "m4rker-d3vice:APA91b"
WAKE = json.dumps({"push_wake": {"platform": "fcm", "token": TOKEN}})
UNREGISTERED = fcm_error("NOT_FOUND", "UNREGISTERED", TOKEN)
SAYING_WHY = "push wake of 'x', connection"


def outcomes(relay: Relay) -> dict[str, float]:
    """Return how many wakes had which outcome."""
    beginning = 'pyrycode_relay_push_wakes_total{outcome="'
    found = relay.metrics().items()
    return {name.removeprefix(beginning)[:-2]: count for name, count in found if name.startswith(beginning) and count}


def assert_confidential(relay: Relay) -> None:
    """Check that no secret is in the log, nor any line of Twisted's about a request."""
    shown = relay.log()
    for secret in ("m4rker", "PRIVATE KEY", "iam.gserviceaccount.com", "HTTP11ClientProtocol", "HTTP11ClientFactory"):
        assert secret not in shown


@pytest.fixture
def services() -> Iterator[PushServer]:
    """The two services."""
    with push_server() as server:
        yield server


@asynchronous
async def test_a_phone_is_woken(start_relay: StartRelay, services: PushServer, tmp_path: Path) -> None:
    """From the binary's envelope to the request at the service; a dead token is reported; the log has no secret."""
    relay = start_relay(*services.options(tmp_path), "--push-feedback")
    services.answers = [plain(), plain(404, UNREGISTERED)]
    async with binary(relay.uri, "x") as one:
        await one.send(WAKE)
        await one.send(WAKE)
        assert json.loads(await received(one)) == {
            "push_wake_result": {"platform": "fcm", "token": TOKEN, "outcome": "unregistered"}
        }
    await eventually(lambda: outcomes(relay) == {"sent": 1, "unregistered": 1}, "both wakes are counted")
    assert [len(services.grants), len(services.wakes)] == [1, 2]
    for wake in services.wakes:
        assert wake.target == "/v1/projects/my-project/messages:send"
        assert wake.fields["authorization"] == f"Bearer {ACCESS_TOKEN}"
        assert json.loads(wake.body) == {"message": {"token": TOKEN, "android": {"priority": "HIGH"}}}
    assert "m4rker" not in str(relay.metrics())
    assert f"{SAYING_WHY} 1: unregistered, UNREGISTERED (0 more left out)" in relay.log()
    relay.stop()
    assert_confidential(relay)


def test_a_key_that_cannot_be_used(tmp_path: Path, services: PushServer) -> None:
    """The start is refused in one line that quotes nothing, with exit code 2."""
    path = services.key_file(tmp_path)
    path.write_text(key_text(private_key="-----BEGIN PRIVATE KEY-----\nm4rker\n-----END PRIVATE KEY-----\n"))
    result = run_twistd(tmp_path, "--listen", "tcp:0", "--push-credentials", str(path))
    assert result.returncode == 2
    shown = result.stdout + result.stderr
    assert shown.count("\n") == 1
    assert "--push-credentials" in shown
    assert "m4rker" not in shown


ANSWERS: dict[str, tuple[list[Answer], str]] = {
    "redirecting": ([plain(302, b"", "Location: http://127.0.0.1:1/\r\n")], "send_failed, HTTP 302"),
    "refusing": ([plain(403, fcm_error("PERMISSION_DENIED", message=TOKEN))], "send_failed, PERMISSION_DENIED"),
    "a huge body": ([endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)], "send_failed, too_large"),
    "a huge head": (
        [endless(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n")] * 2,
        "send_failed, connection_lost",
    ),
    "malformed": ([plain(200, b"\xff{" + TOKEN.encode())], "send_failed, malformed"),
    "no HTTP": ([lambda connection: connection.sendall(b"m4rker\r\n\r\n")] * 2, "send_failed, malformed"),
    "half-closed": ([half_closed(), half_closed()], "send_failed, connection_lost"),
    "compressed": ([plain(200, b"x" * 100, "Content-Encoding: gzip\r\n")], "send_failed, compressed"),
    "asking for a pause": ([plain(429, b"", "Retry-After: 3600\r\n")], "send_failed, HTTP 429"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [*ANSWERS])
@asynchronous
async def test_bad_answers(kind: str, start_relay: StartRelay, services: PushServer, tmp_path: Path) -> None:
    """Each bad answer has its line; peers do not notice, and the relay ends in order."""
    relay = start_relay(*services.options(tmp_path))
    services.answers, line = list(ANSWERS[kind][0]), ANSWERS[kind][1]
    async with pair(relay.uri, "x") as peers:
        await peers.binary.send(WAKE)
        await relay.log_will_have(SAYING_WHY, line)
        await peers.exchange()
    relay.stop()
    assert_confidential(relay)


@pytest.mark.thorough
@asynchronous
async def test_bad_answers_of_the_token_service(start_relay: StartRelay, services: PushServer, tmp_path: Path) -> None:
    """A wake without an access token fails, and the operator is told why."""
    relay = start_relay(*services.options(tmp_path))
    services.grant_answers = [plain(400, b'{"error":"invalid_grant","error_description":"m4rker"}')]
    async with pair(relay.uri, "x") as peers:
        await peers.binary.send(WAKE)
        await relay.log_will_have("there is no access token for push wakes: invalid_grant; trying again after 5 s")
        await relay.log_will_have(SAYING_WHY, "token_fetch_failed, invalid_grant")
        await peers.exchange()
    assert services.wakes == []
    relay.stop()
    assert_confidential(relay)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["localhost", "other.example"])
@pytest.mark.parametrize("is_trusted", [True, False])
@asynchronous
async def test_https(name: str, is_trusted: bool, start_relay: StartRelay, tmp_path: Path) -> None:
    """Over HTTPS, secrets are sent only to a server whose certificate is trusted and has its name."""
    certificate = named_certificate(name)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    write_pair(certificate, chain, key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    with push_server(tls) as services:
        launch = Launch(environment={"SSL_CERT_FILE": str(chain)} if is_trusted else {})
        relay = start_relay(*services.options(tmp_path), launch=launch)
        async with binary(relay.uri, "x") as one:
            await one.send(WAKE)
            if is_trusted and name == "localhost":
                await eventually(lambda: outcomes(relay) == {"sent": 1}, "the wake is sent")
                assert len(services.wakes) == 1
            else:
                await relay.log_will_have("there is no access token for push wakes: tls")
                assert services.grants == services.wakes == []
        relay.stop()
    assert_confidential(relay)


@pytest.mark.thorough
@asynchronous
async def test_no_service(start_relay: StartRelay, services: PushServer, tmp_path: Path) -> None:
    """A service that has gone away refuses connections."""
    relay = start_relay(*services.options(tmp_path)[:2], "--push-url", "http://127.0.0.1:1")
    async with pair(relay.uri, "x") as peers:
        await peers.binary.send(WAKE)
        await relay.log_will_have(SAYING_WHY, "send_failed, refused")
        await peers.exchange()
    relay.stop()
    assert_confidential(relay)


@pytest.mark.thorough
@asynchronous
async def test_a_flood(start_relay: StartRelay, services: PushServer, tmp_path: Path) -> None:
    """Of 5000 wakes six are sent; the rest is dropped in a few lines, and peers are served meanwhile."""
    relay = start_relay(*services.options(tmp_path), "--ping-quota", "off")
    async with pair(relay.uri, "x") as peers:
        for _ in range(5000):
            await peers.binary.send(WAKE)
        await peers.exchange()
        await eventually(lambda: sum(outcomes(relay).values()) == 5000, "all wakes are counted")
    found = outcomes(relay)
    assert found["sent"] == len(services.wakes)
    # A slow machine takes more than 10 s for them.
    assert 6 <= found["sent"] <= 12
    assert len([line for line in relay.log().splitlines() if "push wake of" in line]) < 20
    relay.stop()
    assert_confidential(relay)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["answered", "held"])
@asynchronous
async def test_the_end(kind: str, start_relay: StartRelay, services: PushServer, tmp_path: Path) -> None:
    """A wake in flight may end when the relay stops; one that takes too long does not hold the process up."""
    relay = start_relay(*services.options(tmp_path))
    services.held.clear()
    async with binary(relay.uri, "x") as one:
        await one.send(WAKE)
        await eventually(lambda: services.grants or None, "the token is asked for")
        relay.signal()
        await relay.log_will_have("shutting down")
        if kind == "answered":
            services.held.set()
            await eventually(lambda: services.wakes or None, "the wake is sent")
    relay.wait()
    if kind == "held":
        assert SAYING_WHY in relay.log()
        assert "dropped, stopping" in relay.log()
    assert_confidential(relay)


@pytest.mark.thorough
@asynchronous
async def test_a_key_in_the_environment(start_relay: StartRelay, services: PushServer, tmp_path: Path) -> None:
    """The key can be the content of a variable, and is in no output of the relay."""
    key = services.key_file(tmp_path).read_text()
    launch = Launch(environment={"FCM_KEY": key})
    relay = start_relay("--push-credentials", "env:FCM_KEY", "--push-url", services.url, launch=launch)
    async with binary(relay.uri, "x") as one:
        await one.send(WAKE)
        await eventually(lambda: outcomes(relay) == {"sent": 1}, "the wake is sent")
    relay.stop()
    assert_confidential(relay)
