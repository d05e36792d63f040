"""Sets of keys, ids, words, addresses and choices in options. PURE. Sets are written in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from pyryrelay.config.types import InvalidValueError, OptionType, Texts
from pyryrelay.nostr.keys import parse_key
from pyryrelay.nostr.options.types.kinds import MAX_KIND

_HEX: Final = re.compile(r"[0-9a-f]{64}")


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
