"""The dashboard in a real browser: it draws, goes on after a restart, and runs nothing that clients send.

The browser is shared; each test opens the page of a relay of its own, and its console must stay empty.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.browser import Browser, chromium, needs_chromium, needs_driver
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import (
    GENEROUS,
    LOCALHOST,
    Launch,
    Relay,
    answers,
    asynchronous,
    environment,
    eventually,
    run_twistd,
    until,
)
from tests.end_to_end.peers import binary, closed, phone
from tests.end_to_end.raw import ask, head, upgrade

pytestmark = [needs_chromium, needs_driver]

SECRET = "correct-horse-battery-staple"
SCRIPT = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
KEY = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d"
PAINTED = """
return [...document.querySelectorAll("#plots canvas")].filter((canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.some((value) => value);
}).length
"""
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(shared_browser: Browser, start_relay: StartRelay) -> Iterator[Browser]:
    """The browser, whose console must stay empty. It leaves the page before the relay ends."""
    shared_browser.complaints()
    shared_browser.emulate(width=1300, height=1000)
    yield shared_browser
    complaints = shared_browser.complaints()
    shared_browser.open("about:blank")
    assert complaints == []


def url(relay: Relay, path: str = "/") -> str:
    """Return the address of a page of the admin listener."""
    return f"http://{LOCALHOST}:{relay.admin_port}{path}"


def opened(browser: Browser, relay: Relay) -> None:
    """Open the dashboard, and wait for its first sample."""
    browser.open(url(relay))
    browser.shows("#state-word", "Healthy")


def restarted(relay: Relay) -> None:
    """End the relay, and start it again on the same ports."""
    relay.signal()
    relay.process.wait()
    with (relay.directory / "log").open("ab") as log:
        relay.process = subprocess.Popen(
            relay.process.args,
            cwd=relay.directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    until(lambda: answers(relay.admin_port), "the relay is there again")


@asynchronous
async def test_it_draws_and_follows_the_load(browser: Browser, start_relay: StartRelay) -> None:
    """Every plot is drawn; connections, refusals and the figures of protocols appear within seconds."""
    relay = start_relay(*GENEROUS, "--nostr", "--nostr-database", "sqlite::memory:", "--trust-x-forwarded-for")
    opened(browser, relay)
    browser.becomes(f"return ({PAINTED.strip().removeprefix('return ')}) >= 9", "all plots are painted")
    titles = browser.run("return [...document.querySelectorAll('#protocols h2')].map((title) => title.textContent)")
    assert titles == ["Pyry", "Nostr"]
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(binary(relay.uri, "dashboard"))
        for number in range(3):
            fields = ("x-forwarded-for", f"192.0.2.{number}")
            peer = await stack.enter_async_context(phone(relay.uri, "dashboard", fields))
            await peer.send('"hello"')
            await server.recv()
        await ask(relay.address, head("/wp-login.php", ("Host", "relay"), ("X-Forwarded-For", "192.0.2.77")))
        await eventually(lambda: browser.text("[data-figure=connections]") == "4", "four connections are shown")
        browser.shows("#refusal-rows", "192.0.2.77")
        browser.shows("#refusal-rows", "unknown_path")
        browser.shows("[data-plot='Binaries and phones'] .legend", "phones3")
        browser.shows("#histogram-note", "4 addresses")
    browser.becomes("return document.querySelector('[data-figure=connections]').textContent === '0'", "all have left")
    assert browser.run("return document.querySelectorAll('.canvas[role=img][aria-label^=Plot]').length") >= 9


@asynchronous
async def test_an_attack_is_named(browser: Browser, start_relay: StartRelay) -> None:
    """Many refusals are told in words, with the reason that most of them have."""
    relay = start_relay(*GENEROUS)
    opened(browser, relay)
    for _ in range(150):
        await ask(relay.address, head("/wp-login.php", ("Host", "relay")))
    browser.shows("#state-word", "Under attack")
    assert "mostly unknown_path. There is nothing at the path" in browser.text("#state-text")
    assert browser.run("return document.title").startswith("Under attack")


def test_it_goes_on_after_a_restart(browser: Browser, start_relay: StartRelay) -> None:
    """The page tells that the relay is gone, comes back by itself, and keeps what it had, with a gap."""
    relay = start_relay()
    opened(browser, relay)
    before = browser.becomes("return Number(document.querySelectorAll('canvas').length)", "plots")
    relay.signal()
    relay.process.wait()
    browser.shows("#state-word", "Not connected")
    restarted(relay)
    browser.shows("#state-word", "Healthy")
    assert browser.run("return document.querySelectorAll('canvas').length") == before
    # The browser itself reports that a request got no answer.
    assert all("ERR_CONNECTION_REFUSED" in line or "ERR_INCOMPLETE" in line for line in browser.complaints())


@asynchronous
async def test_texts_of_clients_are_only_text(browser: Browser, start_relay: StartRelay) -> None:
    """Names, paths, ids and header fields of clients, and what a protocol calls itself, run nothing."""
    program = (sys.executable, "-m", "tests.end_to_end.with_room")
    relay = start_relay(*GENEROUS, "--trust-x-forwarded-for", launch=Launch(program=program))
    opened(browser, relay)
    fields = (("x-device-name", SCRIPT), ("x-forwarded-for", f"{SCRIPT}, 192.0.2.9"), ("user-agent", SCRIPT))
    async with binary(relay.uri, "script"):
        peer = await phone(relay.uri, "script", *fields[:2], user_agent_header=SCRIPT)
        await peer.close()
        await closed(peer)
        await ask(relay.address, head("/%3Cscript%3E" + SCRIPT.replace(" ", "%20"), ("Host", SCRIPT), *fields))
        await ask(relay.address, upgrade("/v1/client", SCRIPT))
        browser.becomes("return document.querySelectorAll('#refusal-rows tr').length >= 2", "refusals are shown")
    browser.enter("#explain-address", SCRIPT[:100])
    browser.click("#explain-form button")
    browser.becomes("return document.querySelector('#explain-result .problem')", "the relay refuses the address")
    browser.enter("#jail-address", SCRIPT[:100])
    browser.click("#jail-form button[type=submit]")
    browser.shows("#jail-outcome", "<script>")
    # The room's title has a tag, which stands there as text.
    browser.shows("#protocol-echo h2", "The <b>echo</b> room")
    assert browser.run("return window.hacked") is None
    assert (
        browser.run("return document.querySelectorAll('main script, main img:not([src=\"/assets/icon.svg\"])').length")
        == 0
    )
    # The relay refused two of these requests, as the browser reports.
    assert all("status of 40" in line for line in browser.complaints())


def test_the_jail(browser: Browser, start_relay: StartRelay) -> None:
    """An address is jailed and released on the page."""
    relay = start_relay("--trust-x-forwarded-for")
    opened(browser, relay)
    browser.shows("#jail-rows", "Nobody is in jail.")
    browser.enter("#jail-address", "192.0.2.7")
    browser.click("#jail-form button[type=submit]")
    browser.shows("#jail-outcome", "192.0.2.7/32 is in jail for 1 h")
    browser.shows("#jail-rows", "192.0.2.7/32")
    browser.click("#jail-rows button[aria-label='Release 192.0.2.7/32']")
    browser.shows("#jail-outcome", "192.0.2.7/32 is released.")
    browser.shows("#jail-rows", "Nobody is in jail.")


def test_explanations_and_settings(browser: Browser, start_relay: StartRelay) -> None:
    """The page explains what the relay would decide about an address or a key, and where each setting comes from."""
    nostr = ("--nostr", "--nostr-database", "sqlite::memory:", "--nostr-deny-pubkey", KEY)
    relay = start_relay("--trust-x-forwarded-for", "--deny", "192.0.2.0/24", *nostr)
    opened(browser, relay)
    browser.enter("#explain-address", KEY)
    browser.click("#explain-form button")
    browser.shows("#explain-result .verdict", "refused")
    browser.shows("#explain-result", "nostr refuses by this rule: deny list. What to do: take it off the deny list")
    for address, verdict in (("192.0.2.7", "denied"), ("198.51.100.7", "admitted")):
        browser.enter("#explain-address", address)
        browser.click("#explain-form button")
        browser.shows("#explain-result .verdict", verdict)
    assert browser.run("return document.querySelectorAll('#explain-result .step').length") > 5
    browser.click("#settings summary")
    browser.shows("#settings-rows", "--deny")
    browser.click("#settings-changed")
    rows = "return [...document.querySelectorAll('#settings-rows tr')].map((row) => row.innerText)"
    shown = browser.becomes(
        f"{rows}.filter((text) => /^--deny\\s+192.0.2.0.24\\s+command line$/.test(text))", "the list"
    )
    assert len(shown) == 1
    assert not [text for text in browser.run(rows) if text.endswith("default")]


def test_login_and_logout(browser: Browser, start_relay: StartRelay, tmp_path: Path) -> None:
    """With a token the page is behind a login, whose cookie no script can read; a logout ends it."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    relay = start_relay("--admin-token-file", str(file))
    browser.open(url(relay))
    assert browser.driver.current_url == url(relay, "/login")
    browser.enter("#token", "wrong")
    browser.driver.find_element("css selector", "button").click()
    browser.shows("[role=alert]", "That was not the token")
    browser.enter("#token", SECRET)
    browser.driver.find_element("css selector", "button").click()
    browser.shows("#state-word", "Healthy")
    assert browser.driver.current_url == url(relay)
    assert browser.run("return document.cookie") == ""
    (cookie,) = browser.driver.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert SECRET not in cookie["value"]
    browser.click("#logout")
    browser.becomes("return location.pathname === '/login'", "the login page is back")
    browser.open(url(relay))
    assert browser.driver.current_url == url(relay, "/login")
    assert SECRET not in relay.log()
    assert [line for line in browser.complaints() if "status of 401" not in line] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_phone(browser: Browser, start_relay: StartRelay, dark: bool) -> None:
    """On a narrow screen nothing but tables scrolls sideways, in light and dark."""
    relay = start_relay("--nostr", "--nostr-database", "sqlite::memory:")
    browser.emulate(width=360, height=740, dark=dark)
    opened(browser, relay)
    browser.becomes(PAINTED, "plots are painted")
    assert browser.run(OVERFLOW) <= 0
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.strip("rgb()").split(","))) < 200) == dark


