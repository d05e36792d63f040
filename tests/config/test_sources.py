"""Options from TOML, environment and command line: precedence, types, names and secrets."""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.config.sources import Collected, SettingsError, collect, did_you_mean, option, options_of, to_toml
from pyryrelay.config.types import NETWORKS, QUOTA, SWITCH, choice, or_off, table_of, whole_number
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.rate.quota import Quota


@dataclass(frozen=True, slots=True)
class Toy:
    """One option of each shape, and one field that is no option."""

    size: int = option(3, whole_number(1, 9), "One", help="H.", example="5", why="W.")
    quick: bool = option(False, SWITCH, "One", help="H.", example="true", why="W.")
    peers_c: CidrSet = option(
        CidrSet(), NETWORKS, "Two", help="H.", example=("10.0.0.0/8", "::1"), why="W.", name="peers"
    )
    word: str = option("a", choice(("a", 'b"\\')), "Two", help="H.", example="a", why="W.")
    pin: int = option(0, whole_number(0), "Two", help="H.", example="1234", why="W.", secret=True)
    pace: Quota | None = option(
        Quota.parse("1/minute"), QUOTA, "Two", help="H.", example="2/hour", why="W.", secret=True
    )
    cap: int | None = option(4, or_off(whole_number(1)), "Two", help="H.", example="off", why="W.")
    answers: Mapping[str, str] = option(
        MappingProxyType({}), table_of(("x", "y"), ("yes",), "WORD=yes"), "Two", help="H.", example="x=yes", why="W."
    )
    plain: int = 7


OPTIONS = options_of(Toy)


def _collect(
    toml: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
    argv: dict[str, list[str]] | None = None,
) -> Collected:
    return collect(OPTIONS, toml or {}, env or {}, argv or {}, "relay.toml")


def _refused(**sources: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        _collect(**sources)
    assert "\n" not in str(caught.value)
    return caught.value


def test_options_are_the_declared_fields_in_order() -> None:
    """Options are the fields made with `option`, named like them with hyphens unless a name is given."""
    assert [o.name for o in OPTIONS] == ["size", "quick", "peers", "word", "pin", "pace", "cap", "answers"]
    assert [o.field for o in OPTIONS][2] == "peers_c"
    assert OPTIONS[0].environment == "PYRYRELAY_SIZE"


def test_defaults_are_absent() -> None:
    """Options that no source gives are absent."""
    assert _collect() == Collected({}, {})


@given(file=st.none() | st.integers(1, 9), variable=st.none() | st.integers(1, 9), flag=st.none() | st.integers(1, 9))
def test_precedence(file: int | None, variable: int | None, flag: int | None) -> None:
    """The command line wins over the environment, and the environment over the file."""
    collected = _collect(
        {} if file is None else {"size": file},
        {} if variable is None else {"PYRYRELAY_SIZE": str(variable)},
        {} if flag is None else {"size": [str(flag)]},
    )
    given_values = [value for value in (flag, variable, file) if value is not None]
    assert collected.values == ({"size": given_values[0]} if given_values else {})


def test_a_repeatable_option_is_replaced_whole() -> None:
    """A higher source replaces all values of a lower one; one empty value means none."""
    toml: dict[str, object] = {"peers": ["10.0.0.0/8", "10.1.0.0/16"]}
    assert _collect(toml).values["peers_c"] == CidrSet(["10.0.0.0/8", "10.1.0.0/16"])
    assert _collect(toml, {"PYRYRELAY_PEERS": "::1 ::2"}).values["peers_c"] == CidrSet(["::1", "::2"])
    assert _collect(toml, {}, {"peers": ["::3", "::4"]}).values["peers_c"] == CidrSet(["::3", "::4"])
    assert _collect(toml, {}, {"peers": [""]}).values["peers_c"] == CidrSet()
    assert _collect(toml, {"PYRYRELAY_PEERS": ""}).values["peers_c"] == CidrSet()
    assert _collect({"peers": []}).values["peers_c"] == CidrSet()
    assert _collect({"peers": "::5"}).values["peers_c"] == CidrSet(["::5"])


def test_of_a_single_option_the_last_use_counts() -> None:
    """The last use of an option with one value counts, and no use is no value."""
    assert _collect(argv={"size": ["1", "2"]}).values == {"size": 2}
    assert _collect(argv={"size": []}).values == {}


@pytest.mark.parametrize(("value", "expected"), [(4, 4), ("4", 4)])
def test_toml_takes_native_values_and_strings(value: object, expected: int) -> None:
    """In the file a number may be written as a number or as a string."""
    assert _collect({"size": value}).values == {"size": expected}


@pytest.mark.parametrize(("value", "on"), [(True, True), (False, False), ("yes", True)])
def test_toml_switches(value: object, on: bool) -> None:
    """In the file a switch is a boolean or one of the words for it."""
    assert _collect({"quick": value}).values == {"quick": on}


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("size", True, "'true' is a boolean"),
        ("size", 1.5, "'1.5' is a float"),
        ("size", [1], "'[1]' is an array"),
        ("quick", 1, "'1' is an integer"),
        ("word", {"x": 1}, "is a table"),
        ("peers", [1], "'1' is an integer"),
        ("peers", [["::1"]], "is an array"),
        ("peers", datetime.date(2030, 1, 1), "is a date or time"),
    ],
)
def test_toml_of_the_wrong_type(key: str, value: object, shown: str) -> None:
    """A value of the wrong TOML type is refused with that type and the fix."""
    error = _refused(toml={key: value})
    assert (error.option, error.source) == (key, f"relay.toml: {key}")
    assert shown in str(error)
    assert "; write " in str(error)


