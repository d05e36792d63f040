"""The relay's options as TOML, as variables and as a command line: none loses anything."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import dataclass

import pytest
from tests.support.option_samples import SAMPLES

from pyryrelay.cli.relay_options import as_command_line, as_environment, as_toml, parse_command_line
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import SettingsError, collect, option
from pyryrelay.config.types import FILES, OPTIONAL_FILE
from pyryrelay.mounts import Settings

OPTIONS = Settings.options()


def with_sample(name: str) -> Settings:
    """Return settings in which one option was given its sample, whatever else that needs to make sense."""
    field, value = SAMPLES[name][2:]
    settings = Settings(origins={name: "a test"})
    object.__setattr__(settings, field, value)
    return settings


@pytest.mark.parametrize("name", SAMPLES)
def test_every_option_survives_all_forms(name: str) -> None:
    """Each option is written in each form so that the relay reads the same value again."""
    settings, about = with_sample(name), Settings.by_name()[name]
    wanted = {about.field: getattr(settings, about.field)}
    toml = tomllib.loads("\n".join(as_toml(settings)))
    assert collect(OPTIONS, toml, {}, {}, "").values == wanted
    variables = dict(line.split("=", 1) for line in as_environment(settings))
    env = {variable: "".join(shlex.split(text)) for variable, text in variables.items()}
    assert collect(OPTIONS, {}, env, {}, "").values == wanted
    words = parse_command_line(OPTIONS, as_command_line(settings))
    assert collect(OPTIONS, {}, {}, words.values, "").values == wanted
    assert (words.left_out, words.config_files) == ([], [])


def test_defaults_are_not_written() -> None:
    """What no source has given is left out."""
    assert list(as_toml(Settings())) == list(as_environment(Settings())) == as_command_line(Settings()) == []


def test_files_have_the_groups_of_the_reference() -> None:
    """A file names the group of its settings, and separates groups."""
    settings = Settings.from_sources({"grace": 60, "deny": "192.0.2.7"}, {}, {})
    lines = list(as_toml(settings))
    assert [line for line in lines if not line.startswith("#")] == ['deny = ["192.0.2.7/32"]', "", "grace = 60"]
    assert len([line for line in lines if line.startswith("# ")]) == 2


def test_none_is_written_where_a_source_has_said_so() -> None:
    """An empty list replaces a lower source, so it is written."""
    settings = Settings.from_sources({"deny": []}, {}, {})
    assert as_command_line(settings) == ["--deny", ""]
    assert list(as_environment(settings)) == ["PYRYRELAY_DENY=''"]


def test_a_switch_that_is_automatic_has_no_form_on_the_command_line() -> None:
    """Neither form of the switch is the same as ``auto``."""
    settings = Settings.from_sources({"kernel-drop": "auto"}, {}, {})
    assert as_command_line(settings) == []
    assert list(as_environment(settings)) == ["PYRYRELAY_KERNEL_DROP=auto"]


def test_what_the_environment_cannot_say() -> None:
    """A value with the separator of the environment in it is an error that names the option."""
    settings = Settings.from_sources({"deny-file": ["/a list"]}, {}, {})
    with pytest.raises(SettingsError, match=r"^--deny-file .* write it into a configuration file$"):
        list(as_environment(settings))


@dataclass(frozen=True, kw_only=True)
class Secretive(SharedSettings):
    """Settings with a secret."""

    password: str = option("", OPTIONAL_FILE, "Secrets", help="A.", example="x", why="B.", secret=True)
    files: tuple[str, ...] = option((), FILES, "Secrets", help="A.", example="x", why="B.")


def test_secrets_are_withheld() -> None:
    """The value of a secret is in no form."""
    settings = Secretive.from_sources({"password": "hunter2", "files": ["a"]}, {}, {})
    assert list(as_toml(settings)) == ["# Secrets", "# password: withheld", 'files = ["a"]']
    assert list(as_environment(settings)) == ["# PYRYRELAY_PASSWORD: withheld", "PYRYRELAY_FILES=a"]
    assert as_command_line(settings) == ["--files", "a"]


@pytest.mark.parametrize(
    ("line", "left_out"),
    [
        ("--grace 60", ""),
        ("twistd -n pyryrelay --grace 60", "twistd -n"),
        ("/usr/bin/twistd -l /var/log/pyryrelay --pidfile= pyryrelay --grace=60 --check", None),
        ("pyryrelay run --grac 60 --whoami 192.0.2.7", "run --whoami"),
        ("/opt/bin/pyryrelay run --grace 60", "run"),
        ("python -m pyryrelay --grace 60 --help", "python -m --help"),
    ],
)
def test_what_comes_before_the_options(line: str, left_out: str | None) -> None:
    """Commands, options of twistd and what is no setting are set aside."""
    parsed = parse_command_line(OPTIONS, line.split())
    assert parsed.values == {"grace": ["60"]}
    if left_out is not None:
        assert parsed.left_out == left_out.split()


def test_the_last_of_several_counts_as_at_the_start() -> None:
    """All uses of an option are kept in order; a configuration file is named apart."""
    parsed = parse_command_line(
        OPTIONS, ["--pyry", "--no-pyry", "--config", "a.toml", "--deny", "192.0.2.7", "--deny", "::1"]
    )
    assert parsed.values == {"pyry": ["true", "false"], "deny": ["192.0.2.7", "::1"]}
    assert parsed.config_files == ["a.toml"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--grasp 60", "option --grasp not recognized; did you mean --grace?"),
        ("--grace", "option --grace requires argument; did you mean --grace?"),
        ("--grace 60 90", "unexpected argument '90'; options begin with --, and a switch takes no value"),
    ],
)
def test_what_twistd_would_refuse(line: str, problem: str) -> None:
    """A command line that the relay would refuse is an error of one line."""
    with pytest.raises(SettingsError) as raised:
        parse_command_line(OPTIONS, line.split())
    assert str(raised.value) == problem
