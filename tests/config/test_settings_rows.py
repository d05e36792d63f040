"""The effective settings as rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyryrelay.config.settings import SharedSettings, effective_settings
from pyryrelay.config.sources import EffectiveSetting, option, options_of, to_rows
from pyryrelay.config.types import FILES, OPTIONAL_FILE
from pyryrelay.mounts import Settings


@dataclass(frozen=True, kw_only=True)
class Secretive(SharedSettings):
    """Settings with a secret, and with a file whose name is odd."""

    password: str = option("", OPTIONAL_FILE, "Secrets", help="A.", example="x", why="B.", secret=True)
    files: tuple[str, ...] = option((), FILES, "Secrets", help="A.", example="x", why="B.")


def test_every_option_has_a_row() -> None:
    """The rows are in the order of the reference, with the source of each."""
    settings = Settings.from_sources(
        {"grace": 60}, {"PYRYRELAY_DENY": "192.0.2.7 ::1"}, {"pyry": ["true"]}, toml_name="a.toml"
    )
    rows = effective_settings(settings)
    assert [row.name for row in rows] == [f"--{option.name}" for option in Settings.options()]
    assert [row for row in rows if row.source != "default"] == [
        EffectiveSetting("--pyry", "true", "command line"),
        EffectiveSetting("--deny", "192.0.2.7/32 ::1/128", "environment variable PYRYRELAY_DENY"),
        EffectiveSetting("--grace", "60", "a.toml: grace"),
    ]


def test_secrets_are_withheld() -> None:
    """The value of a secret is in no row; other values are printable."""
    settings = Secretive(password="hunter2", files=("a\x1b",))
    rows = {row.name: row.value for row in effective_settings(settings)}
    assert (rows["--password"], rows["--files"]) == ("(withheld)", "a\\x1b")


@dataclass(frozen=True)
class Separated:
    """An option with a separator of its own."""

    rules: tuple[str, ...] = option(
        ("a b", "c"), replace(FILES, separator=";"), "Rules", help="A.", example="x", why="B."
    )


def test_values_are_separated_as_in_the_environment() -> None:
    """Options whose values may have blanks use their own separator."""
    assert to_rows(options_of(Separated), Separated(), {}) == [EffectiveSetting("--rules", "a b; c", "default")]