def test_toml_keys_may_have_underscores() -> None:
    """Hyphens and underscores name the same option, which may be given only once."""
    by_field = options_of(_TwoWords)
    assert collect(by_field, {"two_words": 4}, {}, {}, "f").values == {"two_words": 4}
    with pytest.raises(SettingsError, match="written with hyphens and with underscores; keep one"):
        collect(by_field, {"two-words": 4, "two_words": 4}, {}, {}, "f")


@dataclass(frozen=True)
class _TwoWords:
    two_words: int = option(3, whole_number(1, 9), "G", help="H.", example="5", why="W.")


@pytest.mark.parametrize(
    ("key", "fix"),
    [("sise", "no such option; did you mean size?"), ("unheard-of", "no such option; see twistd pyryrelay --help")],
)
def test_unknown_toml_keys(key: str, fix: str) -> None:
    """An unknown key is refused with the closest option."""
    error = _refused(toml={key: 1})
    assert error.option == key
    assert fix in str(error)


@pytest.mark.parametrize("key", ["config", "check"])
def test_program_options_are_not_settings(key: str) -> None:
    """Options of the command line alone are refused in the file."""
    assert "is for the command line only; remove it from the file" in str(_refused(toml={key: "x"}))


@pytest.mark.parametrize(
    "variable",
    [
        "PYRYRELAY_SERVICE_HOST",
        "PYRYRELAY_SERVICE_PORT",
        "PYRYRELAY_SERVICE_PORT_WS",
        "PYRYRELAY_PORT",
        "PYRYRELAY_PORT_8080_TCP",
        "PYRYRELAY_PORT_8080_TCP_ADDR",
        "PYRYRELAY_SIZE_SERVICE_HOST",
        "PYRYRELAY_SIZE_PORT",
        "PYRYRELAY_CONFIG",
        "PYRYRELAY_ADMIN_URL",
        "PYRYRELAY_ADMIN_TOKEN_FILE",
        "SIZE",
        "PATH",
    ],
)
def test_variables_of_other_software_are_ignored(variable: str) -> None:
    """Variables that a container platform injects under similar names are ignored."""
    assert _collect(env={variable: "tcp://10.0.0.1:8080"}) == Collected({}, {})


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("PYRYRELAY_SIZES", "PYRYRELAY_SIZE"),
        ("PYRYRELAY_size", "PYRYRELAY_SIZE"),
        ("PYRYRELAY_PEER", "PYRYRELAY_PEERS"),
        ("PYRYRELAY_CONFIGS", "PYRYRELAY_CONFIG"),
        ("PYRYRELAY_ADMIN_URLS", "PYRYRELAY_ADMIN_URL"),
    ],
)
def test_a_near_miss_in_the_environment_is_refused(variable: str, meant: str) -> None:
    """A variable that is nearly an option's is refused as a probable typing error."""
    error = _refused(env={variable: "1"})
    assert error.source == f"environment variable {variable}"
    assert f"environment variable {variable}: no such option; did you mean {meant}?" in str(error)


def test_a_name_that_does_not_exist_is_refused() -> None:
    """A variable with our prefix that is no option's is refused even if it is similar to none."""
    error = _refused(env={"PYRYRELAY_UNHEARD_OF": "1"})
    assert str(error) == "environment variable PYRYRELAY_UNHEARD_OF: no such option; unset it"


def test_an_unknown_name_from_the_command_line() -> None:
    """An unknown option is refused with the closest one, written as a flag."""
    assert "--sise (from command line): no such option; did you mean --size?" in str(_refused(argv={"sise": ["1"]}))


