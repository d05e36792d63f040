"""Tables and rules in options: difficulties, refusals in other words, quotas, retention. PURE."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from pyryrelay.config.types import QUOTA, InvalidValueError, OptionType, Texts, or_off
from pyryrelay.guard import GuardError, Quota
from pyryrelay.guard.rate.quota import MAX_BYTES
from pyryrelay.nostr.options.types.kinds import MAX_KIND, RANGE, parse_kinds, write_kinds
from pyryrelay.nostr.policies.refusal import TEMPLATES

K = TypeVar("K")

ALL_KINDS: Final = "all"
SEPARATOR: Final = ";"
"""What separates values of an option in the environment whose texts have blanks."""

_AGE: Final = re.compile(r"([0-9]{1,9})([smhdwy]?)")
_AGE_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")


class WorkQuota(Quota):
    """A quota of work units, of which there are more than of anything else."""

    __slots__ = ()

    MAX = MAX_BYTES


class KindQuota(NamedTuple):
    """A quota of some kinds."""

    kinds: frozenset[int]
    quota: Quota

    def __str__(self) -> str:
        """Return it as the option has it."""
        return f"{_write_kinds_of_rule(self.kinds)}={self.quota}"


class RetentionRule(NamedTuple):
    """Events of ``kinds`` are kept for ``age_s`` after their ``created_at``, and the ``newest`` of each author.

    None is no bound. The first rule that has a kind decides about it.
    """

    kinds: frozenset[int]
    age_s: int | None
    newest: int | None


def _table(
    metavar: str,
    fix: str,
    read_one: Callable[[str, str], tuple[K, Any]],
    write_one: Callable[[K, Any], str],
    separator: str | None = None,
) -> OptionType[Mapping[K, Any]]:
    """Return the type of a table of KEY=VALUE, of which ``read_one`` reads one; the last entry for a key counts."""

    def read(texts: Texts) -> Mapping[K, Any]:
        entries = (text.partition("=") for text in texts)
        return MappingProxyType(dict(read_one(key.strip(), value.strip()) for key, _, value in entries))

    def write(value: Mapping[K, Any]) -> Texts:
        return tuple(write_one(key, entry) for key, entry in value.items())

    return OptionType(metavar, fix, read, write, repeatable=True, table=True, separator=separator)


def _read_difficulty(kind: str, bits: str) -> tuple[int, int]:
    found = RANGE.fullmatch(kind)
    if found is None or found[2] or int(kind) > MAX_KIND or not (bits.isascii() and bits.isdigit() and len(bits) <= 3):
        raise InvalidValueError(f"{kind}={bits}", "is not KIND=N")
    if int(bits) > 256:
        raise InvalidValueError(f"{kind}={bits}", "asks for more than 256 bits")
    return int(kind), int(bits)


DIFFICULTIES: OptionType[Mapping[int, int]] = _table(
    "KIND=N", "write KIND=N with N from 0 to 256", _read_difficulty, lambda kind, bits: f"{kind}={bits}"
)


def _read_text(key: str, text: str) -> tuple[str, str]:
    if key not in TEMPLATES or not text:
        raise InvalidValueError(f"{key}={text}", "does not begin with a text of this relay")
    return key, text


REFUSAL_TEXTS: OptionType[Mapping[str, str]] = _table(
    "'PREFIX TEXT=OTHER TEXT'",
    "write 'PREFIX TEXT=OTHER TEXT' with a text that the reference of refusals lists, capitals included",
    _read_text,
    lambda key, text: f"{key}={text}",
    SEPARATOR,
)


def _kinds_of_rule(text: str) -> tuple[frozenset[int], str]:
    """Return the kinds of KINDS=REST, and the rest. Raises `InvalidValueError`."""
    kinds, _, rest = text.partition("=")
    if kinds.strip() == ALL_KINDS:
        return frozenset(range(MAX_KIND + 1)), rest.strip()
    return parse_kinds((kind.strip() for kind in kinds.split(",")), ""), rest.strip()


def _write_kinds_of_rule(kinds: frozenset[int]) -> str:
    return ALL_KINDS if len(kinds) == MAX_KIND + 1 else ",".join(write_kinds(kinds))


def _read_kind_quotas(texts: Texts) -> tuple[KindQuota, ...]:
    rules = []
    for text in texts:
        kinds, rest = _kinds_of_rule(text)
        try:
            rules.append(KindQuota(kinds, Quota.parse(rest)))
        except GuardError as error:
            raise InvalidValueError.of(rest, error) from None
    return tuple(rules)


KIND_QUOTAS: OptionType[tuple[KindQuota, ...]] = OptionType(
    "KINDS=QUOTA",
    "write KINDS=N/PERIOD [burst B], with kinds and ranges separated by commas",
    _read_kind_quotas,
    lambda value: tuple(map(str, value)),
    repeatable=True,
    separator=SEPARATOR,
)


def _read_retention(texts: Texts) -> tuple[RetentionRule, ...]:
    return tuple(map(_read_retention_rule, texts))


def _read_retention_rule(text: str) -> RetentionRule:
    kinds, rest = _kinds_of_rule(text)
    age, comma, newest = (part.strip() for part in rest.partition(","))
    found = _AGE.fullmatch(age)
    if (found is None and age != "off") or (comma and _COUNT.fullmatch(newest) is None):
        raise InvalidValueError(text, "is not a rule of retention")
    age_s = int(found[1]) * _AGE_S[found[2]] if found else None
    return RetentionRule(kinds, age_s, int(newest) if comma else None)


def _write_retention_rule(rule: RetentionRule) -> str:
    newest = "" if rule.newest is None else f",{rule.newest}"
    return f"{_write_kinds_of_rule(rule.kinds)}={_age_text(rule.age_s)}{newest}"


def _age_text(age_s: int | None) -> str:
    if age_s is None:
        return "off"
    unit = next((unit for unit in "dhm" if age_s % _AGE_S[unit] == 0), "s")
    return f"{age_s // _AGE_S[unit]}{unit}"


RETENTION: OptionType[tuple[RetentionRule, ...]] = OptionType(
    "KINDS=AGE[,N]",
    "write KINDS=AGE or KINDS=AGE,N with kinds and ranges separated by commas, or all, and an age such as 90d, or off",
    _read_retention,
    lambda value: tuple(map(_write_retention_rule, value)),
    repeatable=True,
)


def _read_work_quota(texts: Texts) -> Quota:
    (text,) = texts
    try:
        return WorkQuota.parse(text)
    except GuardError as error:
        raise InvalidValueError.of(text, error) from None


WORK_QUOTA: OptionType[Quota | None] = or_off(
    OptionType(
        QUOTA.metavar.partition("|")[0], "write N/PERIOD [burst B]", _read_work_quota, lambda quota: (str(quota),)
    )
)
