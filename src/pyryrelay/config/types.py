"""The types of options: how their values are read from text, written back and explained. PURE.

Every source (command line, environment, TOML file) is reduced to a tuple of texts before a type sees it, so a value
means the same wherever it is written.

Invariants: `t.read(t.write(value)) == value` for every type `t`. A text that `read` refuses raises `InvalidValueError`,
which names that text and says what is wrong with it. Types have no units; the name of an option's field has its unit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pyryrelay.guard.address.clientip import is_header_name
from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.jail import MAX_REFUSALS
from pyryrelay.guard.rate.quota import ByteQuota, Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

Texts = tuple[str, ...]
"""The texts that one source gives for one option."""

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class InvalidValueError(ValueError):
    """A text that is not valid for its type.

    `problem` is a phrase that follows the value ("is not a quota"). `fix` says what to write instead; if it is "", the
    `fix` of the type applies.
    """

    def __init__(self, text: str, problem: str, fix: str = "") -> None:
        super().__init__(f"{text!r} {problem}")
        self.text = text
        self.problem = problem
        self.fix = fix

    @classmethod
    def of(cls, text: str, error: GuardError) -> InvalidValueError:
        """Return the error for an error of the guard about `text`. Its message has the form "'text' problem: fix"."""
        problem, _, fix = str(error).removeprefix(f"{text!r} ").rpartition(": ")
        return cls(text, problem, fix)


@dataclass(frozen=True, slots=True)
class OptionType(Generic[T]):
    """How values of one type are read and written.

    `read` takes the texts of one source (exactly one text unless `repeatable`) and raises `InvalidValueError`; `write`
    is its inverse. `toml_types` are the TOML types that are accepted in addition to strings; values of these types are
    written without quotes. A `table` may also be given as a TOML table, whose entries stand for KEY=VALUE. `separator`
    stands between the values of a repeatable option in the environment; None is blanks. With `names_secret`, the value
    is the path of a file that holds a secret. Errors quote a text that does not fit unless `quotes` is False: it may be
    the secret itself, instead of its name.
    """

    metavar: str
    fix: str
    read: Callable[[Texts], T]
    write: Callable[[T], Texts]
    toml_types: tuple[type, ...] = ()
    repeatable: bool = False
    flag: bool = False
    endpoint: bool = False
    table: bool = False
    separator: str | None = None
    names_secret: bool = False
    quotes: bool = True


def _integer(low: int, high: int | None) -> Callable[[Texts], int]:
    def read(texts: Texts) -> int:
        (text,) = texts
        try:
            value = int(text) if text.isascii() else None
        except ValueError:
            value = None
        if value is None:
            raise InvalidValueError(text, "is not a whole number")
        if value < low:
            raise InvalidValueError(text, f"is less than {low}")
        if high is not None and value > high:
            raise InvalidValueError(text, f"is more than {high}")
        return value

    return read


def whole_number(low: int, high: int | None = None) -> OptionType[int]:
    """Return the type of whole numbers from `low` to `high`, both included; None is no upper bound."""
    bounds = f"from {low} to {high}" if high is not None else f"of {low} or more"
    return OptionType("N", f"write a whole number {bounds}", _integer(low, high), lambda value: (str(value),), (int,))


def seconds(low: float, high: float) -> OptionType[float]:
    """Return the type of finite numbers of seconds from `low` to `high`, both included."""

    def read(texts: Texts) -> float:
        (text,) = texts
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InvalidValueError(text, "is not a number of seconds")
        if not low <= value <= high:
            raise InvalidValueError(text, f"is not between {low} and {high}")
        return value

    def write(value: float) -> Texts:
        return (str(int(value)) if value.is_integer() else repr(value),)

    return OptionType("SECONDS", f"write a number of seconds from {low} to {high}", read, write, (int, float))


def choice(words: Sequence[T]) -> OptionType[T]:
    """Return the type of a choice from a few words."""
    by_text = {str(word): word for word in words}

    def read(texts: Texts) -> T:
        (text,) = texts
        if text not in by_text:
            raise InvalidValueError(text, "is not one of the choices")
        return by_text[text]

    return OptionType("|".join(by_text), f"write one of {', '.join(by_text)}", read, lambda value: (str(value),))


def _read_switch(texts: Texts) -> bool:
    (text,) = texts
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidValueError(text, "is neither true nor false")


SWITCH: OptionType[bool] = OptionType(
    "true|false",
    "write true or false",
    _read_switch,
    lambda value: ("true" if value else "false",),
    (bool,),
    flag=True,
)


def or_off(option_type: OptionType[T]) -> OptionType[T | None]:
    """Return a type that also accepts the word ``off`` for None."""
    return _or_word(option_type, "off")


def or_auto(option_type: OptionType[T]) -> OptionType[T | None]:
    """Return a type that also accepts the word ``auto`` for None."""
    return _or_word(option_type, "auto")


def _or_word(option_type: OptionType[T], word: str) -> OptionType[T | None]:
    def read(texts: Texts) -> T | None:
        if [text.strip().lower() for text in texts] == [word]:
            return None
        try:
            return option_type.read(texts)
        except InvalidValueError as invalid:
            fix = f"{invalid.fix}, or {word}" if invalid.fix.startswith("write ") else invalid.fix
            raise InvalidValueError(invalid.text, invalid.problem, fix) from None

    def write(value: T | None) -> Texts:
        return (word,) if value is None else option_type.write(value)

    return OptionType(
        f"{option_type.metavar}|{word}",
        f"{option_type.fix}, or {word}",
        read,
        write,
        option_type.toml_types,
        flag=option_type.flag,
    )


CAP: Final[OptionType[int | None]] = or_off(whole_number(1))
"""The largest number of something."""


def _quota(quota: type[Quota], metavar: str, fix: str) -> OptionType[Any]:
    def read(texts: Texts) -> Quota:
        (text,) = texts
        try:
            return quota.parse(text)
        except GuardError as error:
            raise InvalidValueError.of(text, error) from None

    return OptionType(metavar, fix, read, lambda value: (str(value),))


_ANY_QUOTA: Final = _quota(Quota, "QUOTA", "write N/PERIOD [burst B]")

QUOTA: OptionType[Quota | None] = or_off(_ANY_QUOTA)
BYTE_QUOTA: OptionType[ByteQuota | None] = or_off(
    _quota(ByteQuota, "QUOTA", "write N/PERIOD [burst B] with N and B in bytes, KiB, MiB or GiB")
)


def _read_strikes(texts: Texts) -> Quota:
    (text,) = texts
    try:
        quota = _ANY_QUOTA.read(texts)
    except InvalidValueError as invalid:
        raise InvalidValueError(text, invalid.problem) from None
    if "burst" in text:
        raise InvalidValueError(text, "has a burst, which means nothing here")
    if not 2 <= quota.count <= MAX_REFUSALS:
        raise InvalidValueError(text, f"is not from 2 to {MAX_REFUSALS} times")
    return Quota(quota.count, quota.period_s, quota.count)


STRIKES: OptionType[Quota | None] = or_off(
    OptionType(
        "N/PERIOD",
        f"write N/PERIOD with N from 2 to {MAX_REFUSALS}",
        _read_strikes,
        lambda value: (str(value).partition(" burst ")[0],),
    )
)
"""A number of times within a period, as a `Quota` whose burst is its count."""


def _read_files(texts: Texts) -> Texts:
    for text in texts:
        if not text or "\0" in text:
            raise InvalidValueError(text, "is no path")
    return texts


FILES: OptionType[Texts] = OptionType(
    "FILE", "write the path of a file", _read_files, lambda value: value, repeatable=True
)
OPTIONAL_FILE: OptionType[str] = OptionType(
    "FILE",
    'write the path of a file, or "" for none',
    lambda texts: texts[0] and _read_files(texts)[0],
    lambda value: (value,),
)


SECRET_FILE: OptionType[str] = replace(OPTIONAL_FILE, names_secret=True)
"""The path of a file that holds a secret."""


def _read_names(texts: Texts) -> Texts:
    for text in texts:
        if not _NAME.fullmatch(text):
            raise InvalidValueError(text, "is not a name")
    return texts


NAMES: OptionType[Texts] = OptionType(
    "NAME", "write a name of lower-case letters and hyphens", _read_names, lambda value: value, repeatable=True
)
"""Names such as those of checks."""


def table_of(words: Sequence[str], answers: Sequence[str], metavar: str) -> OptionType[Mapping[str, str]]:
    """Return the type of a table of WORD=ANSWER, with one entry for each use. The last entry for a word counts."""

    def read(texts: Texts) -> Mapping[str, str]:
        table = {}
        for text in texts:
            word, _, answer = text.partition("=")
            if word not in words or answer not in answers:
                raise InvalidValueError(text, f"is not {metavar}")
            table[word] = answer
        return MappingProxyType(table)

    def write(value: Mapping[str, str]) -> Texts:
        return tuple(f"{word}={answer}" for word, answer in value.items())

    fix = f"write {metavar} with one of {', '.join(words)}"
    return OptionType(metavar, fix, read, write, repeatable=True, table=True)


def _read_networks(texts: Texts) -> CidrSet:
    for text in texts:
        try:
            CidrSet.parse([text])
        except GuardError as error:
            raise InvalidValueError.of(text, error) from None
    return CidrSet.parse(texts)


def _write_networks(value: CidrSet) -> Texts:
    return tuple(str(network) for network in value)


_CIDR_FIX: Final = "write an address, or a network as ADDRESS/BITS"

NETWORKS: OptionType[CidrSet] = OptionType("CIDR", _CIDR_FIX, _read_networks, _write_networks, repeatable=True)


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Peers that may set forwarding headers: those in `networks`, and with `unix` all on UNIX-domain sockets."""

    networks: CidrSet
    unix: bool = False

    def __bool__(self) -> bool:
        return self.unix or len(self.networks) > 0


