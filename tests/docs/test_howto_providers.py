"""The chains of docs/howto/behind-a-provider.md, each derived with the options above it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from pyryrelay.config.derive import trust_policy
from pyryrelay.mounts import Settings
from pyryrelay.preflight.exposure import exposure

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "behind-a-provider.md"
BLOCK = re.compile(r"^```toml\n(.*?)^```$|^\| ([0-9a-f.:]+) \| (?:`([^`]*)` )?\| ([0-9a-f.:]+|nobody) \|$", re.M | re.S)


class Chain(NamedTuple):
    """A row of a table, and the options above it."""

    options: str
    peer: str
    value: str | None
    client: str


def chains() -> list[Chain]:
    """Return all chains of the page."""
    found, options = [], ""
    for block, peer, value, client in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        options = block or options
        if peer:
            found.append(Chain(options, peer, value or None, client))
    return found


def test_all_rows_are_read() -> None:
    """Every row that looks like a chain is read, and every block of options is valid."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| peer |")]
    assert len(chains()) == len(rows) > 15
    for block in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        assert exposure(Settings.from_sources(tomllib.loads(block), {}, {})) == []


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: f"{chain.peer} {chain.value}")
def test_the_client_of_a_chain(chain: Chain) -> None:
    """The options derive the client that the page names."""
    trust = trust_policy(Settings.from_sources(tomllib.loads(chain.options), {}, {}))
    client = trust.derive(chain.peer, [] if chain.value is None else [chain.value])
    assert (str(client) if client else "nobody") == chain.client
