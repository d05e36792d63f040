"""The groups of options: the order of all documentation."""

from __future__ import annotations

from pyryrelay.config.groups import GROUPS
from pyryrelay.config.settings import SharedSettings
from pyryrelay.mounts import Settings


def groups_of(settings: type[SharedSettings]) -> list[str]:
    """Return the groups of a class of settings in the order of its options."""
    return list(dict.fromkeys(option.group for option in settings.options()))


def test_groups_have_distinct_titles() -> None:
    """Each group has a title of its own, which starts with a capital and has no full stop."""
    assert len(set(GROUPS)) == len(GROUPS)
    assert all(group[0].isupper() and not group.endswith(".") for group in GROUPS)


def test_shared_options_use_every_group() -> None:
    """The options that every relay has are listed by these groups, in their order, and leave none empty."""
    assert groups_of(SharedSettings) == list(GROUPS)


def test_groups_of_protocols_follow() -> None:
    """Options of protocols are listed in the shared groups, or in groups of their own after them."""
    assert groups_of(Settings)[: len(GROUPS)] == list(GROUPS)
