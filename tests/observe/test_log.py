"""The log: one line for each event, without secrets, and bounded in number under a flood."""

from __future__ import annotations

import ast
import re
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.capture import Captured
from tests.support.pyry import address
from twisted.internet.task import Clock

import pyryrelay
from pyryrelay.guard import client_address
from pyryrelay.logger import UnfilteredLogger
from pyryrelay.mounts import Settings
from pyryrelay.observe.log import (
    ALLOWED_FIELDS,
    INTERVAL_S,
    LINES_PER_S,
    MAX_PENDING_LINES,
    AddressForm,
    AddressFormatter,
    EventLog,
    LineLimiter,
)

_log = UnfilteredLogger(namespace="pyryrelay")
SOURCES = sorted(Path(pyryrelay.__file__).parent.rglob("*.py"))


@pytest.fixture
def clock() -> Clock:
    """A clock that does not move."""
    return Clock()


@pytest.fixture
def events(clock: Clock) -> EventLog:
    """A log with full addresses."""
    return EventLog("full", clock.seconds)


# When lines are written


@pytest.fixture
def deferring(clock: Clock) -> EventLog:
    """A log that writes at the end of a turn."""
    return EventLog("full", clock.seconds, partial(clock.callLater, 0))


def write(events: EventLog, text: str) -> None:
    """Have a line written, as a protocol does it."""
    events.write(lambda: _log.info("{warning}", warning=text))


def test_lines_of_a_turn_are_written_together(log: Captured, clock: Clock, deferring: EventLog) -> None:
    """Lines of one turn are written together at its end, in their order."""
    for number in range(3):
        deferring.jailed(address(f"192.0.2.{number}"), 600.0, 1)
        write(deferring, str(number))
    assert log.texts == []
    clock.advance(0)
    assert [text.split()[0] for text in log.texts] == ["jailed", "0", "jailed", "1", "jailed", "2"]
    assert not clock.getDelayedCalls()
    write(deferring, "3")
    clock.advance(0)
    assert len(log.texts) == 7


def test_what_waits_is_bounded(log: Captured, clock: Clock, deferring: EventLog) -> None:
    """When ten thousand peers leave in one turn, only a bounded number of lines waits for its end."""
    for _ in range(2 * MAX_PENDING_LINES + 1):
        write(deferring, "gone")
    assert len(log.texts) == 2 * MAX_PENDING_LINES
    clock.advance(0)
    assert len(log.texts) == 2 * MAX_PENDING_LINES + 1
    assert not clock.getDelayedCalls()


def test_a_warning_does_not_wait(log: Captured, deferring: EventLog) -> None:
    """A warning is written at once, since it may be the last line of the process."""
    deferring.warn("look here")
    assert log.texts == ["look here"]


def test_the_end_waits_for_nothing(log: Captured, clock: Clock, deferring: EventLog) -> None:
    """At the end waiting lines are written, later lines are written at once, and a second end does nothing."""
    write(deferring, "first")
    deferring.stop()
    assert not clock.getDelayedCalls()
    write(deferring, "second")
    deferring.stop()
    assert len(log.texts) == 2


# Addresses


