"""The types of Nostr's options: how kinds, keys, words, rules and texts are read and written. PURE.

See `pyryrelay.config.types` for what a type is. Sets are written in order, so equal values have equal texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pyryrelay.config.types import QUOTA, InvalidValueError, OptionType, Texts, or_off
from pyryrelay.guard import GuardError, Quota
from pyryrelay.guard.rate.quota import MAX_BYTES
from pyryrelay.nostr.keys import parse_key
from pyryrelay.nostr.policies.refusal import TEMPLATES

K = TypeVar("K")

MAX_KIND: Final = 65_535
ALL_KINDS: Final = "all"
SEPARATOR: Final = ";"
"""What separates values of an option in the environment whose texts have blanks."""

_KINDS_FIX: Final = "write a kind from 0 to 65535, or a range such as 30000-39999"
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_AGE: Final = re.compile(r"([0-9]{1,9})([smhdwy]?)")
_AGE_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")
_PATH: Final = re.compile(r"/[!-\"$->@-~]*")


class WorkQuota(Quota):
    """A quota of work units, of which there are more than of anything else."""

    __slots__ = ()

    MAX = MAX_BYTES


class KindQuota(NamedTuple):
    """A quota of some kinds."""

    kinds: frozenset[int]
    quota: Quota


class RetentionRule(NamedTuple):
    """Events of ``kinds`` are kept for ``age_s`` after their ``created_at``, and the ``newest`` of each author.

    None is no bound. The first rule that has a kind decides about it.
    """

    kinds: frozenset[int]
    age_s: int | None
    newest: int | None


def parse_kinds(texts: Iterable[str], fix: str = _KINDS_FIX) -> frozenset[int]:
    """Return the kinds that numbers and ranges name. Raises `InvalidValueError`."""
    kinds: set[int] = set()
    for text in texts:
        found = _RANGE.fullmatch(text)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= MAX_KIND:
            raise InvalidValueError(text, "is not a kind or a range of kinds", fix)
        kinds.update(range(first, last + 1))
    return frozenset(kinds)


def write_kinds(kinds: Iterable[int]) -> Texts:
    """Return numbers and ranges that name the kinds, in order."""
    ranges: list[list[int]] = []
    for kind in sorted(kinds):
        if ranges and ranges[-1][1] == kind - 1:
            ranges[-1][1] = kind
        else:
            ranges.append([kind, kind])
    return tuple(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


KINDS: OptionType[frozenset[int]] = OptionType(
    "KINDS", _KINDS_FIX, parse_kinds, write_kinds, toml_types=(int,), repeatable=True
)


def _set_of(metavar: str, fix: str, read_one: Callable[[str], str]) -> OptionType[frozenset[str]]:
    """Return the type of a set of texts, of which ``read_one`` reads one and raises `InvalidValueError`."""
    return OptionType(
        metavar, fix, lambda texts: frozenset(map(read_one, texts)), lambda value: tuple(sorted(value)), repeatable=True
    )


_KEY_FIX: Final = "write a public key as npub1... or as 64 lower-case hex digits"


def read_key(text: str) -> str:
    """Return a public key in hex. Raises `InvalidValueError`."""
    try:
        return parse_key(text)
    except ValueError:
        raise InvalidValueError(text, "is not a public key", _KEY_FIX) from None


KEYS: OptionType[frozenset[str]] = _set_of("KEY", _KEY_FIX, read_key)
OPTIONAL_KEY: OptionType[str] = OptionType(
    "KEY", f'{_KEY_FIX}, or "" for none', lambda texts: texts[0] and read_key(texts[0]), lambda value: (value,)
)


def read_event_id(text: str) -> str:
    """Return the id of an event. Raises `InvalidValueError`."""
    if _HEX.fullmatch(text) is None:
        raise InvalidValueError(text, "is not the id of an event")
    return text


EVENT_IDS: OptionType[frozenset[str]] = _set_of(
    "ID", "write the 64 lower-case hex digits of an event's id", read_event_id
)


def read_word(text: str) -> str:
    """Return a word in the form in which words are compared. Raises `InvalidValueError`."""
    word = text.casefold()
    if not word or len(word.split()) != 1 or not any(map(str.isalnum, word)):
        raise InvalidValueError(text, "is not one word")
    return word


WORDS: OptionType[frozenset[str]] = _set_of("WORD", "write one word, without blanks", read_word)

_ADDRESS_FIX: Final = "write KIND:PUBKEY:D, PUBKEY:* or *:D"


def read_address(text: str) -> str:
    """Return an address, or a pattern of addresses, with its key in hex. Raises `InvalidValueError`."""
    first, _, rest = text.partition(":")
    problem = "is not an address"
    if first == "*" and rest:
        return text
    if rest == "*":
        return f"{read_key(first)}:*"
    key, separator, d = rest.partition(":")
    if not (first.isascii() and first.isdigit() and len(first) <= 5 and int(first) <= MAX_KIND and separator):
        raise InvalidValueError(text, problem, _ADDRESS_FIX)
    return f"{int(first)}:{read_key(key)}:{d}"


ADDRESSES: OptionType[frozenset[str]] = _set_of("ADDRESS", _ADDRESS_FIX, read_address)


def choices(words: Sequence[str], nothing: str) -> OptionType[frozenset[str]]:
    """Return the type of a set of a few words. The word ``nothing`` stands alone, for the empty set."""
    fix = f"write {nothing}, or one or more of {', '.join(words)}"

    def read(texts: Texts) -> frozenset[str]:
        for text in texts:
            if text not in words and texts != (nothing,):
                raise InvalidValueError(text, "does not fit")
        return frozenset(texts) - {nothing}

    def write(value: frozenset[str]) -> Texts:
        return tuple(word for word in words if word in value) or (nothing,)

    return OptionType("|".join([nothing, *words]), fix, read, write, repeatable=True)


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
    found = _RANGE.fullmatch(kind)
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
    lambda value: tuple(f"{_write_kinds_of_rule(rule.kinds)}={rule.quota}" for rule in value),
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


def _text(metavar: str, fix: str, is_valid: Callable[[str], bool], problem: str) -> OptionType[str]:
    """Return the type of a text."""

    def read(texts: Texts) -> str:
        (text,) = texts
        if not is_valid(text):
            raise InvalidValueError(text, problem)
        return text

    return OptionType(metavar, fix, read, lambda value: (value,))


TEXT: OptionType[str] = _text(
    "TEXT", "write a text of up to 10000 characters", lambda text: len(text) <= 10_000, "is too long"
)
PATH: OptionType[str] = _text(
    "PATH", "write a path that starts with a slash, without a query", lambda t: bool(_PATH.fullmatch(t)), "is no path"
)


def is_relay_url(text: str) -> bool:
    """Tell whether a text is a URL at which a relay may be: ``ws`` or ``wss``, a host, no user, query or fragment."""
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_right and not (parts.query or parts.fragment or "@" in parts.netloc) and text.isascii()


RELAY_URL: OptionType[str] = _text(
    "URL",
    'write a URL such as wss://relay.example.com/, or "" for none',
    lambda text: not text or is_relay_url(text),
    "is not the URL of a relay",
)


def is_database_url(text: str) -> bool:
    """Tell whether a text names a database that this relay can use."""
    return text.startswith("sqlite:") and len(text) > len("sqlite:") and "\0" not in text


DATABASE: OptionType[str] = _text(
    "URL", "write sqlite:PATH, or sqlite::memory: for trials", is_database_url, "is not a database of this relay"
)


def _is_fees(text: str) -> bool:
    try:
        return not text or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


FEES: OptionType[str] = _text(
    "JSON", 'write a JSON object as NIP-11 has it, or "" for none', _is_fees, "is not a JSON object"
)
