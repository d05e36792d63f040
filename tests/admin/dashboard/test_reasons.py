"""Every reason for a refusal is explained on the dashboard."""

from __future__ import annotations

from pyryrelay.admin.dashboard.reasons import REASONS
from pyryrelay.config.guard_options import all_reasons
from pyryrelay.mounts import Settings


def test_every_reason_is_explained() -> None:
    """Those of the guard and of the transport have a sentence here, and those of protocols in their panels."""
    assert {str(reason) for reason in REASONS} == {*map(str, all_reasons(()))}
    assert all(text.endswith(".") for text in REASONS.values())
    assert {*map(str, all_reasons(Settings.protocol_words()))} > {str(reason) for reason in REASONS}
