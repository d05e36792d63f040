"""The kinds of values an option can have: how each is read from text, written back and explained. PURE.

Every source (command line, environment, TOML file) is reduced to a tuple of texts before a kind sees it, so a
value means the same wherever it was written. Invariant: `kind.read(kind.write(value)) == value`, and a text
that `read` refuses raises `MismatchError`, which names that one text and what is wrong with it.
Units: a kind knows none; the field that uses it says them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.lists import CidrSet
from pyryrelay.guard.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        problem, _, fix = str(error).removeprefix(f"{text!r} ").partition(": ")
        return cls(text, problem, fix)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How one sort of value is read and written.

    `read` takes the texts of one source (exactly one text unless `repeatable`) and raises `MismatchError`;
    `write` is its inverse. `native` holds the TOML types accepted beside strings; kinds that have some are
    written without quotes.
    """

    metavar: str
    fix: str
    read: Callable[[Texts], T]
    write: Callable[[T], Texts]
    native: tuple[type, ...] = ()
    repeatable: bool = False
    flag: bool = False
    endpoint: bool = False


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
            raise MismatchError(text, f"is not between {low:g} and {high:g}")
        return value

    def write(value: float) -> Texts:
        return (str(int(value)) if value.is_integer() else repr(value),)

    return Kind("SECONDS", f"write a number of seconds from {low:g} to {high:g}", read, write, (int, float))


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


def _read_quota(texts: Texts) -> Quota:
    (text,) = texts
    try:
        return Quota.parse(text)
    except GuardError as error:
        raise MismatchError.of(text, error) from None


QUOTA: Kind[Quota] = Kind("QUOTA", "write N/PERIOD [burst B]", _read_quota, lambda value: (str(value),))


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
