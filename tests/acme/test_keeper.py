"""Certificates from the folder, from the authority, and when neither works. The child is played by the test."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.capture import Captured, captured
from tests.support.certificates import certificate_and_key
from tests.support.children import FakeChild
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from pyryrelay.acme.cache import CertificateCache
from pyryrelay.acme.challenges import PATH, HttpChallenges
from pyryrelay.acme.keeper import CHILD, CHILD_S, LOOK_S, AcmeConfig, AcmeKeeper, Environment
from pyryrelay.acme.ordering import _proof
from pyryrelay.acme.wire import (
    Answered,
    AskWindow,
    Challenge,
    Failed,
    Issued,
    Order,
    Reply,
    Request,
    Window,
    encode,
    read_request,
)
from pyryrelay.listen.tls.certificates import CertificateStore
from pyryrelay.mounts import Settings
from pyryrelay.protocol import Child, Page
from pyryrelay.runtime.periodic import Periodic

DAY_S = 86_400.0
NAME, OTHER = "relay.example.org", "other.example.org"
CONFIG = AcmeConfig((NAME,), "https://ca.example/dir", "", ("tls-alpn-01", "http-01"))
START = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


class World:
    """A keeper, its store and folder, and a clock that only the test moves."""

    def __init__(self, folder: Path, config: AcmeConfig = CONFIG) -> None:
        self.clock = Clock()
        self.clock.advance(START.timestamp())
        self.folder = folder
        self.children: list[FakeChild] = []
        self.store = CertificateStore()
        self.pages: dict[str, Callable[[], Page]] = {}
        self.cache = CertificateCache(folder, config.directory)
        self.disk_is_full = False
        self.is_accepting = True
        self.environment = Environment(
            self.clock.seconds,
            self.clock.callLater,
            lambda: 0.0,
            self._start,
            self._in_thread,
            lambda: self.is_accepting,
        )
        self.keeper = AcmeKeeper(config, self.store, HttpChallenges(self.pages), self.cache, self.environment)

    def _start(
        self, arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> Child:
        self.children.append(FakeChild(arguments, received, ended))
        return self.children[-1]

    def _in_thread(self, call: Callable[[], object]) -> Deferred[object]:
        def full() -> object:
            raise OSError(28, "No space left on device")

        return maybeDeferred(full if self.disk_is_full else call)

    @property
    def child(self) -> FakeChild:
        return self.children[-1]

    def look(self, later_s: float = 0.0) -> Request | Answered | None:
        """Let time pass, look, and return what a new child was asked for."""
        before = len(self.children)
        self.clock.advance(later_s)
        self.keeper.look()
        return read_request(self.child.bodies[-1]) if len(self.children) > before else None

    def say(self, reply: Reply, *, end: bool = True) -> None:
        """Let the child say something, and end."""
        self.child.answer_body(encode(reply))
        if end:
            self.child.end("exit code 0")

    def issued(self, days: float = 90, name: str = NAME) -> Issued:
        """Return a certificate that begins now."""
        now = datetime.datetime.fromtimestamp(self.clock.seconds(), datetime.UTC)
        return Issued(b"".join(certificate_and_key(name, now, days)).decode(), '{"kty":"EC"}')

    @property
    def expiries(self) -> dict[str, float]:
        """How many days the certificates in use are valid."""
        now = self.clock.seconds()
        return {info.source: round((info.expires_at - now) / DAY_S, 3) for info in self.store.expiries()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the certificates."""
    return tmp_path / "acme"


@pytest.fixture
def world(folder: Path) -> World:
    """A keeper that has no certificate yet."""
    found = World(folder)
    found.keeper.load()
    return found


@pytest.fixture
def log() -> Iterator[Captured]:
    """What is logged."""
    with captured() as found:
        yield found