CONTRAST = """
const luminance = (color) => {
  const [red, green, blue] = color.match(/[\\d.]+/g).map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const back = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const color = getComputedStyle(one).backgroundColor;
    if (!/, 0\\)$/.test(color) && color !== "transparent") return color;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("main *, header *")].filter((element) => {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) return false;
  if (!element.getClientRects().length || element.closest(".hidden, option, noscript")) return false;
  const [one, other] = [luminance(getComputedStyle(element).color), luminance(back(element))].sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05) < 4.5;
}).map((element) => element.outerHTML.slice(0, 120))
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_have_contrast(browser: Browser, start_relay: StartRelay, dark: bool) -> None:
    """Each text has a contrast of 4.5 to 1 at least (WCAG 1.4.3), and each button and field has a name."""
    relay = start_relay()
    browser.emulate(width=1300, height=1000, dark=dark)
    opened(browser, relay)
    assert browser.run(CONTRAST) == []
    nameless = """return [...document.querySelectorAll("button, input, select")].filter((one) =>
        !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).map((one) => one.outerHTML)"""
    assert browser.run(nameless) == []


def test_an_open_admin_listener_does_not_start(tmp_path: Path) -> None:
    """Without a token the relay listens for its operator alone, and says so in one line."""
    done = run_twistd(tmp_path, "--listen", f"tcp:0:interface={LOCALHOST}", "--admin-listen", "tcp:0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("pyryrelay: --admin-listen (from command line): 'tcp:0' lets others use the admin listener")
    assert "--admin-token-file" in line


def test_a_token_that_others_can_read_does_not_start(tmp_path: Path) -> None:
    """The line names the file and its mode, and not what is in it."""
    file = tmp_path / "token"
    file.write_text(SECRET)
    file.chmod(0o644)
    for option in ((), ("--check",)):
        arguments = ("--listen", f"tcp:0:interface={LOCALHOST}", "--admin-listen", f"tcp:0:interface={LOCALHOST}")
        done = run_twistd(tmp_path, *arguments, "--admin-token-file", "token", *option)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "'token' can be read or changed by other users (mode 644); run chmod 600 on it" in line
        assert SECRET not in done.stdout + done.stderr
