"""The admin listener of one relay: who may use it, what it shows, and the samples that the dashboard is sent.

Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import Site

from pyryrelay import __version__
from pyryrelay.admin.access import Access
from pyryrelay.admin.dashboard.pages import Login, assets_folder, logout_resource, read_assets
from pyryrelay.admin.dashboard.reasons import REASONS
from pyryrelay.admin.dashboard.samples import difference
from pyryrelay.admin.dashboard.stream import Stream
from pyryrelay.admin.site import admin_site
from pyryrelay.admin.status import Status
from pyryrelay.admin.tokens import TokenFileError, check_token_file
from pyryrelay.config.endpoints import Endpoint
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import SettingsError
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.refusals import MAX_RECENT, RecentRefusal, Refusals
from pyryrelay.observe.sampling import SAMPLE_S, Snapshot
from pyryrelay.protocol import Page, Panel

__all__ = ["MAX_NEW_REFUSALS", "AdminListener"]

MAX_NEW_REFUSALS: Final = 50
"""How many of the refusals of one second the dashboard is sent."""


class AdminListener:
    """See the module's text. ``now`` is the monotonic clock, and ``wall`` the other one.

    ``panels`` describe what the protocols show, by their names.
    """

    def __init__(
        self,
        status: Status,
        refusals: Refusals,
        log: EventLog,
        panels: Mapping[str, Panel],
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.access = Access(now, log.wrong_token)
        self.stream = Stream(now, self._hello, self.access.knows)
        self._status = status
        self._refusals = refusals
        self._event_log = log
        self._panels = panels
        self._now = now
        self._wall = wall
        self._before: Snapshot | None = None
        self._seen = 0

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
        self, pages: Mapping[str, Callable[[], Page]], resources: Mapping[str, Resource], reactor: IReactorTime
    ) -> Site:
        """Return what the listener serves: these pages and resources, and the dashboard."""
        assets = read_assets()
        dashboard: dict[str, Resource] = {
            "/": assets["index.html"],
            "/login": Login(self.access, assets["login.html"], assets["login-again.html"]),
            "/logout": logout_resource(self.access),
            "/events": self.stream,
            "/assets": assets_folder(assets),
        }
        return admin_site(pages, reactor, resources, self.access, dashboard)

    # Samples

    def sample(self) -> None:
        """Take a sample, and send it; call it every `SAMPLE_S`."""
        sample = self._status.sampler.take()
        state = "draining" if self._status.is_draining() else "running"
        found = difference(self._before or sample, sample, self._wall(), state)
        self._before = sample
        self.stream.add(found, self._new_refusals())

    def _new_refusals(self) -> list[dict[str, Any]]:
        """Return the refusals since the last call, the newest if they are many."""
        new, self._seen = self._refusals.total - self._seen, self._refusals.total
        if not new or not self.stream.listeners:
            return []
        return self._shown(min(new, MAX_NEW_REFUSALS))

    def _shown(self, most: int) -> list[dict[str, Any]]:
        recent, offset_s = self._refusals.recent, self._wall() - self._now()
        skipped = max(0, len(recent) - most)
        return [self._as_object(refusal, offset_s) for refusal in islice(recent, skipped, None)]

    def _as_object(self, refusal: RecentRefusal, offset_s: float) -> dict[str, Any]:
        return {
            "at": round(refusal.at_s + offset_s, 3),
            "client": self._event_log.address(refusal.client),
            "status": refusal.status,
            "reason": str(refusal.reason),
            "route": refusal.route,
        }

    def _hello(self) -> dict[str, Any]:
        """Return what a page is told first."""
        words: dict[str, str] = {}
        for panel in self._panels.values():
            words |= panel.words
        return {
            "version": __version__,
            "started_at": round(self._wall() - self._status.uptime_s(), 1),
            "sample_s": SAMPLE_S,
            "address_form": self._event_log.address_form,
            "has_login": self.access.token is not None,
            "reasons": {**{str(reason): text for reason, text in REASONS.items()}, **words},
            "panels": {name: _panel_object(panel) for name, panel in self._panels.items()},
            "refusals": self._shown(MAX_RECENT),
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