def test_the_first_certificate_is_ordered_at_once(world: World, folder: Path) -> None:
    """It is used, and kept for the next start."""
    request = world.look()
    assert world.child.arguments == list(CHILD)
    assert request == Order(CONFIG.directory, NAME, "", CONFIG.kinds, "")
    world.say(world.issued())
    assert world.expiries == {f"acme:{NAME}": 90}
    assert world.keeper.orders == {"issued": 1, "failed": 0}
    again = World(folder)
    again.keeper.load()
    assert again.expiries == {f"acme:{NAME}": 90}
    assert not isinstance(again.look(), Order)


def test_it_is_renewed_after_two_thirds_of_its_lifetime(world: World) -> None:
    """The old one is in use until the new one is there; the account is the same."""
    world.look()
    world.say(world.issued())
    world.look()
    world.say(Window(None, world.clock.seconds() + 400 * DAY_S))
    assert world.look(59.9 * DAY_S) is None
    request = world.look(0.2 * DAY_S)
    assert isinstance(request, Order)
    assert request.account == '{"kty":"EC"}'
    assert world.expiries == {f"acme:{NAME}": 29.9}
    world.say(world.issued())
    assert world.expiries == {f"acme:{NAME}": 90}


def test_one_child_at_a_time(folder: Path) -> None:
    """Names are ordered one after the other."""
    world = World(folder, replace(CONFIG, names=(NAME, OTHER)))
    world.keeper.load()
    first = world.look()
    assert world.look(LOOK_S) is None
    world.say(world.issued())
    second = world.look(LOOK_S)
    assert [each.name for each in (first, second) if isinstance(each, Order)] == [NAME, OTHER]


def test_a_new_name_comes_before_a_renewal(world: World, folder: Path) -> None:
    """Clients of a name without a certificate cannot connect at all."""
    world.look()
    world.say(world.issued())
    again = World(folder, replace(CONFIG, names=(NAME, OTHER)))
    again.keeper.load()
    request = again.look(100 * DAY_S)
    assert isinstance(request, Order)
    assert request.name == OTHER


def test_a_challenge_by_http_is_answered_while_the_child_works(world: World) -> None:
    """The child goes on when the relay answers; afterwards nothing is left."""
    world.look()
    world.say(Challenge("http-01", NAME, "token", "token.print"), end=False)
    assert read_request(world.child.bodies[-1]) == Answered()
    assert world.pages[f"{PATH}token"]().body == b"token.print"
    world.say(world.issued())
    assert world.pages == {}