def _read_proxies(texts: Texts) -> TrustedProxies:
    networks = _read_networks(tuple(text for text in texts if text != "unix"))
    return TrustedProxies(networks, "unix" in texts)


def _write_proxies(value: TrustedProxies) -> Texts:
    return (*_write_networks(value.networks), *(("unix",) if value.unix else ()))


PROXIES: OptionType[TrustedProxies] = OptionType(
    "CIDR|unix", f"{_CIDR_FIX}, or the word unix", _read_proxies, _write_proxies, repeatable=True
)


def _read_nat64(texts: Texts) -> tuple[Nat64Prefix, ...]:
    prefixes = []
    for text in texts:
        try:
            prefixes.append(Nat64Prefix.parse(text))
        except GuardError as error:
            raise InvalidValueError.of(text, error) from None
    return tuple(prefixes)


NAT64_PREFIXES: OptionType[tuple[Nat64Prefix, ...]] = OptionType(
    "CIDR",
    "write an IPv6 network as ADDRESS/BITS",
    _read_nat64,
    lambda value: tuple(str(prefix) for prefix in value),
    repeatable=True,
)


def _read_header_name(texts: Texts) -> str:
    (text,) = texts
    if not is_header_name(text.lower()):
        raise InvalidValueError(text, "is no name of a header")
    return text.lower()


HEADER_NAME: OptionType[str] = OptionType(
    "HEADER", "write the name of a header, such as x-forwarded-for", _read_header_name, lambda value: (value,)
)
"""The name of a header, in lower case."""
