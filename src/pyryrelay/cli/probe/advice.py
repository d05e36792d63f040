"""What is wrong with a connection to a relay, in words, with the fix. PURE.

Each function takes what was observed and returns a `ProbeError`. What a server has sent is quoted shortened, and never
followed.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from pyryrelay.protocol_options import ProbeError
from pyryrelay.text import printable, quoted

__all__ = ["closed", "no_answer", "no_name", "not_connected", "not_http", "not_trusted", "refused"]

_EXPLAIN: Final = "on the relay's machine, `pyryrelay explain ADDRESS` tells which quota, cap, list or sentence it is"
_PASS_UPGRADE: Final = (
    "have the proxy in front pass Upgrade: nginx needs `proxy_http_version 1.1`, `proxy_set_header Upgrade "
    '$http_upgrade` and `proxy_set_header Connection "upgrade"`'
)
_PATHS: Final = "check the URL, and the paths that the proxy in front passes on"
_BEHIND: Final = "the proxy in front cannot reach the relay: start it, and check the address that the proxy has for it"

_STATUSES: Final[Mapping[int, tuple[str, str]]] = {
    400: (
        "it does not accept the request: a header is missing or not acceptable",
        "check that no proxy in front removes headers of the client",
    ),
    401: ("it asks for a password", "leave the relay's paths out of the password protection of the proxy in front"),
    403: ("this client is jailed or denied, or a proxy in front forbids the path", _EXPLAIN),
    404: ("there is no relay at this path", _PATHS),
    405: ("there is something else at this path", _PATHS),
    408: ("it waited for the request in vain", "check the line, and buffering proxies between"),
    409: ("what this client wants to be is taken", "end the other one, or wait"),
    421: (
        "it does not serve the name in the URL",
        "use the name that --host of the relay names, or have the proxy in front pass the Host field on",
    ),
    426: ("it saw no request for an upgrade, so something between has removed it", _PASS_UPGRADE),
    429: ("it has had too many attempts of this address, or cannot tell whose they are", _EXPLAIN),
    500: ("it failed", "see its log"),
    502: (_BEHIND.partition(":")[0], _BEHIND.partition(": ")[2]),
    503: ("it is full, or about to stop", "wait, or raise its caps; `pyryrelay status` shows them"),
    504: (_BEHIND.partition(":")[0], _BEHIND.partition(": ")[2]),
}
_ERRNOS: Final[Mapping[int, tuple[str, str]]] = {
    errno.ECONNREFUSED: (
        "connection refused: nothing listens there, or a firewall rejects it",
        "start the relay, check its --listen endpoints and the port in the URL",
    ),
    errno.ENETUNREACH: ("there is no route to this network", "check the network of this machine"),
    errno.EHOSTUNREACH: ("there is no route to this machine", "check that it is up, and the firewall in front of it"),
    errno.ETIMEDOUT: ("no answer", "check that a firewall between does not drop connections to this port"),
    errno.EACCES: ("a firewall of this machine forbids it", "allow the connection"),
    errno.EPERM: ("a firewall of this machine forbids it", "allow the connection"),
}
_VERIFY: Final[Mapping[int, tuple[str, str]]] = {
    9: ("it is not valid yet", "check the clocks of both machines"),
    10: ("it has expired", "renew it; the relay takes new files over by itself"),
    18: ("it is self-signed", "get one of a known authority, or trust it here with --ca FILE"),
    19: ("an authority in its chain is not known here", "trust it here with --ca FILE"),
    20: (
        "its issuer is not known here: probably the intermediate certificate is not sent",
        "give the relay or proxy the full chain (fullchain.pem), or trust the authority here with --ca FILE",
    ),
    62: ("it is for another name", "use a name of the certificate in the URL, or get one for this name"),
    64: ("it is for another address", "use a name of the certificate in the URL"),
}
"""Codes of OpenSSL's verification (X509_V_ERR_..., openssl-verification-options(1))."""

_CLOSES: Final[Mapping[int, tuple[str, str]]] = {
    1000: ("it closed the connection in order, before the probe was done", "see its log"),
    1001: ("it is about to stop", "try again when it runs"),
    1002: ("it says that this client breaks the protocol", "look for a proxy between that changes frames"),
    1003: ("it does not take text messages", "check that this is the relay that you mean"),
    1007: ("it says that the message is not valid", "look for a proxy between that changes messages"),
    1008: ("it says that this client breaks a rule", "read the reason; see its log"),
    1009: ("the message is too large for it", "raise its limit of messages"),
    1011: ("it failed, or this client was too slow for it", "see its log; check the line"),
    1012: ("it is restarting", "try again in a moment"),
    1013: ("it is overloaded", "try again later"),
    1015: ("TLS failed", "check the certificate"),
}


