"""The options of clusters."""

from __future__ import annotations

import pytest

from pyryrelay.config.options.cluster_options import cluster_problem
from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"cluster": ["localhost:6379"]}, "'localhost:6379' is no URL of a Redis or Valkey server; write redis://"),
        ({"cluster": ["redis://u:GEHEIM@h"]}, "'redis://u:...@h' has a password, which other users of this machine"),
        ({"cluster": ["redis://h", "redis://h"]}, "'redis://h' is there twice; name each server once"),
        ({"cluster-name": ["Eu_1"]}, "'Eu_1' is no name of a cluster; write up to 32 lower-case letters"),
        ({"cluster-name": ["-"]}, "'-' is no name of a cluster"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(flags: dict[str, list[str]], line: str) -> None:
    """With what to write, and without any password."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_sources(None, {}, flags)
    assert str(refused.value).partition(" (from command line): ")[2].startswith(line)
    assert "GEHEIM" not in str(refused.value)


def test_a_cluster_needs_its_secret() -> None:
    """Both are given, or neither."""
    assert cluster_problem(Settings()) is None
    assert cluster_problem(Settings(cluster=("redis://h",), cluster_secret_file="s")) is None
    assert cluster_problem(Settings(cluster=("redis://h",))) is not None
    assert cluster_problem(Settings(cluster_secret_file="s")) is not None
