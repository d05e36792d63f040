"""The admin listener, asked over HTTP in memory."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from tests.support.admin import Client, open_access
from tests.support.capture import captured
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPFactory

from pyryrelay.admin.site import MAX_CONNECTIONS, REQUEST_S, admin_site
from pyryrelay.protocol import Page

# Twisted's own page for 405 warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")

# Twisted's own page for 405 warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")

TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


@pytest.fixture
def site() -> HTTPFactory:
    """Two pages, the second of which counts how often it was made."""
    visits: list[None] = []

    def counted() -> Page:
        visits.append(None)
        return Page(200, TEXT, b"%d" % len(visits))

    return admin_site(
        {"/healthz": lambda: Page(503, TEXT, b"draining"), "/metrics": counted}, Clock(), {}, open_access()
    )


def ask(site: HTTPFactory, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request on a connection of its own, and return status, header fields (names in lower case) and body."""
    protocol = site.buildProtocol(None)
    assert protocol is not None
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = transport.value().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), fields, body


def test_a_page(site: HTTPFactory) -> None:
    """A page is made for each request, and sent with its status, fields and body."""
    for body in (b"1", b"2"):
        status, fields, answered = ask(site, "GET", "/metrics")
        assert (status, answered) == (200, body)
        assert fields["content-type"] == "text/plain; charset=utf-8"
        assert fields["content-length"] == "1"


def test_the_status_of_a_page(site: HTTPFactory) -> None:
    """A page with a status of an error is sent with that status."""
    assert ask(site, "GET", "/healthz")[::2] == (503, b"draining")


def test_head(site: HTTPFactory) -> None:
    """HEAD is answered as GET, without the body."""
    status, fields, body = ask(site, "HEAD", "/metrics")
    assert (status, fields["content-length"], body) == (200, "1", b"")


def test_the_listing(site: HTTPFactory) -> None:
    """The root lists all pages."""
    assert ask(site, "GET", "/")[::2] == (200, b"/healthz\n/metrics\n")


@pytest.mark.parametrize("path", ["/nothing", "/healthz2", "/..%2fmetrics", "/%00"])
def test_other_paths(site: HTTPFactory, path: str) -> None:
    """Other paths are not found."""
    assert ask(site, "GET", path)[0] == 404


@pytest.mark.parametrize(("method", "status"), [("POST", 405), ("PUT", 501), ("DELETE", 501)])
def test_other_methods(site: HTTPFactory, method: str, status: int) -> None:
    """Methods other than GET and HEAD are refused without making a page."""
    assert ask(site, method, "/metrics")[0] == status
    assert ask(site, "GET", "/metrics")[2] == b"1"


def test_no_access_log(site: HTTPFactory) -> None:
    """Requests are not logged."""
    written = BytesIO()
    site.startFactory()
    site.logFile = written
    ask(site, "GET", "/metrics")
    assert written.getvalue() == b""
    site.stopFactory()


def test_a_page_that_fails() -> None:
    """A page that fails is answered without details."""

    def broken() -> Page:
        raise RuntimeError("a-secret")

    with captured():
        status, _, body = ask(admin_site({"/metrics": broken}, Clock(), {}, open_access()), "GET", "/metrics")
    assert status == 500
    assert b"a-secret" not in body


def test_other_paths_have_an_answer(site: HTTPFactory) -> None:
    """What is not there is answered in JSON, with where to look."""
    text = b'{"error": "there is nothing at this path: GET /paths lists what there is"}\n'
    assert ask(site, "GET", "/nothing")[2] == text


def test_the_paths_have_a_path(site: HTTPFactory) -> None:
    """The list is at a path of its own, too, where browsers can see it."""
    assert ask(site, "GET", "/paths")[2] == ask(site, "GET", "/")[2]


def test_the_number_of_connections_is_bounded(site: HTTPFactory) -> None:
    """One more is closed at once, until another leaves."""
    protocols = [site.buildProtocol(None) for _ in range(MAX_CONNECTIONS)]
    assert None not in protocols
    assert site.buildProtocol(None) is None
    first = protocols[0]
    assert first is not None
    first.makeConnection(StringTransport())
    first.connectionLost(Failure(ConnectionDone()))
    assert ask(site, "GET", "/healthz")[0] == 503


def connected(site: Any, data: bytes = b"") -> tuple[StringTransport, Any]:
    """Connect, and send something."""
    protocol: Any = site.buildProtocol(None)
    transport = AbortableTransport(protocol)
    protocol.makeConnection(transport)
    protocol.dataReceived(data)
    return transport, protocol


class AbortableTransport(StringTransport):
    """A transport that tells its protocol of its end."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._protocol = protocol

    def abortConnection(self) -> None:
        super().abortConnection()  # type: ignore[no-untyped-call]
        self._protocol.connectionLost(Failure(ConnectionAborted()))


def test_connections_without_a_request_keep_nobody_out(site: Any) -> None:
    """A new connection takes the place of the one that waits for longest; one that is being answered stays."""
    busy, protocol = connected(site)
    site.waiting.pop(protocol)
    slow = [connected(site, b"GET /healthz HTTP/1.1\r\nX: ")[0] for _ in range(MAX_CONNECTIONS - 1)]
    assert ask(site, "GET", "/healthz")[0] == 503
    assert [transport.disconnected for transport in (busy, *slow[:2])] == [False, True, False]
    assert site.open == MAX_CONNECTIONS


def test_a_request_must_come_in_time() -> None:
    """However slowly its bytes arrive; time without a request counts, too, and that of an answer does not."""
    clock = Clock()
    site = admin_site({"/healthz": lambda: Page(200, TEXT, b"ok")}, clock, {}, open_access())
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    transport, protocol = connected(site)
    for _ in range(2):
        clock.advance(REQUEST_S - 1)
        protocol.dataReceived(request)
        assert transport.value().endswith(b"ok")
        transport.clear()
    with captured():
        for byte in b"x" * 59:
            clock.advance(1)
            assert not transport.disconnecting
            protocol.dataReceived(bytes([byte]))
        clock.advance(1)
        assert transport.disconnecting


def test_a_page_that_comes_later() -> None:
    """It is sent when it is there, with its length; HEAD gets no body."""
    pages: list[Deferred[Page]] = []

    def later() -> Deferred[Page]:
        pages.append(Deferred())
        return pages[-1]

    site = admin_site({"/metrics": later}, Clock(), {}, open_access())
    for method, body in (("GET", "3 samples"), ("HEAD", "")):
        exchange = Client(site).begin(method, "/metrics")
        assert exchange.sent == b""
        pages.pop().callback(Page(200, TEXT, b"3 samples"))
        response = exchange.response
        assert (response.status, response.fields["Content-Length"], response.text) == (200, "9", body)


def test_a_page_that_fails_later() -> None:
    """The answer is 500, and the log has the reason."""
    site = admin_site({"/metrics": lambda: fail(ValueError("broken"))}, Clock(), {}, open_access())
    with captured() as log:
        assert Client(site).request("GET", "/metrics").status == 500
    assert [event["log_failure"].value.args for event in log.events] == [("broken",)]


def test_a_client_that_does_not_wait_for_its_page() -> None:
    """Nothing is sent to it."""
    page: Deferred[Page] = Deferred()
    exchange = Client(admin_site({"/metrics": lambda: page}, Clock(), {}, open_access())).begin("GET", "/metrics")
    exchange.disconnect()
    page.callback(Page(200, TEXT, b"late"))
    assert exchange.sent == b""
