"""The pages of the dashboard and what they load, from files of this package; nothing comes from elsewhere.

All of it is public: it tells nothing about this relay. The content security policy allows scripts, styles and images
of this listener only, none that stand in the page, and no form to anywhere else.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from twisted.web.http import CACHED
from twisted.web.resource import Resource
from twisted.web.server import Request

from pyryrelay.admin.access import Access
from pyryrelay.admin.resources import ApiError, ApiResource, ApiResponse, Folder, RefusalResource, SeeOther

__all__ = ["POLICY", "Asset", "Login", "assets_folder", "logout_resource", "read_assets"]

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_FIELDS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, browsers would send the login with the origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ALERT: Final = b' role="alert"'
_HIDDEN_ALERT: Final = _ALERT + b" hidden"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


class Asset(Resource):
    """One file. Browsers ask each time whether it has changed, as it does with a new version of the relay."""

    isLeaf = True

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self._type = _TYPES[name.rpartition(".")[2]]
        self._content = content
        self._tag = b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode("ascii")

    def with_alert(self) -> Asset:
        """Return the page with the alert shown that it hides. Raises `ValueError` if it does not hide one."""
        before, after = self._content.split(_HIDDEN_ALERT)
        return Asset(self._name, before + _ALERT + after)

    def render_GET(self, request: Request) -> bytes:
        """Return the file; Twisted derives HEAD from it."""
        for name, value in _FIELDS.items():
            request.setHeader(name, value)
        request.setHeader("Content-Type", self._type)
        request.setHeader("Cache-Control", "no-cache")
        if request.setETag(self._tag) is CACHED:
            return b""
        return self._content


def read_assets() -> dict[str, Asset]:
    """Return the files of the package by their names."""
    folder = files(__package__) / "assets"
    return {
        file.name: Asset(file.name, file.read_bytes())
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }


def assets_folder(assets: Mapping[str, Asset]) -> Resource:
    """Return the files below a path."""
    folder = Folder()  # type: ignore[no-untyped-call]
    for name, asset in assets.items():
        folder.putChild(name.encode("ascii"), asset)
    return folder


class Login(Resource):
    """The login page, and the form that it sends. Its alert is shown when the token was wrong."""

    isLeaf = True

    def __init__(self, access: Access, page: Asset) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._access = access
        self._page = page
        self._refused = page.with_alert()

    def render_GET(self, request: Request) -> bytes:
        """Return the form, or lead to the dashboard if there is no need to log in."""
        if self._access.token is None or self._access.has_session(request):
            return SeeOther("/").render(request)
        return self._page.render_GET(request)

    def render_POST(self, request: Request) -> bytes | int:
        """Open a session if the token is right, and lead to the dashboard."""
        arguments: dict[bytes, list[bytes]] = request.args or {}
        (text, *more) = arguments.get(b"token", [b""])
        if self._access.token is None or more or getattr(request, "is_too_long", False):
            return RefusalResource(ApiError(400, "this is no login: open /login in a browser").response).render(request)
        try:
            self._access.try_token(request, text.strip())
        except ApiError as refusal:
            request.setResponseCode(refusal.response.status)
            for name, value in refusal.response.fields.items():
                if name == "Retry-After":
                    request.setHeader(name, value)
            return self._refused.render_GET(request)
        self._access.open_session(request, secrets.token_urlsafe(32))
        return SeeOther("/").render(request)


def logout_resource(access: Access) -> Resource:
    """Return what ``POST /logout`` leads to: it ends the session of the browser."""

    def log_out(request: Request) -> ApiResponse:
        access.close_session(request)
        return ApiResponse(200, {})

    return ApiResource({"POST": log_out})
