"""The help and the reference page that are generated from the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyryrelay.config.reference import CONFIG_VARIABLE, help_text, reference
from pyryrelay.config.sources import Option
from pyryrelay.mounts import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "options.md"


def test_the_reference_page_is_up_to_date() -> None:
    """docs/reference/options.md is what the settings generate."""
    assert PAGE.read_text(encoding="utf-8") == reference(Settings.options()), (
        "docs/reference/options.md is not current: run make docs"
    )


@pytest.mark.parametrize("option", Settings.options(), ids=lambda option: option.name)
def test_the_reference_explains_every_option(option: Option) -> None:
    """The section of an option has its default, flag, variable, key, meaning and reason."""
    section = reference(Settings.options()).split(f"\n## --{option.name}\n")[1].split("\n## ")[0]
    for part in (option.help, option.why, option.environment, f"`{option.name} = ", f"`--{option.name}"):
        assert part in section


@pytest.mark.parametrize("width", [60, 80, 132])
def test_help_keeps_within_its_width(width: int) -> None:
    """Descriptions of options are wrapped, and examples fit into 80 columns."""
    described, _, examples = help_text(Settings.options(), width).partition("Three ways to run it")
    assert examples
    assert max(map(len, described.splitlines())) <= width
    assert max(map(len, examples.splitlines())) <= 80


def test_help_shows_every_option_with_its_default() -> None:
    """The help lists groups in the order of the settings, each option with its default, without Markdown."""
    text = " ".join(help_text(Settings.options(), 80).split())
    for option in Settings.options():
        assert f" --{option.name}" in text
        assert f"[default: {' '.join(option.type.write(option.default)) or 'none'}]" in text
    groups = [option.group for option in Settings.options()]
    assert [text.index(f" {group} --") for group in groups] == sorted(text.index(f" {g} --") for g in groups)
    assert "`" not in text
    assert CONFIG_VARIABLE in text


def test_examples_of_values_work() -> None:
    """The example of an option works as it is copied: alone, or with the options that its meaning needs."""
    needed = {"trust-x-forwarded-for": ["true"], "trusted-proxy": ["10.0.0.0/8"]}
    for option in Settings.options():
        settings = Settings.from_sources(None, {}, {**needed, option.name: list(option.example)})
        assert isinstance(settings, Settings)


def test_all_quotas_are_in_one_table() -> None:
    """One table has every quota with its default and the reason for it."""
    table = reference(Settings.options()).split("\n## Quotas\n")[1].split("\n## ")[0]
    quotas = [option for option in Settings.options() if option.name.endswith("-quota")]
    assert quotas
    for option in quotas:
        default = " ".join(option.type.write(option.default)) or "none"
        assert f"| [`--{option.name}`](#--{option.name}) | `{default}` | {option.why} |" in table


def test_no_cell_is_broken() -> None:
    """Every row of a table has as many cells as its head, whatever bars its text holds."""
    blocks = [block for block in reference(Settings.options()).split("\n\n") if block.startswith("| ")]
    assert len(blocks) > len(Settings.options())
    for block in blocks:
        assert len({row.replace("\\|", "").count("|") for row in block.splitlines()}) == 1
