"""The admin listener: dashboard, metrics, health and the admin API over plain HTTP.

`pyryrelay.admin.access` looks at each request first. The length of request bodies is bounded on all paths.

Strangers may connect before anything can be asked of them. So a request must be complete after `REQUEST_S`, however
slowly its bytes arrive, and if there are `MAX_CONNECTIONS`, a new one takes the place of the one that has been without
a request for longest. Otherwise they could keep a health check out, and have the relay restarted. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from pyryrelay.admin.access import Access, is_navigation
from pyryrelay.admin.resources import ApiError, BoundedRequest, Folder, RefusalResource, SeeOther
from pyryrelay.protocol import Page

__all__ = ["MAX_CONNECTIONS", "REQUEST_S", "Answered", "admin_site"]

_log = Logger(namespace="pyryrelay")

MAX_CONNECTIONS: Final = 256
"""How many connections may be open. Those of strangers take memory before they can be refused."""
REQUEST_S: Final = 60.0
"""How long a connection may take for a request, since it began or since the answer before."""

_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


Answered: TypeAlias = "Page | Deferred[Page]"
"""A page, or one that comes later."""


class _PageResource(Resource):
    isLeaf = True

    def __init__(self, page: Callable[[], Answered]) -> None:
        super().__init__()
        self._page = page

    def render_GET(self, request: Request) -> bytes | int:
        """Return the page, or send it when it is there; Twisted derives HEAD from it."""
        page = self._page()
        if not isinstance(page, Deferred):
            return _with_head(request, page)
        lost: list[Failure] = []
        request.notifyFinish().addErrback(lost.append)
        page.addErrback(_failed_page).addCallback(_send_page, request, lost)
        return NOT_DONE_YET


def _with_head(request: Request, page: Page) -> bytes:
    """Prepare the head of an answer, and return its body."""
    request.setResponseCode(page.status)
    for name, value in page.fields:
        request.setHeader(name, value)
    return page.body


def _failed_page(failure: Failure) -> Page:
    _log.failure("the admin listener failed to make a page", failure)
    return Page(500, _TEXT, b"the relay failed to make this page: see its log\n")


def _send_page(page: Page, request: Request, lost: list[Failure]) -> None:
    if lost:
        return
    body = _with_head(request, page)
    request.setHeader("Content-Length", str(len(body)))
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


class _Front(Resource):
    """The path ``/``: the dashboard for browsers, and the list of paths for everybody else."""

    isLeaf = True

    def __init__(self, dashboard: Resource | None, listing: Resource) -> None:
        super().__init__()
        self._dashboard = dashboard
        self._listing = listing

    def render(self, request: Request) -> bytes | int:
        """Choose by what the client accepts."""
        accepted = ",".join(request.requestHeaders.getRawHeaders("accept", [])).lower()
        request.setHeader("Vary", "Accept")
        if self._dashboard is not None and "text/html" in accepted:
            chosen = self._dashboard
        else:
            chosen = self._listing
        answer: bytes | int = chosen.render(request)
        return answer


class _Channel(http.HTTPChannel):
    """One connection. What arrives does not extend its time, and the site knows whether it waits for a request."""

    site: Any

    def connectionMade(self) -> None:
        """Begin to wait for a request."""
        super().connectionMade()
        self.site.waiting[self] = None

    def resetTimeout(self) -> None:  # noqa: N802
        """Do nothing: called for all data that arrives."""

    def timeoutConnection(self) -> None:
        """End the connection, without Twisted's line of log, which has the client's address."""
        self.loseConnection()

    def allContentReceived(self) -> None:  # noqa: N802
        """Answer a request, which may take any time."""
        self.site.waiting.pop(self, None)
        super().allContentReceived()

    def requestDone(self, request: http.Request) -> None:  # noqa: N802
        """Wait for the next one."""
        self.site.waiting[self] = None
        super().requestDone(request)

    def cut_off(self) -> None:
        """End the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self.site.waiting.pop(self, None)
        self.site.open -= 1
        super().connectionLost(reason)


class _AdminSite(Site):
    """A site that asks `Access` about each request, and keeps no access log: scrapes come every few seconds."""

    noisy = False

    def __init__(self, root: Resource, access: Access, reactor: IReactorTime) -> None:
        super().__init__(root, requestFactory=BoundedRequest, timeout=REQUEST_S, reactor=reactor)
        self.protocol = _Channel  # type: ignore[method-assign, assignment]
        self._access = access
        self.open = 0
        self.waiting: dict[_Channel, None] = {}
        """The connections that wait for a request, the one that waits for longest first."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return what speaks HTTP on a new connection.

        If there are too many, another one is cut off, or this one if all are being answered.
        """
        if self.open >= MAX_CONNECTIONS:
            oldest = next(iter(self.waiting), None)
            if oldest is None:
                return None
            del self.waiting[oldest]
            oldest.cut_off()
        self.open += 1
        return super().buildProtocol(addr)

    def knows(self, request: Request) -> bool:
        """See `pyryrelay.admin.access.Access`."""
        return self._access.knows(request)

    def getResourceFor(self, request: Request) -> Resource:  # noqa: N802
        """Return what answers a request."""
        try:
            self._access.check(request)
        except ApiError as refusal:
            if refusal.response.status == 401 and request.path == b"/" and is_navigation(request):
                return SeeOther("/login")
            return RefusalResource(refusal.response)
        found: Resource = super().getResourceFor(request)
        return found

    def log(self, request: http.Request) -> None:
        """Write nothing."""


def admin_site(
    pages: Mapping[str, Callable[[], Answered]],
    reactor: IReactorTime,
    resources: Mapping[str, Resource],
    access: Access,
    dashboard: Mapping[str, Resource] | None = None,
) -> Site:
    """Return a site that serves each page and each resource at its path, and a list of the paths at ``/paths``.

    ``dashboard`` has the resources that browsers need, which are not in the list. The one at ``/`` is shown to them;
    other clients get the list there, too.
    """
    served = {path: _PageResource(page) for path, page in pages.items()} | dict(resources)
    hidden = dict(dashboard or {})
    listing = "".join(f"{path}\n" for path in served).encode("ascii")
    list_of_paths = _PageResource(lambda: Page(200, _TEXT, listing))
    front = _Front(hidden.pop("/", None), list_of_paths)
    root = Folder()
    for path, resource in {**served, **hidden, "/paths": list_of_paths, "/": front}.items():
        root.putChild(path.strip("/").encode("ascii"), resource)
    return _AdminSite(root, access, reactor)
