"""The admin listener: dashboard, metrics, health and the admin API over plain HTTP.

`pyryrelay.admin.access` looks at each request first. The length of request bodies is bounded on all paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from pyryrelay.admin.access import Access, is_navigation
from pyryrelay.admin.resources import ApiError, BoundedRequest, Folder, RefusalResource, SeeOther
from pyryrelay.protocol import Page

__all__ = ["MAX_CONNECTIONS", "admin_site"]

MAX_CONNECTIONS: Final = 256
"""How many connections may be open. Those of strangers take memory before they can be refused."""

_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


class _PageResource(Resource):
    isLeaf = True

    def __init__(self, page: Callable[[], Page]) -> None:
        super().__init__()
        self._page = page

    def render_GET(self, request: Request) -> bytes:
        """Return the page; Twisted derives HEAD from it."""
        page = self._page()
        request.setResponseCode(page.status)
        for name, value in page.fields:
            request.setHeader(name, value)
        return page.body


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


class _AdminSite(Site):
    """A site that asks `Access` about each request, and keeps no access log: scrapes come every few seconds."""

    noisy = False

    def __init__(self, root: Resource, access: Access, reactor: IReactorTime) -> None:
        super().__init__(root, requestFactory=BoundedRequest, reactor=reactor)
        self._access = access
        self._open = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return what speaks HTTP on a new connection, or None to close it at once because there are too many."""
        if self._open >= MAX_CONNECTIONS:
            return None
        protocol: Any = super().buildProtocol(addr)
        end = protocol.connectionLost
        self._open += 1

        def connection_lost(reason: Failure) -> None:
            self._open -= 1
            end(reason)

        protocol.connectionLost = connection_lost
        return protocol

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
    pages: Mapping[str, Callable[[], Page]],
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