@pytest.mark.parametrize(
    ("client", "full", "prefix"),
    [
        ("192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
    ],
)
def test_full_and_prefix(client: str, full: str, prefix: str) -> None:
    """`full` logs the address as it is, `prefix` the network around it."""
    assert AddressFormatter("full")(address(client)) == full
    assert AddressFormatter("prefix")(address(client)) == prefix


def test_none_tells_nothing() -> None:
    """`none` hides the address, and whether there was one."""
    text = AddressFormatter("none")
    assert text(address()) == text(None) == "-"


@pytest.mark.parametrize("form", ["full", "prefix", "hashed"])
def test_unknown(form: str) -> None:
    """A client without an address looks different from every address."""
    assert AddressFormatter(form)(None) == "unknown"  # type: ignore[arg-type]


def test_hashed_is_equal_within_one_process_only() -> None:
    """Equal addresses have equal hashes within a process, and another process uses another key."""
    one, other = AddressFormatter("hashed"), AddressFormatter("hashed")
    assert one(address()) == one(address())
    assert one(address()) != one(address("192.0.2.8"))
    assert one(address()) != other(address())
    assert re.fullmatch("[0-9a-f]{16}", one(address()))


# The limiter


def test_one_line_for_each_key_in_an_interval() -> None:
    """Each key has one line in an interval, and its next line counts those left out in between."""
    limiter = LineLimiter(interval_s=10.0)
    assert limiter.note("a", 1.0) == 0
    assert [limiter.note("a", now) for now in (1.0, 5.0, 10.9)] == [None] * 3
    assert limiter.note("b", 10.9) == 0
    assert limiter.note("a", 11.0) == 3
    assert limiter.note("a", 11.0) is None
    assert limiter.note("c", 11.0, 5) == 4
    assert [limiter.note("c", now, 3) for now in (12.0, 21.0)] == [None, 5]


def test_all_keys_share_the_lines_of_a_second() -> None:
    """Twenty keys get a line in a second; the others wait for the next second."""
    limiter = LineLimiter(lines_per_s=20)
    assert [limiter.note(key, 5.5) for key in range(30)] == [0] * 20 + [None] * 10
    assert limiter.note(29, 5.9) is None
    assert limiter.note(29, 6.0) == 2
    assert limiter.note(28, 6.0) == 1


def test_keys_are_bounded() -> None:
    """Past the bound no key is remembered, and every event is counted in the sum."""
    limiter = LineLimiter(interval_s=10.0, lines_per_s=5, max_tracked=3)
    lines = [limiter.note(key, 0.5) for key in range(100)]
    assert lines == [0] * 5 + [None] * 95
    assert limiter.sweep(0.5) == 95
    assert limiter.sweep(0.5) == 0
    assert [limiter.note(key, 1.5) for key in (0, 99, 99)] == [None, 0, 0]


def test_a_sweep_sums_up_what_no_line_will_count() -> None:
    """A sweep forgets keys that were silent for an interval and sums up what their lines left out."""
    limiter = LineLimiter(interval_s=10.0)
    for now in (0.0, 1.0, 2.0):
        limiter.note("silent", now)
        limiter.note("loud", now + 8.0)
    assert limiter.sweep(10.0) == 2
    assert limiter.note("loud", 18.0) == 2
    assert limiter.note("silent", 18.0) == 0


@given(
    st.lists(st.tuples(st.integers(0, 6) | st.none(), st.sampled_from([0.0, 0.1, 0.9, 4.0, 11.0]))),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_every_event_is_counted_once(
    history: list[tuple[int | None, float]], lines_per_s: int, max_tracked: int
) -> None:
    """Lines, the events they left out and the sums of sweeps add up to the number of events."""
    limiter = LineLimiter(10.0, lines_per_s, max_tracked)
    now, events, told, last = 0.0, 0, 0, dict[int, float]()
    lines = dict[int, int]()
    for key, passed in history:
        now += passed
        if key is None:
            told += limiter.sweep(now)
            continue
        events += 1
        left_out = limiter.note(key, now)
        if left_out is not None:
            told += 1 + left_out
            lines[int(now)] = lines.get(int(now), 0) + 1
            assert left_out == 0 or now - last.get(key, now - 10.0) >= 10.0
            last[key] = now
    told += limiter.sweep(now + 11.0)  # Past the interval, whatever the rounding of floats.
    assert told == events
    assert all(count <= lines_per_s for count in lines.values())


# The event log


def test_a_flood_of_refusals_writes_few_lines(log: Captured, clock: Clock, events: EventLog) -> None:
    """100,000 refusals of one address in 100 s are fewer than 100 lines, which count every one of them."""
    client = address()
    for _ in range(100):
        for _ in range(1000):
            events.refused("server", 429, "rate_limit", client)
        clock.advance(1)
        if clock.seconds() % 10 == 0:
            events.sweep()
    clock.advance(10)
    events.sweep()
    assert len(log.lines) < 100
    told = [event.get("count", 0) + event.get("left_out", -1) + 1 for event in log.events]
    assert sum(told) == 100_000


def test_a_flood_from_many_addresses_writes_few_lines(log: Captured, clock: Clock, events: EventLog) -> None:
    """Refusals of any number of addresses are at most 20 lines a second."""
    clients = [address(f"198.51.{high}.{low}") for high in range(20) for low in range(250)]
    for client in clients:
        events.refused("client", 429, "rate_limit", client)
    assert len(log.lines) == 20
    clock.advance(10)
    events.sweep()
    assert log.texts[20:] == ["4980 more refusals and drops since the last lines about them"]


@pytest.mark.parametrize(
    ("route", "client", "text"),
    [
        ("server", "192.0.2.7", "refused 192.0.2.7 429 rate_limit on server (0 more left out)"),
        (None, None, "refused unknown 429 rate_limit on - (0 more left out)"),
    ],
)
def test_refused(log: Captured, events: EventLog, route: str | None, client: str | None, text: str) -> None:
    """The line of a refusal has client, status, reason and route."""
    events.refused(route, 429, "rate_limit", None if client is None else client_address(client))
    assert log.texts == [text]


def test_refusals_differ_by_reason_and_client(log: Captured, events: EventLog) -> None:
    """Each pair of reason and client has its own line; addresses of one quota share it."""
    for client in ("2001:db8::1", "2001:db8::2", "2001:db8:1::1"):
        for reason in ("rate_limit", "denied"):
            events.refused("server", 429, reason, address(client))
    assert len(log.texts) == 4


def test_a_sweep_with_nothing_to_tell_is_silent(log: Captured, events: EventLog) -> None:
    """A sweep that forgot nothing writes no line."""
    events.sweep()
    assert log.lines == []


def test_jailed(log: Captured, clock: Clock, events: EventLog) -> None:
    """The line of a ban has address, duration and count, and each ban has its line."""
    events.jailed(address(), 599.7, 1)
    events.jailed(address("192.0.2.8"), 1200.0, 2)
    events.jailed(address(), 86_400.0, 9)
    assert log.texts == [
        "jailed 192.0.2.7 for 600 s, time 1 (0 more left out)",
        "jailed 192.0.2.8 for 1200 s, time 2 (0 more left out)",
        "jailed 192.0.2.7 for 86400 s, time 9 (0 more left out)",
    ]


@pytest.mark.parametrize(
    ("form", "text"), [("full", "2001:db8:1::/48"), ("prefix", "2001:db8:1::/48"), ("none", "-"), ("hashed", None)]
)
def test_jailed_networks(log: Captured, clock: Clock, form: AddressForm, text: str | None) -> None:
    """The ban of a whole /48 names the network in the form chosen for addresses."""
    events = EventLog(form, clock.seconds)
    events.jailed(address("2001:db8:1:2::3"), 600.0, 1, with_network=True)
    events.jailed(address("2001:db8:1:9::3"), 600.0, 1, with_network=True)
    first, second = log.texts
    assert first == second
    assert re.fullmatch(rf"jailed {text or '[0-9a-f]{16}'} for 600 s, time 1 \(0 more left out\)", first)


def test_no_flood_hides_a_ban(log: Captured, events: EventLog) -> None:
    """Every ban has its line, however many refusals and bans there are in that second."""
    for number in range(5000):
        events.refused("client", 429, "rate_limit", address(f"198.51.{number // 250}.{number % 250}"))
    for number in range(100):
        events.jailed(address(f"203.0.113.{number}"), 600.0, 1)
    jailed = [line for line in log.texts if line.startswith("jailed ")]
    assert len(log.texts) - len(jailed) == LINES_PER_S
    assert jailed == [f"jailed 203.0.113.{number} for 600 s, time 1 (0 more left out)" for number in range(100)]


def test_a_refusal_does_not_use_up_the_line_of_a_ban(log: Captured, events: EventLog) -> None:
    """A refusal of a jailed address has its own line beside that of the ban."""
    events.refused(None, 403, "jailed", address())
    events.jailed(address(), 600.0, 1)
    assert len(log.texts) == 2


def test_proxy_suspected(log: Captured, events: EventLog) -> None:
    """A warning about a proxy that hides its clients is one line with its address, the sign and the fix."""
    events.proxy_suspected(address("10.0.0.1"), "which is odd", "Do something")
    events.proxy_jailed(address("10.0.0.1"), "which is odd", "Do something")
    assert log.texts == [
        "over 90 % of the upgrade attempts of the last minutes come from 10.0.0.1, which is odd: all clients behind it "
        "share one quota. Do something; `pyryrelay whoami` explains what is derived",
        "10.0.0.1 is jailed, which is odd: all clients behind it are locked out. Do something, and release it",
    ]


def test_a_warning_is_a_line(log: Captured, events: EventLog) -> None:
    """A warning is logged as it is, with any braces in it."""
    events.warn("jail file '{x}' cannot be used")
    assert log.texts == ["jail file '{x}' cannot be used"]
    assert log.events[0]["log_level"].name == "warn"


def test_addresses_in_another_form(log: Captured, events: EventLog) -> None:
    """A change of form counts from the next line on, and hashes are the same after a change there and back."""
    forms: list[AddressForm] = ["prefix", "hashed", "none", "hashed"]
    for form in forms:
        events.configure(form)
        events.jailed(address(), 600.0, 1)
    shown = [text.split()[1] for text in log.texts]
    assert (shown[0], shown[2]) == ("192.0.2.0/24", "-")
    assert shown[1] == shown[3]


# The list of fields


def test_every_allowed_field_is_used() -> None:
    """Every field that may be logged is logged somewhere."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    logged = [call for call in calls if ast.unparse(call.func).startswith("_log.")]
    assert {keyword.arg for call in logged for keyword in call.keywords} == ALLOWED_FIELDS.union(
        *(protocol.log_fields for protocol in Settings.protocols)
    )


def test_wrong_tokens_of_the_admin_listener(log: Captured) -> None:
    """The operator is told who sends them, once in a while for each client."""
    clock = Clock()
    events = EventLog("full", clock.seconds)
    for _ in range(3):
        events.wrong_token(address())
    events.wrong_token(None)
    clock.advance(INTERVAL_S)
    events.wrong_token(address())
    assert log.texts == [
        "wrong token on the admin listener from 192.0.2.7 (0 more left out)",
        "wrong token on the admin listener from unknown (0 more left out)",
        "wrong token on the admin listener from 192.0.2.7 (2 more left out)",
    ]
