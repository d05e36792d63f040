"""The pages about running a Nostr relay: their settings and commands are valid, and nginx passes it on as they say."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shlex
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, ROOT, SLOW, Launch, Relay, reserve_port, run_twistd
from tests.end_to_end.proxies import NGINX, NGINX_CONFIGURATION, Proxy, needs_nginx, running
from tests.support.signed_events import Author, forged
from websockets.sync.client import connect

from pyryrelay.mounts import Settings
from pyryrelay.nostr.tools import command

HOWTO = ROOT / "docs" / "howto"
PAGES = sorted(HOWTO.glob("nostr-*.md"))
NGINX_PAGE = HOWTO / "nostr-behind-nginx.md"


def lines(prefix: str) -> list[str]:
    """Return the commands of all pages that begin so, up to a pipe or a redirection."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "docs/tutorial/first-nostr-relay.md"])
    found = re.findall(rf"^    (?:.*\| |\.venv/bin/)?{prefix} (.*)$", text, re.MULTILINE)
    return [re.split(r" [|<>] ", line)[0] for line in found]


@pytest.mark.parametrize("line", lines("pyryrelay nostr"))
def test_commands_exist(line: str) -> None:
    """Each command of the pages has the arguments that the program knows."""
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))
    assert parser.parse_args(["nostr", *shlex.split(line)]).run is not None


@pytest.mark.parametrize("line", lines("twistd pyryrelay"))
def test_relays_of_the_pages_would_start(line: str, tmp_path: Path) -> None:
    """The options of each relay are valid."""
    done = run_twistd(tmp_path, *shlex.split(line), *([] if "--check" in line else ["--check"]))
    assert done.returncode == 0, done.stderr


def test_settings_of_the_pages_are_valid() -> None:
    """Each block of settings is one that the relay takes."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```toml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]
    assert len(blocks) >= 4
    for block in blocks:
        Settings.from_sources(tomllib.loads(block), {}, {})


def location() -> str:
    """Return the location of the page's configuration."""
    (block,) = re.findall(r"^    (location = / \{\n.*?^    \})", NGINX_PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return str(block)


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[Relay, Proxy]]:
    """The page's relay behind the page's nginx, without TLS."""
    (line,) = re.findall(r"^    twistd pyryrelay (.*)$", NGINX_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    relay = Relay(tmp_path / "relay", [*line.split(), *SLOW], Launch())
    directory = tmp_path / "nginx"
    directory.mkdir()
    try:
        with reserve_port() as held:
            port = held.getsockname()[1]
            user = "user root;" if os.getuid() == 0 else ""
            text = NGINX_CONFIGURATION.format(
                user=user, port=f"{LOCALHOST}:{port}", upstream=f"{LOCALHOST}:{relay.port}"
            )
            ours = location().replace("127.0.0.1:8080", f"{LOCALHOST}:{relay.port}")
            text = re.sub(r"location / \{.*?\n        \}", lambda _: ours, text, flags=re.DOTALL)
            (directory / "nginx.conf").write_text(text, encoding="utf-8")
            program = [str(NGINX), "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
            with running(program, directory, port, "/"):
                yield relay, Proxy(port)
    finally:
        relay.stop()


@needs_nginx
@pytest.mark.slow
def test_a_relay_behind_nginx(proxied: tuple[Relay, Proxy]) -> None:
    """Clients get the document and can subscribe through nginx, and the relay knows their addresses."""
    relay, proxy = proxied
    asked = http.client.HTTPConnection(LOCALHOST, proxy.port, DEADLINE_S)
    with contextlib.closing(asked):
        asked.request("GET", "/", headers={"Accept": "application/nostr+json"})
        answer = asked.getresponse()
        assert (answer.status, answer.headers.get_all("Access-Control-Allow-Origin")) == (200, ["*"])
        assert 42 in json.loads(answer.read())["supported_nips"]
    made_up = {"X-Forwarded-For": "203.0.113.9"}
    with connect(f"{proxy.uri}/", additional_headers=made_up, source_address=("127.0.0.5", 0)) as client:
        client.send('["REQ","x",{"limit":1}]')
        assert json.loads(client.recv()) == ["EOSE", "x", ["finish"]]
        line = forged(Author("alice").line(created_at=int(time.time())))
        client.send(b'["EVENT",' + line + b"]", text=True)
        assert json.loads(client.recv())[2:] == [False, "invalid: signature does not verify"]
    assert "refused EVENT of 127.0.0.5: signature (0 more left out)" in relay.log()
