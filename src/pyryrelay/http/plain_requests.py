"""Requests that ask for no upgrade: pages of the listener, and requests on the path of an application. Sans-I/O.

Each of them is paid from ``--http-quota`` first, except for pages that are asked for from this machine: its own health
checks must get through whatever else happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyryrelay.guard import ClientAddress
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.message import Head, response
from pyryrelay.http.refusals import ResponseBytes, refuse, refuse_request
from pyryrelay.protocol import Page
from pyryrelay.refusal_words import RefusalWord

_PAGE_METHODS: Final = ("GET", "HEAD")


def answer_page_request(
    context: ListenerContext, head: Head, client: ClientAddress | None, *, is_local: bool
) -> ResponseBytes:
    """Answer a request that is on no application's path. ``is_local``: it comes from this machine."""
    page = context.pages.get(head.path)
    if page is None or not is_local:
        answer = refuse_request(context, None, client, context.now())
        if answer is not None:
            return answer
    if page is None:
        return refuse(context, None, 404, RefusalWord.UNKNOWN_PATH, client)
    return _answer_page(context, head.method, page, client)


def _answer_page(
    context: ListenerContext, method: str, page: Callable[[], Page], client: ClientAddress | None
) -> ResponseBytes:
    if method not in _PAGE_METHODS:
        return refuse(context, None, 405, RefusalWord.BAD_METHOD, client, (("Allow", ", ".join(_PAGE_METHODS)),))
    content = page()
    return context.dated(response(content.status, content.fields, content.body, head_only=method == "HEAD"))


def answer_application_request(
    context: ListenerContext, route: str, method: str, client: ClientAddress | None
) -> ResponseBytes:
    """Answer a request on the path of the application ``route``."""
    answer = refuse_request(context, route, client, context.now())
    if answer is not None:
        return answer
    if method == "GET":
        return refuse(context, route, 426, RefusalWord.NO_UPGRADE, client)
    return refuse(context, route, 405, RefusalWord.BAD_METHOD, client)