def test_a_challenge_by_tls_is_answered_while_the_child_works(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate of the challenge is there for its name alone."""
    told: list[tuple[str, bool]] = []
    monkeypatch.setattr(world.store, "challenge", lambda name, found: told.append((name, found is not None)))
    world.look()
    world.say(Challenge("tls-alpn-01", NAME, "token", _proof(NAME, "token.print")), end=False)
    assert told == [(NAME, True)]
    world.child.end("signal 9")
    assert told == [(NAME, True), (NAME, False)]


def test_a_failure_is_tried_again_in_another_way(world: World, log: Captured) -> None:
    """The line says why, and when; the account is kept; the other kind of challenge comes first then."""
    world.look()
    world.say(Failed("connection: refused", '{"kty":"EC"}'))
    assert log.texts == [f"no certificate of {NAME} from ACME: connection: refused; trying again in 600 s"]
    assert world.look(599) is None
    request = world.look(1)
    assert isinstance(request, Order)
    assert (request.kinds, request.account) == (("http-01", "tls-alpn-01"), '{"kty":"EC"}')
    world.say(Failed("connection: refused"))
    assert world.look(1199) is None
    assert isinstance(world.look(1), Order)
    assert world.keeper.orders == {"issued": 0, "failed": 2}


def test_a_renewal_that_fails_leaves_the_certificate(world: World, log: Captured) -> None:
    """The relay goes on with the old one, even when it has expired."""
    world.look()
    world.say(world.issued())
    world.look()
    world.say(Window(None, world.clock.seconds() + 400 * DAY_S))
    assert isinstance(world.look(100 * DAY_S), Order)
    world.say(Failed("no"))
    assert world.expiries == {f"acme:{NAME}": -10}


def test_a_child_that_crashes_or_hangs(world: World, log: Captured) -> None:
    """It is a failure like others; a child that works too long is killed."""
    world.look()
    world.child.end("exit code 1")
    assert "the child process ended with exit code 1" in log.texts[-1]
    world.look(700)
    world.clock.advance(CHILD_S)
    assert world.child.is_killed


def test_a_child_that_talks_nonsense_is_killed(world: World) -> None:
    """Neither a broken frame nor a broken certificate reaches the store."""
    world.look()
    world.child.answer_body(b"{")
    assert world.child.is_killed
    world.child.end("signal 9")
    world.look(700)
    world.say(Challenge("tls-alpn-01", NAME, "token", "no PEM"), end=False)
    assert world.child.is_killed


def test_a_broken_certificate_is_not_used(world: World, log: Captured) -> None:
    """What was issued is checked before it takes the place of anything."""
    world.look()
    world.say(Issued("-----BEGIN CERTIFICATE-----", ""))
    assert world.expiries == {}
    assert world.keeper.orders["failed"] == 1
    assert "the certificate that was issued" in log.texts[-1]


def test_a_certificate_of_another_name_is_not_used(world: World, log: Captured) -> None:
    """What an authority issues by mistake or by intent takes the place of nothing, and is not kept."""
    world.look()
    world.say(world.issued())
    world.look(60 * DAY_S)
    world.say(world.issued(name=OTHER))
    assert world.expiries == {f"acme:{NAME}": 30}
    assert "the certificate that was issued is of other names" in log.texts[-1]
    assert world.cache.certificate(NAME) is not None
    again = World(world.folder)
    again.keeper.load()
    assert [info.names for info in again.store.expiries()] == [(NAME,)]


def test_an_old_certificate_causes_no_flood_of_orders(world: World, log: Captured) -> None:
    """If a new certificate has expired already, as with a clock that is wrong, orders become rarer, too."""
    world.look()
    world.say(world.issued(days=0))
    assert world.expiries == {f"acme:{NAME}": 0}
    assert "is old already; check the clock of this machine; trying again in 600 s" in log.texts[-1]
    assert world.look(599) is None
    assert isinstance(world.look(1), Order)
    world.say(world.issued(days=0))
    assert world.look(1199) is None
    assert world.keeper.orders == {"issued": 0, "failed": 2}


def test_an_old_certificate_replaces_no_valid_one(world: World, log: Captured) -> None:
    """The one in use stays."""
    world.look()
    world.say(world.issued())
    world.look(70 * DAY_S)
    world.say(world.issued(days=0))
    assert world.expiries == {f"acme:{NAME}": 20}
    assert "has expired, and the old one has not" in log.texts[-1]


def test_an_authority_that_always_wants_a_renewal(world: World) -> None:
    """A window that is always in the past causes one order in six hours, and not one after the other."""
    world.look()
    world.say(world.issued())
    assert isinstance(world.look(), AskWindow)
    world.say(Window(0.0, 0.0))
    assert isinstance(world.look(LOOK_S), AskWindow)
    world.say(Window(0.0, world.clock.seconds() + DAY_S))
    assert world.look(6 * 3600 - 60) is None
    assert isinstance(world.look(60), Order)


def test_the_authority_may_say_when(world: World) -> None:
    """ARI: its time holds, also if it is long before; it is asked again when it says so."""
    world.look()
    world.say(world.issued())
    now = world.clock.seconds()
    request = world.look()
    assert isinstance(request, AskWindow)
    assert "PRIVATE" not in request.certificate
    world.say(Window(now + 10 * DAY_S, now + DAY_S))
    assert world.look(DAY_S - 1) is None
    assert isinstance(world.look(1), AskWindow)
    world.say(Window(now + 5 * DAY_S, now + 400 * DAY_S))
    assert world.look(3.9 * DAY_S) is None
    assert isinstance(world.look(0.2 * DAY_S), Order)


def test_a_renewal_cannot_be_put_off_for_ever(world: World) -> None:
    """After nine tenths of the lifetime the certificate is renewed, whatever the authority says."""
    world.look()
    world.say(world.issued())
    world.look()
    now = world.clock.seconds()
    world.say(Window(now + 1000 * DAY_S, now + 1000 * DAY_S))
    assert world.look(80.9 * DAY_S) is None
    assert isinstance(world.look(0.2 * DAY_S), Order)


def test_a_question_that_fails_is_no_failure_of_the_certificate(world: World, log: Captured) -> None:
    """It is asked again after hours, and the plan stays."""
    world.look()
    world.say(world.issued())
    world.look()
    world.say(Failed("cannot be reached"))
    assert world.keeper.orders["failed"] == 0
    assert world.look(6 * 3600 - 1) is None
    assert isinstance(world.look(1), AskWindow)


def test_a_clock_that_jumps(world: World) -> None:
    """After a sleep of a year the certificate is renewed at the first look."""
    world.look()
    world.say(world.issued())
    assert isinstance(world.look(365 * DAY_S), Order)


def test_a_full_disk_does_not_matter_now(world: World, log: Captured) -> None:
    """The certificate is used; the line says that it is not kept."""
    world.disk_is_full = True
    world.look()
    world.say(world.issued())
    assert world.expiries == {f"acme:{NAME}": 90}
    assert any("--acme-cache cannot be written (No space left on device)" in line for line in log.texts)


def test_a_folder_that_cannot_be_used(folder: Path, log: Captured) -> None:
    """The relay starts all the same: it has been told at the start."""
    folder.write_text("")
    world = World(folder)
    world.keeper.load()
    assert "--acme-cache: it is no folder" in log.texts[0]
    assert isinstance(world.look(), Order)


def test_a_broken_file_in_the_folder(world: World, folder: Path, log: Captured) -> None:
    """Another certificate is ordered."""
    world.cache.save_certificate(NAME, b"-----BEGIN CERTIFICATE-----")
    again = World(folder)
    again.keeper.load()
    assert "ordering another" in log.texts[0]
    assert isinstance(again.look(), Order)


def test_nothing_is_ordered_while_another_process_accepts(world: World) -> None:
    """The authority would ask that one; if it fails, this one goes on."""
    world.is_accepting = False
    assert world.look(DAY_S) is None
    world.is_accepting = True
    assert isinstance(world.look(), Order)


def test_the_end_of_the_relay_ends_the_child(world: World, log: Captured) -> None:
    """Nothing is begun or used afterwards."""
    world.look()
    world.keeper.stop()
    assert world.child.is_killed
    world.say(world.issued())
    assert world.expiries == {}
    assert world.look(DAY_S) is None
    assert log.texts == []


def test_it_looks_at_once_and_then_at_intervals(folder: Path) -> None:
    """The first order does not wait."""
    world = World(folder)
    periodic = Periodic(world.clock)
    world.keeper.start(periodic)
    assert world.children == []
    world.clock.advance(0)
    assert len(world.children) == 1
    world.child.end("exit code 1")
    for _ in range(61):
        world.clock.advance(LOOK_S)
    assert len(world.children) == 2
    periodic.stop()


def test_what_settings_ask_for(tmp_path: Path) -> None:
    """The names are proven on the endpoints that there are."""
    settings = Settings(listen=("tcp:80", "ssl:443"), acme=(NAME,), acme_cache="c", acme_email="me@example.org")
    world = World(tmp_path)
    keeper = AcmeKeeper.of(settings, world.store, world.pages, tmp_path, world.environment)
    keeper.load()
    assert (tmp_path / "c").is_dir()
    keeper.look()
    request = read_request(world.child.bodies[-1])
    assert isinstance(request, Order)
    assert (request.name, request.email, request.kinds) == (NAME, "me@example.org", ("http-01", "tls-alpn-01"))
