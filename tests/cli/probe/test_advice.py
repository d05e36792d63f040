"""What is wrong with a connection, in words."""

from __future__ import annotations

import errno
import ssl

import pytest

from pyryrelay.cli.probe import advice


@pytest.mark.parametrize(
    ("status", "fields", "problem", "fix"),
    [
        (200, {"content-type": "text/html; charset=x"}, "with a page (text/html), and not upgraded", "pass Upgrade"),
        (204, {}, "with a page (no type)", "check that the URL is the relay's"),
        (301, {"location": "https://b.example/\x1b"}, "to 'https://b.example/\\x1b'", "use that address in the URL"),
        (304, {}, "304 Not Modified: it refuses", "see the log"),
        (400, {}, "a header is missing or not acceptable", "no proxy in front removes headers"),
        (401, {}, "it asks for a password", "password protection"),
        (403, {}, "this client is jailed or denied", "pyryrelay explain"),
        (404, {}, "there is no relay at this path", "check the URL"),
        (409, {}, "is taken", "wait"),
        (421, {}, "it does not serve the name in the URL", "--host"),
        (426, {}, "something between has removed it", "proxy_set_header Upgrade"),
        (429, {"retry-after": "12"}, "too many attempts", "wait 12 s (Retry-After); "),
        (429, {"retry-after": "9" * 50}, "too many attempts", "on the relay's machine"),
        (502, {}, "the proxy in front cannot reach the relay", "start it"),
        (503, {"retry-after": "x"}, "it is full, or about to stop", "wait, or raise its caps"),
        (418, {}, "418 I'm a Teapot: it refuses", "see the log"),
        (999, {}, "it was answered 999: it refuses", "see the log"),
    ],
)
def test_http_statuses(status: int, fields: dict[str, str], problem: str, fix: str) -> None:
    """Each status that a relay or a proxy answers has its meaning and its fix."""
    error = advice.refused(status, fields, {})
    assert problem in error.problem
    assert fix in error.fix
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)


def test_a_protocol_has_words_of_its_own() -> None:
    """What a protocol knows about a status or a close code goes first."""
    assert advice.refused(404, {}, {404: "no such door"}).problem == "it was answered 404 Not Found: no such door"
    assert advice.closed(4000, "x", {4000: "go away"}).problem == "closed with 4000 'x': go away"


@pytest.mark.parametrize(
    ("code", "reason", "problem"),
    [
        (None, "", "the connection was lost without a close frame"),
        (1001, "", "closed with 1001: it is about to stop"),
        (1008, "no\x1b", "closed with 1008 'no\\x1b': it says that this client breaks a rule"),
        (1011, "", "closed with 1011: it failed, or this client was too slow for it"),
        (3999, "", "closed with 3999: it closed the connection"),
    ],
)
def test_close_codes(code: int | None, reason: str, problem: str) -> None:
    """Each close code has its meaning."""
    assert advice.closed(code, reason, {}).problem == problem


@pytest.mark.parametrize(
    ("error", "problem", "fix"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused", "start the relay"),
        (TimeoutError(), "no answer within 3 s", "firewall"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to this machine", "check that it is up"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error", "check the network"),
        (OSError("odd"), "OSError", "check the network"),
    ],
)
def test_errors_of_the_network(error: OSError, problem: str, fix: str) -> None:
    """An error of the operating system has its meaning, and the address."""
    told = advice.not_connected("192.0.2.7:443", error, 3.0)
    assert told.problem.startswith("192.0.2.7:443: ")
    assert problem in told.problem
    assert fix in told.fix


def verification(code: int, message: str = "odd") -> ssl.SSLCertVerificationError:
    """Return an error of the verification."""
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (verification(10), "the certificate is refused: it has expired (it is of a)"),
        (verification(20), "the intermediate certificate is not sent"),
        (verification(62), "it is for another name"),
        (verification(0), "it is for another name"),
        (verification(99), "the certificate is refused: odd"),
        (TimeoutError(), "the server does not go on with the TLS handshake"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "TLS failed (Connection reset by peer)"),
    ],
)
def test_errors_of_tls(error: OSError, problem: str) -> None:
    """What OpenSSL says has its meaning."""
    assert problem in advice.not_trusted(error, 443, "it is of a").problem


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ("WRONG_VERSION_NUMBER", "the server does not speak TLS on port 443"),
        ("TLSV1_UNRECOGNIZED_NAME", "the server has no certificate for this name"),
        ("ODD\x1b", "TLS failed (ODD\\x1b)"),
    ],
)
def test_reasons_of_openssl(reason: str, problem: str) -> None:
    """Alerts and broken records have their meaning."""
    error = ssl.SSLError(1, "x")
    error.reason = reason
    assert advice.not_trusted(error, 443).problem == problem


@pytest.mark.parametrize(
    ("data", "problem", "fix"),
    [
        (b"", "the server closed the connection without an answer", "it drops clients that it has jailed"),
        (b"\x15\x03\x03\x00\x02\x02F", "the server speaks TLS on this port", "wss://"),
        (b"SSH-2.0-x\x1b\r\n", "the server does not speak HTTP: it says 'SSH-2.0-x\\x1b\\r\\n'", "check the port"),
        (b"\xff" * 9_000, "the server does not speak HTTP: it says ", "check the port"),
    ],
)
def test_answers_that_are_no_http(data: bytes, problem: str, fix: str) -> None:
    """What another kind of server says is quoted, shortened."""
    error = advice.not_http(data)
    assert error.problem.startswith(problem)
    assert fix in error.fix
    assert len(error.problem) < 300
    assert "\x1b" not in error.problem


def test_what_does_not_come() -> None:
    """A name that nobody knows, and what does not arrive, have their words."""
    assert advice.no_name("a\x1b", "x\x1b").problem == "the name 'a\\x1b' cannot be looked up: x\\x1b"
    assert advice.no_answer("the page", 0.5).problem == "the page did not arrive within 0.5 s"
