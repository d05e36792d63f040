"""The admin listener: metrics, health and the admin API over plain HTTP, for the operator's own network only.

It has no password. The length of request bodies is bounded on all paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from pyryrelay.admin.resources import BoundedRequest
from pyryrelay.protocol import Page


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


class _QuietSite(Site):
    """A site without an access log, which would record a scrape every few seconds."""

    noisy = False

    def log(self, request: http.Request) -> None:
        """Write nothing."""


def admin_site(
    pages: Mapping[str, Callable[[], Page]],
    reactor: IReactorTime,
    resources: Mapping[str, Resource] | None = None,
) -> Site:
    """Return a site that serves each page and each resource at its path, and a list of the paths at ``/``."""
    served = {path: _PageResource(page) for path, page in pages.items()} | dict(resources or {})
    root = Resource()
    for path, resource in served.items():
        root.putChild(path.strip("/").encode("ascii"), resource)
    listing = "".join(f"{path}\n" for path in served).encode("ascii")
    root.putChild(b"", _PageResource(lambda: Page(200, (("Content-Type", "text/plain; charset=utf-8"),), listing)))
    return _QuietSite(root, requestFactory=BoundedRequest, reactor=reactor)
