"""The kinds of values an option can have: how each is read from text, written back and explained. PURE.

Every source (command line, environment, TOML file) is reduced to a tuple of texts before a kind sees it, so a
value means the same wherever it was written. Invariant: `kind.read(kind.write(value)) == value`, and a text
that `read` refuses raises `MismatchError`, which names that one text and what is wrong with it.
Units: a kind knows none; the field that uses it says them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
"""What one source says about one option."""

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class MismatchError(ValueError):
    """A text that does not fit its kind.

    `problem` is a phrase that follows the value ("is not a quota"); `fix` says what to write instead, or is
    "" where the kind's own `fix` says it best.
    """

    def __init__(self, text: str, problem: str, fix: str = "") -> None:
        super().__init__(f"{text!r} {problem}")
        self.text = text
        self.problem = problem
        self.fix = fix

    @classmethod
    def of(cls, text: str, error: GuardError) -> MismatchError:
        """What the guard says of `text`, whose messages read "'text' problem: fix"."""
        problem, _, fix = str(error).removeprefix(f"{text!r} ").rpartition(": ")
        return cls(text, problem, fix)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How one sort of value is read and written.

    `read` takes the texts of one source (exactly one text unless `repeatable`) and raises `MismatchError`;
    `write` is its inverse. `native` holds the TOML types accepted beside strings; a value of such a type is
    written without quotes. A `table` may be a TOML table too, whose entries stand for KEY=VALUE.
    """

    metavar: str
    fix: str
    read: Callable[[Texts], T]
    write: Callable[[T], Texts]
    native: tuple[type, ...] = ()
    repeatable: bool = False
    flag: bool = False
    endpoint: bool = False
    table: bool = False


def _integer(low: int, high: int | None) -> Callable[[Texts], int]:
    def read(texts: Texts) -> int:
        (text,) = texts
        try:
            value = int(text) if text.isascii() else None
        except ValueError:
            value = None
        if value is None:
            raise MismatchError(text, "is not a whole number")
        if value < low:
            raise MismatchError(text, f"is less than {low}")
        if high is not None and value > high:
            raise MismatchError(text, f"is more than {high}")
        return value

    return read


def whole_number(low: int, high: int | None = None) -> Kind[int]:
    """A whole number from `low` to `high`, both included; `high=None` sets no upper bound."""
    bounds = f"from {low} to {high}" if high is not None else f"of {low} or more"
    return Kind("N", f"write a whole number {bounds}", _integer(low, high), lambda value: (str(value),), (int,))


def seconds(low: float, high: float) -> Kind[float]:
    """A finite number of seconds from `low` to `high`, both included."""

    def read(texts: Texts) -> float:
        (text,) = texts
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise MismatchError(text, "is not a number of seconds")
        if not low <= value <= high:
            raise MismatchError(text, f"is not between {low} and {high}")
        return value

    def write(value: float) -> Texts:
        return (str(int(value)) if value.is_integer() else repr(value),)

    return Kind("SECONDS", f"write a number of seconds from {low} to {high}", read, write, (int, float))


def choice(words: Sequence[T]) -> Kind[T]:
    """One of a few words, each a string."""
    by_text = {str(word): word for word in words}

    def read(texts: Texts) -> T:
        (text,) = texts
        if text not in by_text:
            raise MismatchError(text, "is not one of the choices")
        return by_text[text]

    return Kind("|".join(by_text), f"write one of {', '.join(by_text)}", read, lambda value: (str(value),))


def _read_switch(texts: Texts) -> bool:
    (text,) = texts
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise MismatchError(text, "is neither true nor false")


SWITCH: Kind[bool] = Kind(
    "true|false",
    "write true or false",
    _read_switch,
    lambda value: ("true" if value else "false",),
    (bool,),
    flag=True,
)


def or_off(kind: Kind[T]) -> Kind[T | None]:
    """The same kind, or the word ``off``, which is None."""
    return _or_word(kind, "off")


def or_auto(kind: Kind[T]) -> Kind[T | None]:
    """The same kind, or the word ``auto``, which is None."""
    return _or_word(kind, "auto")


def _or_word(kind: Kind[T], word: str) -> Kind[T | None]:
    def read(texts: Texts) -> T | None:
        if [text.strip().lower() for text in texts] == [word]:
            return None
        try:
            return kind.read(texts)
        except MismatchError as mismatch:
            fix = f"{mismatch.fix}, or {word}" if mismatch.fix.startswith("write ") else mismatch.fix
            raise MismatchError(mismatch.text, mismatch.problem, fix) from None

    def write(value: T | None) -> Texts:
        return (word,) if value is None else kind.write(value)

    return Kind(f"{kind.metavar}|{word}", f"{kind.fix}, or {word}", read, write, kind.native, flag=kind.flag)


CAP: Final[Kind[int | None]] = or_off(whole_number(1))
"""How many at most."""