@pytest.mark.parametrize(
    ("sources", "source"),
    [
        ({"toml": {"size": 99}}, "relay.toml: size"),
        ({"env": {"PYRYRELAY_SIZE": "99"}}, "environment variable PYRYRELAY_SIZE"),
        ({"argv": {"size": ["99"]}}, "command line"),
    ],
)
def test_an_error_names_option_source_value_and_fix(sources: dict[str, Any], source: str) -> None:
    """An error is one line with option, source, value and fix."""
    error = _refused(**sources)
    assert (error.option, error.source) == ("size", source)
    assert str(error) == (
        f"--size (from {source}): '99' is more than 9; write a whole number from 1 to 9, for example \"5\""
    )


def test_a_replaced_value_is_checked_too() -> None:
    """A value in the file is checked even if a flag replaces it."""
    assert _refused(toml={"size": 0}, argv={"size": ["5"]}).source == "relay.toml: size"


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2J", "\udcff", "a\x00"])
def test_control_characters_are_refused_and_escaped(text: str) -> None:
    """Control characters are refused in values, and escaped in errors."""
    error = _refused(argv={"word": [text]})
    assert "holds a control character" in str(error)
    assert str(error).isprintable()


def test_long_values_are_cut() -> None:
    """Errors cut long values to a readable length."""
    assert len(str(_refused(argv={"word": ["x" * 100_000]}))) < 400


@pytest.mark.parametrize(
    "sources",
    [
        {"argv": {"pin": ["hunter2"]}},
        {"argv": {"pin": ["hunter2\n"]}},
        {"env": {"PYRYRELAY_PACE": "hunter2"}},
        {"toml": {"pin": ["hunter2"]}},
        {"toml": {"pin": 2.5}},
    ],
)
def test_secrets_are_withheld_from_errors(sources: dict[str, Any]) -> None:
    """An error about a secret says how to write it, without the value."""
    text = str(_refused(**sources))
    assert "the value (withheld)" in text
    assert "; write " in text
    assert "hunter2" not in text
    assert "2.5" not in text


def test_secrets_are_withheld_from_representation_and_toml() -> None:
    """Neither `repr` nor the effective settings show a secret."""
    toy = Toy(pin=987654)
    assert "987654" not in repr(toy)
    assert "# pin: withheld" in to_toml(OPTIONS, toy, {})
    assert "987654" not in to_toml(OPTIONS, toy, {"pin": "command line"})


def test_toml_text_reads_back() -> None:
    """Written TOML gives the same values again, and has the source of each value that is not the default."""
    collected = _collect({"peers": ["10.0.0.0/8"]}, {"PYRYRELAY_QUICK": "on"}, {"word": ['b"\\']})
    toy = Toy(**collected.values)
    text = to_toml(OPTIONS, toy, {**collected.origins, "peers": "evil\nname"})
    assert Toy(**_collect(tomllib.loads(text)).values) == toy
    assert "size = 3\n" in text
    assert "quick = true  # from environment variable PYRYRELAY_QUICK\n" in text
    assert r'peers = ["10.0.0.0/8"]  # from evil\nname' in text
    assert "\n# One\nsize" in text
    assert "\n\n# Two\npeers" in text


def test_values_set_by_code_are_marked() -> None:
    """A value without a source is marked as set by code."""
    assert "size = 4  # from code" in to_toml(OPTIONS, Toy(size=4), {})


def test_suggestions_and_errors() -> None:
    """A suggestion carries the prefix of the place that it is for; an error about no option is its problem and fix."""
    assert did_you_mean("lissten", ["listen"], "--") == "did you mean --listen?"
    assert did_you_mean("zzz", ["listen"]) == "see twistd pyryrelay --help for all options"
    assert str(SettingsError("", "command line", "p", "f")) == "p; f"


def test_off_is_a_string_in_the_file() -> None:
    """A number is written as a number and `off` as a string, and both can be read again."""
    (cap,) = [option for option in OPTIONS if option.name == "cap"]
    assert [cap.toml(value) for value in (7, None)] == ["7", '"off"']
    assert [_collect({"cap": value}).values["cap"] for value in (7, "off")] == [7, None]


def test_a_table_in_the_file() -> None:
    """Entries of a table are strings, read like KEY=VALUE; other kinds accept no table."""
    assert _collect({"answers": {"x": "yes", "y": "yes"}}).values["answers"] == {"x": "yes", "y": "yes"}
    assert _collect({"answers": {}}).values["answers"] == {}
    assert "'z=yes' is not WORD=yes" in str(_refused(toml={"answers": {"z": "yes"}}))
    assert "'1' is an integer, which does not fit" in str(_refused(toml={"answers": {"x": 1}}))
    assert "is a table, which does not fit" in str(_refused(toml={"peers": {"x": "yes"}}))
