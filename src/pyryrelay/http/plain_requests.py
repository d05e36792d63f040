"""Requests that ask for no upgrade: pages of the listener, and requests on the path of an application. Sans-I/O.

Each of them is paid from ``--http-quota`` before anything else, except for pages that are asked for from this machine:
its own health checks must get through whatever else happens. Bodies are not read, and HEAD is answered as GET is,
without the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from pyryrelay.guard import ClientAddress
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.message import Head, response_head
from pyryrelay.http.refusals import ResponseBytes, refuse, refuse_request
from pyryrelay.protocol import Application, HttpAnswer, HttpRequest, Page, RepeatedHeaderError
from pyryrelay.refusal_words import RefusalWord

_PAGE_METHODS: Final = ("GET", "HEAD")


class PendingAnswer(NamedTuple):
    """The answer that the application ``route`` gives later to a request."""

    answer: Deferred[HttpAnswer]
    route: str
    request: HttpRequest


def answer_page_request(
    context: ListenerContext, head: Head, client: ClientAddress | None, *, is_local: bool, is_ours: bool = True
) -> ResponseBytes:
    """Answer a request that is on no application's path. ``is_local``: it comes from this machine.

    ``is_ours``: it asks for a host of ours. Pages are shown under any name: balancers ask for an address, and the
    validation of a name for a certificate may come through others.
    """
    page = context.pages.get(head.path)
    if page is None or not is_local:
        answer = refuse_request(context, None, client, context.now())
        if answer is not None:
            return answer
    if page is None and not is_ours:
        return refuse(context, None, 421, RefusalWord.WRONG_HOST, client)
    if page is None:
        return refuse(context, None, 404, RefusalWord.UNKNOWN_PATH, client)
    return _answer_page(context, head.method, page, client)


def _answer_page(
    context: ListenerContext, method: str, page: Callable[[], Page], client: ClientAddress | None
) -> ResponseBytes:
    if method not in _PAGE_METHODS:
        return refuse(context, None, 405, RefusalWord.BAD_METHOD, client, (("Allow", ", ".join(_PAGE_METHODS)),))
    return page_response(context, method, page())


def ask_application(
    context: ListenerContext, application: Application, request: HttpRequest
) -> ResponseBytes | PendingAnswer:
    """Have an application answer a request that is paid. Raises what the application raises."""
    route = application.name
    try:
        answer = application.http(request)
    except RepeatedHeaderError:
        return refuse(context, route, 400, RefusalWord.REPEATED_HEADER, request.client)
    if isinstance(answer, Deferred):
        return PendingAnswer(answer, route, request)
    return application_response(context, route, request, answer)


def application_response(
    context: ListenerContext, route: str, request: HttpRequest, answer: HttpAnswer
) -> ResponseBytes:
    """Write the answer of the application ``route``."""
    if isinstance(answer, Page):
        return page_response(context, request.method, answer)
    return refuse(context, route, answer.status, answer.reason, request.client, answer.fields)


def page_response(context: ListenerContext, method: str, page: Page) -> ResponseBytes:
    """Write a page as the answer to a request with that method."""
    # Only heads are kept with their date: a page may be large, and another one each time.
    head = context.dated(response_head(page.status, page.fields, len(page.body)))
    return head if method == "HEAD" else head + page.body
