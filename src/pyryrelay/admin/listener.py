"""The admin listener of a relay: who may use it, what it shows, and the samples that the dashboard is sent.

Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import Site

from pyryrelay import __version__
from pyryrelay.admin.access import Access
from pyryrelay.admin.dashboard.feed import Feed
from pyryrelay.admin.dashboard.pages import Login, assets_folder, logout_resource, read_assets
from pyryrelay.admin.dashboard.reasons import REASONS
from pyryrelay.admin.dashboard.stream import Stream
from pyryrelay.admin.site import Answered, admin_site
from pyryrelay.admin.tokens import TokenFileError, check_token_file
from pyryrelay.config.endpoints import Endpoint
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import SettingsError
from pyryrelay.guard import ClientAddress
from pyryrelay.observe.sampling import SAMPLE_S
from pyryrelay.protocol import Panel

__all__ = ["AdminListener"]


class AdminListener:
    """See the module's text. ``now`` is the monotonic clock, and ``wall`` the other one.

    ``panels`` returns what the protocols show, by their names. ``wrong_token`` is called with the client of each wrong
    token.
    """

    def __init__(
        self,
        feed: Feed,
        wrong_token: Callable[[ClientAddress | None], None],
        panels: Callable[[], Mapping[str, Panel]],
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.access = Access(now, wrong_token)
        self.stream = Stream(now, self._hello, self.access.knows)
        self._feed = feed
        self._panels = panels
        self._wall = wall

    def prepared(self, settings: SharedSettings, base: Path) -> Callable[[], None]:
        """Return a call that enforces settings, with the token as it is in its file now. Raises `SettingsError`.

        A file that the user of the relay may not read, as after a start as root, counts as unchanged.
        """
        try:
            token = check_token_file(settings, base)
        except SettingsError as error:
            cause = error.__cause__
            if self.access.token is None or not (isinstance(cause, TokenFileError) and cause.is_forbidden):
                raise
            token = self.access.token
        endpoint = Endpoint.parse(settings.admin_listen)
        names = [*filter(None, [endpoint.interface]), *settings.admin_host]
        return lambda: self.access.configure(token, names, is_secure=endpoint.scheme == "ssl")

    def site(
        self, pages: Mapping[str, Callable[[], Answered]], resources: Mapping[str, Resource], reactor: IReactorTime
    ) -> Site:
        """Return what the listener serves: these pages and resources, and the dashboard."""
        assets = read_assets()
        dashboard: dict[str, Resource] = {
            "/": assets["index.html"],
            "/login": Login(self.access, assets["login.html"]),
            "/logout": logout_resource(self.access),
            "/events": self.stream,
            "/assets": assets_folder(assets),
        }
        return admin_site(pages, reactor, resources, self.access, dashboard)

    def sample(self) -> None:
        """Have a sample taken and sent; call it every `SAMPLE_S`."""
        self._feed.take(self.stream.add, is_watched=bool(self.stream.listeners))

    def _hello(self) -> dict[str, Any]:
        """Return what a page is told first."""
        words: dict[str, str] = {}
        panels, feed = self._panels(), self._feed
        for panel in panels.values():
            words |= panel.words
        return {
            "version": __version__,
            "started_at": round(self._wall() - feed.uptime_s(), 1),
            "sample_s": SAMPLE_S,
            "address_form": feed.address_form,
            "has_login": self.access.token is not None,
            "reasons": {**{str(reason): text for reason, text in REASONS.items()}, **words},
            "panels": {name: _panel_object(panel) for name, panel in panels.items()},
            "refusals": feed.recent(),
        }

    def stop(self) -> None:
        """End the streams."""
        self.stream.stop()


def _panel_object(panel: Panel) -> dict[str, Any]:
    plots: Sequence[dict[str, Any]] = [
        {"title": plot.title, "unit": plot.unit, "series": dict(plot.series), "parts_of": plot.parts_of}
        for plot in panel.plots
    ]
    return {"title": panel.title, "plots": plots}
