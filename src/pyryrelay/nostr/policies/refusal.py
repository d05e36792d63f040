"""Every refusal of the Nostr relay: its text, and its word in metrics. PURE.

Texts are those of section 19 of the specification. Capitals in a template stand for figures: N and S for numbers, D
and T for difficulties, FIELD and KEY for names, URL for an address, ``...`` for the rest of a sentence.

`Texts` says them in the operator's words, as ``--nostr-text`` wants it. The prefix is what programs read, and stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isinf
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from pyryrelay.guard import ClientAddress

__all__ = ["Context", "Refused", "Template", "Texts"]

AUTH_REQUIRED: Final = "auth-required"

_FIGURE: Final = re.compile(r"\b(?:N|S|D|T|FIELD|KEY|URL)\b|\.\.\.")
_PATTERNS: Final = {"FIELD": r"\S+", "KEY": r"\S+", "URL": r"\S+", "...": r".+"}
_NUMBER: Final = r"-?[0-9]+"

_NEVER_S: Final = 31_622_400
"""What a client is told that asks for more than the burst of a quota: the longest time that a quota takes to fill."""


class Refused(NamedTuple):
    """Why something is refused: a ``word`` for metrics, and the ``text`` that the client is sent, with its prefix."""

    word: str
    text: str

    @property
    def needs_auth(self) -> bool:
        """Whether an AUTH challenge goes before it, if none was sent yet."""
        return self.text.startswith(AUTH_REQUIRED)


class Context(NamedTuple):
    """Who sends an event or a filter, and when.

    ``client`` is None if its address is unknown. ``keys`` are the public keys that this connection has authenticated,
    ``wall_s`` the unix time. An exempt client is allowed by ``--allow``, or has authenticated a trusted key.
    """

    client: ClientAddress | None
    keys: frozenset[str]
    wall_s: int
    is_exempt: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """One text of section 19, with its prefix and its word."""

    word: str
    prefix: str
    text: str
    _form: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A flood is refused with figures: filling in a form takes a tenth of the time of looking for their names.
        object.__setattr__(self, "_form", f"{self.prefix}: {_FIGURE.sub('%s', self.text)}")

    @property
    def key(self) -> str:
        """The text as ``--nostr-text`` names it."""
        return f"{self.prefix} {self.text}"

    def __call__(self, *figures: object) -> Refused:
        """Return the refusal with these figures, in the order of the text."""
        return Refused(self.word, self._form % figures)

    def pattern(self) -> re.Pattern[str]:
        """Return what matches the text with any figures, one group for each of them."""
        parts, end = [], 0
        for found in _FIGURE.finditer(self.text):
            parts += [re.escape(self.text[end : found.start()]), f"({_PATTERNS.get(found[0], _NUMBER)})"]
            end = found.end()
        return re.compile("".join([re.escape(f"{self.prefix}: "), *parts, re.escape(self.text[end:])]))

    def figures(self) -> list[str]:
        """Return the names of the figures, in the order of the text."""
        return _FIGURE.findall(self.text)


# Of events: steps 1 to 9.
FIELD_MISSING: Final = Template("shape", "invalid", "FIELD is missing")
FIELD_WRONG: Final = Template("shape", "invalid", "FIELD must be ...")
NOT_JSON: Final = Template("shape", "invalid", "not JSON")
EVENT_TOO_LARGE: Final = Template("event_size", "invalid", "event is larger than N bytes")
TOO_MANY_TAGS: Final = Template("tags", "invalid", "event has more than N tags")
TAG_VALUE_TOO_LONG: Final = Template("tag_value", "invalid", "a tag value is longer than N bytes")
CONTENT_TOO_LONG: Final = Template("content_length", "invalid", "content is longer than N characters")
TOO_MANY_INDEXED_TAGS: Final = Template("indexed_tags", "invalid", "event has more than N indexed tags")
CREDENTIAL: Final = Template("credential", "blocked", "kind N is never published")
KIND_REFUSED: Final = Template("kind", "blocked", "kind N is not accepted here")
KEY_BANNED: Final = Template("banned_key", "blocked", "this key is banned")
EVENT_BANNED: Final = Template("banned_event", "blocked", "this event is banned")
CONTENT_REFUSED: Final = Template("content", "blocked", "content is not accepted here")
PROTECTED_ONLY: Final = Template("protected_only", "blocked", "protected events only")
TOO_NEW: Final = Template("too_new", "invalid", "created_at is more than N s in the future")
TOO_OLD: Final = Template("too_old", "invalid", "created_at is more than N s in the past")
EPHEMERAL_TOO_OLD: Final = Template("too_old", "invalid", "ephemeral event is older than N s")
EXPIRATION_WRONG: Final = Template("shape", "invalid", "expiration must be a unix time")
EXPIRED: Final = Template("expired", "invalid", "event has expired")
DIFFICULTY: Final = Template("pow", "pow", "difficulty D is less than N")
TARGET: Final = Template("pow", "pow", "committed target T is less than N")
TOO_MANY_EVENTS: Final = Template("rate_limit", "rate-limited", "too many events, try again in S s")

# Of events: steps 10 to 20.
WRONG_ID: Final = Template("id", "invalid", "id is not the hash of the event")
WRONG_KEY: Final = Template("signature", "invalid", "pubkey is not on the curve")
WRONG_SIGNATURE: Final = Template("signature", "invalid", "signature does not verify")
AUTHOR_ONLY_AUTH: Final = Template("protected", AUTH_REQUIRED, "this event may only be published by its author")
AUTHOR_ONLY: Final = Template("protected", "restricted", "this event may only be published by its author")
PROTECTED_REFUSED: Final = Template("protected", "blocked", "protected events are not accepted here")
WRITE_AUTH: Final = Template("write_access", AUTH_REQUIRED, "authenticate to publish here")
GIFT_WRAP_AUTH: Final = Template("write_access", AUTH_REQUIRED, "gift wraps need authentication")
WRITE_REFUSED: Final = Template("write_access", "restricted", "this key may not publish here")
REGISTER: Final = Template("write_access", "restricted", "register at URL")
TOO_MANY_OF_KEY: Final = Template("key_rate_limit", "rate-limited", "too many events of this key, try again in S s")
REPEATED: Final = Template("repeated", "rate-limited", "this text was posted too often")
NOTHING_DELETED: Final = Template("deletion", "invalid", "deletion names nothing")
TOO_MANY_DELETED: Final = Template("deletion", "invalid", "deletion names more than N events")
PROTECTED_REPOST: Final = Template("repost", "blocked", "reposts a protected event")
DELETED: Final = Template("deleted", "blocked", "deleted by its author")
NOT_ACCEPTED: Final = Template("policy", "blocked", "not accepted here")
NOT_STORED: Final = Template("store", "error", "could not store the event")
SHUTTING_DOWN: Final = Template("shutdown", "error", "the relay is shutting down")

# Answers that are no refusals: their OK is true, but for the second.
DUPLICATE: Final = Template("duplicate", "duplicate", "already have this event")
SUPERSEDED: Final = Template("superseded", "duplicate", "have a newer version")
NOBODY: Final = Template("ephemeral", "mute", "nobody was listening")

# Of AUTH.
AUTH_KIND: Final = Template("kind", "invalid", "kind must be 22242")
AUTH_TIME: Final = Template("time", "invalid", "created_at is more than 600 s from now")
AUTH_CHALLENGE: Final = Template("challenge", "invalid", "challenge does not match")
AUTH_RELAY: Final = Template("relay", "invalid", "relay does not match")
TOO_MANY_KEYS: Final = Template("keys", "restricted", "more than N keys on one connection")
TOO_MANY_AUTHS: Final = Template("rate_limit", "rate-limited", "too many authentications")

# Of REQ and COUNT.
WRONG_MESSAGE: Final = Template("shape", "invalid", "not a message")
BINARY: Final = Template("shape", "invalid", "binary messages are not understood")
SUBSCRIPTION_ID: Final = Template("shape", "invalid", "subscription id must have 1 to N characters")
NO_FILTER: Final = Template("shape", "invalid", "no filter")
FILTER_WRONG: Final = Template("shape", "invalid", "filter must be an object")
KEY_WRONG: Final = Template("shape", "invalid", "KEY must be ...")
TOO_MANY_FILTERS: Final = Template("filters", "invalid", "more than N filters")
TOO_MANY_VALUES: Final = Template("values", "invalid", "more than N values")
TOO_MANY_TAG_KEYS: Final = Template("tag_keys", "invalid", "more than N tag keys")
READ_AUTH: Final = Template("read_access", AUTH_REQUIRED, "authenticate to read here")
READ_REFUSED: Final = Template("read_access", "restricted", "this key may not read here")
PRIVATE: Final = Template("private", AUTH_REQUIRED, "these kinds are for their recipients")
NARROW: Final = Template("scrape", "blocked", "narrow this to 100 events or two hours")
NAME_AUTHORS: Final = Template("scrape", "blocked", "name authors for kind 1")
NAME_SOMETHING: Final = Template("scrape", "blocked", "name ids, authors, kinds or tags")
NAME_TWO: Final = Template("scrape", "blocked", "name two of authors, kinds and tags")
TOO_COMPLEX: Final = Template("complex", "blocked", "too many things to filter for")
OTHER_FILTERS: Final = Template("other_filters", "blocked", "this relay serves other filters")
TOO_MANY_SUBSCRIPTIONS: Final = Template("subscriptions", "rate-limited", "more than N subscriptions")
TOO_MANY_OPEN_VALUES: Final = Template("open_values", "rate-limited", "more than N values in open subscriptions")
TOO_MANY_REQUESTS: Final = Template("rate_limit", "rate-limited", "too many filters, try again in S s")
TOO_MANY_COUNTS: Final = Template("rate_limit", "rate-limited", "too many counts")
TOO_EXPENSIVE: Final = Template("expensive", "error", "query too expensive, name authors, kinds, tags or times")
TOO_LONG: Final = Template("timeout", "error", "query took too long")
NOT_READ: Final = Template("store", "error", "could not read the store")
FILTER_KEY: Final = Template("unsupported", "unsupported", "filter key")
NO_SEARCH: Final = Template("unsupported", "unsupported", "search is off here")
NO_COUNT: Final = Template("unsupported", "unsupported", "counting is off here")
NO_NEGENTROPY: Final = Template("unsupported", "unsupported", "negentropy is off here")
UNKNOWN_VERB: Final = Template("unsupported", "unsupported", "unknown verb")

TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType(
    {value.key: value for value in list(globals().values()) if isinstance(value, Template)}
)
"""All of them, by what ``--nostr-text`` calls them."""

EVENT_TEMPLATES: Final = (
    *(FIELD_MISSING, FIELD_WRONG, NOT_JSON, EVENT_TOO_LARGE, TOO_MANY_TAGS, TAG_VALUE_TOO_LONG, CONTENT_TOO_LONG),
    *(TOO_MANY_INDEXED_TAGS, CREDENTIAL, KIND_REFUSED, KEY_BANNED, EVENT_BANNED, CONTENT_REFUSED, PROTECTED_ONLY),
    *(TOO_NEW, TOO_OLD, EPHEMERAL_TOO_OLD, EXPIRATION_WRONG, EXPIRED, DIFFICULTY, TARGET, TOO_MANY_EVENTS, WRONG_ID),
    *(WRONG_KEY, WRONG_SIGNATURE, AUTHOR_ONLY_AUTH, AUTHOR_ONLY, PROTECTED_REFUSED, WRITE_AUTH, GIFT_WRAP_AUTH),
    *(WRITE_REFUSED, REGISTER, TOO_MANY_OF_KEY, REPEATED, NOTHING_DELETED, TOO_MANY_DELETED, PROTECTED_REPOST),
    *(DELETED, NOT_ACCEPTED, NOT_STORED, SHUTTING_DOWN),
)
FILTER_TEMPLATES: Final = (
    *(SUBSCRIPTION_ID, NO_FILTER, FILTER_WRONG, KEY_WRONG, TOO_MANY_FILTERS, TOO_MANY_VALUES, TOO_MANY_TAG_KEYS),
    *(READ_AUTH, READ_REFUSED, PRIVATE, NARROW, NAME_AUTHORS, NAME_SOMETHING, NAME_TWO, TOO_COMPLEX, OTHER_FILTERS),
    *(
        TOO_MANY_SUBSCRIPTIONS,
        TOO_MANY_OPEN_VALUES,
        TOO_MANY_REQUESTS,
        TOO_MANY_COUNTS,
        TOO_EXPENSIVE,
        TOO_LONG,
        NOT_READ,
        FILTER_KEY,
    ),
    *(NO_SEARCH, NO_COUNT, NOT_ACCEPTED, SHUTTING_DOWN),
)
AUTH_TEMPLATES: Final = (
    *(FIELD_MISSING, FIELD_WRONG, NOT_JSON, AUTH_KIND, AUTH_TIME, AUTH_CHALLENGE, AUTH_RELAY, WRONG_ID, WRONG_KEY),
    *(WRONG_SIGNATURE, TOO_MANY_KEYS, TOO_MANY_AUTHS, SHUTTING_DOWN),
)


_FIXED: Final = frozenset(
    f"{template.prefix}: {template.text}" for template in TEMPLATES.values() if not template.figures()
)
"""The texts without figures: none of them is what "FIELD must be ..." stands for."""


def _words(templates: Sequence[Template]) -> tuple[str, ...]:
    return tuple(sorted({template.word for template in templates}))


EVENT_WORDS: Final = _words(EVENT_TEMPLATES)
"""The words of refused events, for ``events_total{outcome}``."""

CLOSED_WORDS: Final = _words(FILTER_TEMPLATES)
"""The words of refused and ended subscriptions, for ``closed_total{reason}``."""

AUTH_WORDS: Final = _words(AUTH_TEMPLATES)
"""The words of refused authentications, for ``auth_total{outcome}``."""

WORDS: Final = tuple(sorted({*EVENT_WORDS, *CLOSED_WORDS, *AUTH_WORDS}))
"""All words."""


def wait_text_s(wait_s: float) -> int:
    """Return a wait as clients are told it: whole seconds, rounded up, at least 1."""
    return _NEVER_S if isinf(wait_s) else max(1, ceil(wait_s))


_Rule: TypeAlias = tuple[re.Pattern[str], list[str], str]


class Texts:
    """Says texts in the operator's words. ``table`` maps keys of `TEMPLATES` to the text after the prefix.

    The names of figures in such a text are replaced by the figures. Without a table nothing changes, at no cost.
    """

    __slots__ = ("_rules",)

    def __init__(self, table: Mapping[str, str] = MappingProxyType({})) -> None:
        """Raises `KeyError` for a key that is no text of this relay."""
        self._rules: list[_Rule] = []
        for key, text in table.items():
            template = TEMPLATES[key]
            self._rules.append((template.pattern(), template.figures(), f"{template.prefix}: {text}"))

    def __bool__(self) -> bool:
        """Tell whether any text is another."""
        return bool(self._rules)

    def __call__(self, text: str) -> str:
        """Return a text, prefix included, as clients are to see it. Other texts than those of the table stay."""
        for pattern, names, other in self._rules:
            found = pattern.fullmatch(text)
            if found is not None and not (names and text in _FIXED):
                return _filled(other, dict(zip(names, found.groups(), strict=True)))
        return text

    def reply(self, reply: bytes) -> bytes:
        """Return a whole message, whose last element is a text, as clients are to see it."""
        if not self._rules:
            return reply
        *head, text = json.loads(reply)
        return json.dumps([*head, self(text)], ensure_ascii=False, separators=(",", ":")).encode()


def _filled(text: str, figures: Mapping[str, str]) -> str:
    """Return a text with its prefix, with figures in the place of their names."""
    prefix, separator, rest = text.partition(": ")
    return prefix + separator + _FIGURE.sub(lambda name: figures.get(name[0], name[0]), rest)
