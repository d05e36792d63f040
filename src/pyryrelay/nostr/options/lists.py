"""Nostr's lists of authors, kinds, words, events and addresses. PURE."""

# `option` makes a dataclass field, which a linter cannot know.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import FILES, SWITCH
from pyryrelay.nostr.options.groups import LISTS
from pyryrelay.nostr.options.types.kinds import KINDS
from pyryrelay.nostr.options.types.sets import ADDRESSES, EVENT_IDS, KEYS, WORDS

_WHY_NONE: Final = "Nothing is denied by default."
_WHY_FILES: Final = "Lists that are written by tools should be separate files."
_NPUB: Final = "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6"
_FILE: Final = (
    ", one per line, with `#` for comments. It is read again when it changes. If a line is invalid, it is reported "
    "with its number, and the old list stays in force."
)


@dataclass(frozen=True, kw_only=True)
class ListOptions(ConnectionSettings):
    """Which events are accepted and refused by name. Deny lists win."""

    nostr_allow_pubkey: frozenset[str] = option(
        frozenset(),
        KEYS,
        LISTS,
        help="A public key on the allow list, as `npub1...` or in hex. `--nostr-write`, `--nostr-read` and "
        "`--nostr-inbox` say what it admits to.",
        example=_NPUB,
        why="Everybody is admitted unless `--nostr-write` or `--nostr-read` says otherwise.",
    )
    nostr_allow_pubkey_file: tuple[str, ...] = option(
        (),
        FILES,
        LISTS,
        help=f"A file of public keys to allow{_FILE}",
        example="/etc/pyryrelay/members.txt",
        why=_WHY_FILES,
    )
    nostr_deny_pubkey: frozenset[str] = option(
        frozenset(),
        KEYS,
        LISTS,
        help="A public key whose events are refused.",
        example=_NPUB,
        why=_WHY_NONE,
    )
    nostr_deny_pubkey_file: tuple[str, ...] = option(
        (),
        FILES,
        LISTS,
        help=f"A file of public keys to deny{_FILE}",
        example="/etc/pyryrelay/spammers.txt",
        why=_WHY_FILES,
    )
    nostr_allow_kind: frozenset[int] = option(
        frozenset(),
        KINDS,
        LISTS,
        help="A kind, or a range of kinds, to accept. If there are any, all other kinds are refused, except deletions "
        "(5) and requests to vanish (62).",
        example=("0", "1", "30000-39999"),
        why="All kinds are accepted by default.",
    )
    nostr_allow_kind_file: tuple[str, ...] = option(
        (),
        FILES,
        LISTS,
        help=f"A file of kinds to accept{_FILE}",
        example="/etc/pyryrelay/kinds.txt",
        why=_WHY_FILES,
    )
    nostr_deny_kind: frozenset[int] = option(
        frozenset(),
        KINDS,
        LISTS,
        help="A kind, or a range of kinds, to refuse.",
        example=("4", "20000-29999"),
        why=_WHY_NONE,
    )
    nostr_deny_kind_file: tuple[str, ...] = option(
        (),
        FILES,
        LISTS,
        help=f"A file of kinds to refuse{_FILE}",
        example="/etc/pyryrelay/refused-kinds.txt",
        why=_WHY_FILES,
    )
    nostr_deny_word: frozenset[str] = option(
        frozenset(),
        WORDS,
        LISTS,
        help="A word that must not occur in the content or the hashtags of an event, in upper or lower case. Whole "
        "words count, and private kinds are not looked into.",
        example=("casino", "spam.example"),
        why=_WHY_NONE,
    )
    nostr_deny_word_file: tuple[str, ...] = option(
        (),
        FILES,
        LISTS,
        help=f"A file of words to deny{_FILE} Ten thousand words take no longer than one.",
        example="/etc/pyryrelay/words.txt",
        why=_WHY_FILES,
    )
    nostr_deny_event: frozenset[str] = option(
        frozenset(),
        EVENT_IDS,
        LISTS,
        help="The id of an event that is refused.",
        example="00000000000000000000000000000000000000000000000000000000000000ff",
        why=_WHY_NONE,
    )
    nostr_deny_event_file: tuple[str, ...] = option(
        (),
        FILES,
        LISTS,
        help=f"A file of ids of events to deny{_FILE}",
        example="/etc/pyryrelay/events.txt",
        why=_WHY_FILES,
    )
    nostr_deny_address: frozenset[str] = option(
        frozenset(),
        ADDRESSES,
        LISTS,
        help="An address whose events are refused: `KIND:PUBKEY:D`, `PUBKEY:*` for all addresses of a key, or `*:D` "
        "for an identifier of any key and kind.",
        example=(f"30617:{_NPUB}:project", "*:malware"),
        why=_WHY_NONE,
    )
    nostr_deny_address_file: tuple[str, ...] = option(
        (),
        FILES,
        LISTS,
        help=f"A file of addresses to deny{_FILE}",
        example="/etc/pyryrelay/addresses.txt",
        why=_WHY_FILES,
    )
    nostr_deny_hides: bool = option(
        True,
        SWITCH,
        LISTS,
        help="Stop serving the stored events of denied authors, too.",
        example="false",
        why="Whoever denies an author rarely wants to go on serving what it has published.",
    )