def _quota(quota: type[Quota], metavar: str, fix: str) -> Kind[Any]:
    def read(texts: Texts) -> Quota:
        (text,) = texts
        try:
            return quota.parse(text)
        except GuardError as error:
            raise MismatchError.of(text, error) from None

    return Kind(metavar, fix, read, lambda value: (str(value),))


_ANY_QUOTA: Final = _quota(Quota, "QUOTA", "write N/PERIOD [burst B]")

QUOTA: Kind[Quota | None] = or_off(_ANY_QUOTA)
BYTE_QUOTA: Kind[ByteQuota | None] = or_off(
    _quota(ByteQuota, "QUOTA", "write N/PERIOD [burst B] with N and B in bytes, KiB, MiB or GiB")
)


def _read_strikes(texts: Texts) -> Quota:
    (text,) = texts
    try:
        quota = _ANY_QUOTA.read(texts)
    except MismatchError as mismatch:
        raise MismatchError(text, mismatch.problem) from None
    if "burst" in text:
        raise MismatchError(text, "has a burst, which means nothing here")
    if not 2 <= quota.count <= MAX_REFUSALS:
        raise MismatchError(text, f"is not from 2 to {MAX_REFUSALS} times")
    return Quota(quota.count, quota.period_s, quota.count)


STRIKES: Kind[Quota | None] = or_off(
    Kind(
        "N/PERIOD",
        f"write N/PERIOD with N from 2 to {MAX_REFUSALS}",
        _read_strikes,
        lambda value: (str(value).partition(" burst ")[0],),
    )
)
"""How often within a period; a `Quota` whose burst is its count."""


def _read_files(texts: Texts) -> Texts:
    for text in texts:
        if not text or "\0" in text:
            raise MismatchError(text, "is no path")
    return texts


FILES: Kind[Texts] = Kind("FILE", "write the path of a file", _read_files, lambda value: value, repeatable=True)
OPTIONAL_FILE: Kind[str] = Kind(
    "FILE",
    'write the path of a file, or "" for none',
    lambda texts: texts[0] and _read_files(texts)[0],
    lambda value: (value,),
)


def words_of(words: Sequence[str], answers: Sequence[str], metavar: str) -> Kind[Mapping[str, str]]:
    """A table of WORD=ANSWER, one a use; of two for one word the last counts."""

    def read(texts: Texts) -> Mapping[str, str]:
        table = {}
        for text in texts:
            word, _, answer = text.partition("=")
            if word not in words or answer not in answers:
                raise MismatchError(text, f"is not {metavar}")
            table[word] = answer
        return MappingProxyType(table)

    def write(value: Mapping[str, str]) -> Texts:
        return tuple(f"{word}={answer}" for word, answer in value.items())

    fix = f"write {metavar} with one of {', '.join(words)}"
    return Kind(metavar, fix, read, write, repeatable=True, table=True)


def _read_networks(texts: Texts) -> CidrSet:
    for text in texts:
        try:
            CidrSet.parse([text])
        except GuardError as error:
            raise MismatchError.of(text, error) from None
    return CidrSet.parse(texts)


def _write_networks(value: CidrSet) -> Texts:
    return tuple(str(network) for network in value)


_CIDR_FIX: Final = "write an address, or a network as ADDRESS/BITS"

NETWORKS: Kind[CidrSet] = Kind("CIDR", _CIDR_FIX, _read_networks, _write_networks, repeatable=True)


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Peers that may set forwarding headers: `networks` by address, `unix` for all on UNIX-domain sockets."""

    networks: CidrSet
    unix: bool = False

    def __bool__(self) -> bool:
        return self.unix or len(self.networks) > 0


def _read_proxies(texts: Texts) -> TrustedProxies:
    networks = _read_networks(tuple(text for text in texts if text != "unix"))
    return TrustedProxies(networks, "unix" in texts)


def _write_proxies(value: TrustedProxies) -> Texts:
    return (*_write_networks(value.networks), *(("unix",) if value.unix else ()))


PROXIES: Kind[TrustedProxies] = Kind(
    "CIDR|unix", f"{_CIDR_FIX}, or the word unix", _read_proxies, _write_proxies, repeatable=True
)


def _read_nat64(texts: Texts) -> tuple[Nat64Prefix, ...]:
    prefixes = []
    for text in texts:
        try:
            prefixes.append(Nat64Prefix.parse(text))
        except GuardError as error:
            raise MismatchError.of(text, error) from None
    return tuple(prefixes)


NAT64_PREFIXES: Kind[tuple[Nat64Prefix, ...]] = Kind(
    "CIDR",
    "write an IPv6 network as ADDRESS/BITS",
    _read_nat64,
    lambda value: tuple(str(prefix) for prefix in value),
    repeatable=True,
)


def _read_header_name(texts: Texts) -> str:
    (text,) = texts
    if not is_header_name(text.lower()):
        raise MismatchError(text, "is no name of a header")
    return text.lower()


HEADER_NAME: Kind[str] = Kind(
    "HEADER", "write the name of a header, such as x-forwarded-for", _read_header_name, lambda value: (value,)
)
"""In lower case."""