def no_name(host: str, cause: str) -> ProbeError:
    """Explain that a name cannot be looked up."""
    problem = f"the name {quoted(host)} cannot be looked up: {printable(cause)}"
    return ProbeError(problem, "check the spelling of the URL, the DNS records of the name, and the resolver here")


def not_connected(where: str, error: OSError, timeout_s: float) -> ProbeError:
    """Explain that there is no TCP connection."""
    if isinstance(error, TimeoutError):
        problem = f"no answer within {timeout_s:g} s"
        return ProbeError(f"{where}: {problem}", _ERRNOS[errno.ETIMEDOUT][1])
    problem, fix = _ERRNOS.get(error.errno or 0, (error.strerror or type(error).__name__, "check the network"))
    return ProbeError(f"{where}: {problem}", fix)


def not_trusted(error: ssl.SSLError | OSError, port: int, state: str = "") -> ProbeError:
    """Explain that TLS failed; ``state`` is what is known about the certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        problem, fix = _VERIFY.get(error.verify_code, (error.verify_message, "mend the certificate"))
        if error.verify_code == 0:
            problem, fix = _VERIFY[62]
        return ProbeError(f"the certificate is refused: {problem}{f' ({state})' if state else ''}", fix)
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"):
        return ProbeError(
            f"the server does not speak TLS on port {port}",
            "write ws:// in the URL, or the port of the TLS listener or proxy",
        )
    if isinstance(error, TimeoutError):
        return ProbeError("the server does not go on with the TLS handshake", "check that TLS is on at this port")
    if reason == "TLSV1_UNRECOGNIZED_NAME" or "UNRECOGNIZED_NAME" in reason:
        return ProbeError(
            "the server has no certificate for this name", "use a name that it serves, or add a certificate"
        )
    problem = f"TLS failed ({printable(str(reason))})"
    return ProbeError(problem, "check that the port is the relay's, and that TLS 1.2 is allowed on both sides")


def refused(status: int, fields: Mapping[str, str], answers: Mapping[int, str]) -> ProbeError:
    """Explain an HTTP answer to an upgrade that is not 101. ``fields`` have lower-case names."""
    try:
        told = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        told = str(status)
    if 300 <= status < 400 and "location" in fields:
        problem = f"it was answered {told}, to {quoted(fields['location'])}"
        return ProbeError(problem, "use that address in the URL, with ws: for http: and wss: for https:")
    if 200 <= status < 300:
        kind = fields.get("content-type", "no type").partition(";")[0]
        problem = f"it was answered {told} with a page ({printable(kind)}), and not upgraded to WebSocket"
        return ProbeError(problem, f"check that the URL is the relay's; if it is, {_PASS_UPGRADE}")
    problem, fix = _STATUSES.get(status, ("it refuses", "see the log of the server"))
    if status in answers:
        problem, fix = answers[status], fix
    wait = fields.get("retry-after", "")
    if wait.isascii() and wait.isdigit() and len(wait) < 10:
        fix = f"wait {wait} s (Retry-After); {fix}"
    return ProbeError(f"it was answered {told}: {problem}", fix)


def not_http(data: bytes) -> ProbeError:
    """Explain an answer that is no HTTP."""
    if data[:1] in (b"\x15", b"\x16") and data[1:2] == b"\x03":
        return ProbeError("the server speaks TLS on this port", "write wss:// in the URL")
    if not data:
        problem = "the server closed the connection without an answer"
        fix = f"it drops clients that it has jailed: {_EXPLAIN}; or check the port"
        return ProbeError(problem, fix)
    problem = f"the server does not speak HTTP: it says {quoted(data[:40].decode('ascii', 'replace'))}"
    return ProbeError(problem, "check the port in the URL")


def no_answer(what: str, timeout_s: float) -> ProbeError:
    """Explain that something did not arrive in time."""
    fix = "check that the relay is not overloaded (`pyryrelay status`) and that no proxy between holds messages back"
    return ProbeError(f"{what} did not arrive within {timeout_s:g} s", fix)


def closed(code: int | None, reason: str, answers: Mapping[int, str]) -> ProbeError:
    """Explain the end of a connection. None is the end without a close frame."""
    if code is None:
        problem = "the connection was lost without a close frame"
        return ProbeError(problem, "check timeouts and limits of the proxies between, and the log of the relay")
    problem, fix = _CLOSES.get(code, ("it closed the connection", "see its log"))
    problem = answers.get(code, problem)
    said = f" {quoted(reason)}" if reason else ""
    return ProbeError(f"closed with {code}{said}: {problem}", fix)
