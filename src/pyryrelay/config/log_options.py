"""The options of the log: its format, and its file. PURE.

They are a base of `pyryrelay.config.settings.SharedSettings`; see there for what `option(...)` declares.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pyryrelay.config.groups import LOGGING
from pyryrelay.config.sources import option
from pyryrelay.config.types import choice, or_off, whole_number

LogFormat = Literal["auto", "text", "json"]


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How the log is written. Sizes are bytes."""

    log_format: LogFormat = option(
        "auto",
        choice(get_args(LogFormat)),
        LOGGING,
        restart=True,
        help="How the log is written: `text` is Twisted's format, `json` has one object on each line. With `auto`, a "
        "relay whose standard output is the journal of systemd gives it the fields of each line, and otherwise writes "
        "text. `--syslog` and `--logger` of `twistd` are not affected.",
        example="json",
        why="People read text, and the journal can be searched by its fields.",
    )
    log_max_bytes: int | None = option(
        1_000_000,
        or_off(whole_number(10_000)),
        LOGGING,
        restart=True,
        help="How large the file of `--logfile` may become, in bytes, before a new one begins; `off` leaves that to "
        "SIGUSR1 and to programs such as logrotate.",
        example="50000000",
        why="It is the size at which `twistd` begins a new file.",
    )
    log_keep: int | None = option(
        20,
        or_off(whole_number(1)),
        LOGGING,
        restart=True,
        help="How many old log files are kept: `relay.log.1` is the latest. When a new file begins, older ones are "
        "removed; `off` keeps all.",
        example="100",
        why="An old log should not fill the disk, and 20 MB of it show what happened in the last days or weeks.",
    )
