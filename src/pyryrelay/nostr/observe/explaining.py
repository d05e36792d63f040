"""What Nostr refuses to a client or an author, in words for operators: ``pyryrelay explain``.

It asks the quotas, lists and caps, and changes nothing. It shows counts and options, never events, and no key but the
one that was asked for. Times are seconds on one monotonic clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pyryrelay.guard import AddressKey, ClientAddress, Level, covering_prefix, network_of
from pyryrelay.nostr.keys import npub, parse_key
from pyryrelay.nostr.observe.refused import RefusedLately
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.protocol import ActionError, Named, Rule
from pyryrelay.protocol.explaining import level_figures, level_text, time_text

__all__ = ["Sight", "explain_client", "explain_key", "key_of_name"]

_MEMBERS: Final = "other members of the cluster"
_RELOAD: Final = "then: pyryrelay reload"
_KEY: Final = re.compile(r"[0-9a-f]{64}|(npub|nsec)1.*", re.IGNORECASE | re.ASCII | re.DOTALL)
_OTHER_ENTITY: Final = re.compile(r"(note|nevent|nprofile|naddr|nrelay|ncryptsec)1.*", re.IGNORECASE | re.ASCII)

_QUOTAS: Final[Mapping[str, tuple[str, str]]] = {
    "event": ("quota of events", "--nostr-event-quota"),
    "event-prefix": ("quota of events of the prefix", "--nostr-event-prefix-quota"),
    "ephemeral": ("quota of ephemeral events", "--nostr-ephemeral-quota"),
    "ephemeral-prefix": ("quota of ephemeral events of the prefix", "--nostr-ephemeral-prefix-quota"),
    "req": ("quota of filters", "--nostr-req-quota"),
    "count": ("quota of COUNT", "--nostr-count-quota"),
    "work": ("quota of the work of queries", "--nostr-work-quota"),
    "invalid": ("quota of invalid messages", "--nostr-invalid-quota"),
    "auth": ("quota of authentications", "--nostr-auth-quota"),
    "author": ("quota of events of the author", "--nostr-pubkey-quota"),
    "ephemeral-author": ("quota of ephemeral events of the author", "--nostr-ephemeral-pubkey-quota"),
    "authed": ("quota of clients that have authenticated the key", "--nostr-authed-quota"),
    "relay": ("quota of events of all clients", "--nostr-relay-event-quota"),
    "ephemeral-relay": ("quota of ephemeral events of all clients", "--nostr-relay-event-quota"),
}
"""The rule that belongs to each table of buckets, and its option."""
_KINDS: Final = "kinds "
"""How the names of the tables of ``--nostr-kind-quota`` begin."""
_MESSAGES: Final[Mapping[str, str]] = {"REQ": "REQ or COUNT"}
"""Which messages are counted together, as in the log."""
_REPLACED: Final = ("event", "ephemeral", "author", "ephemeral-author")
"""The quotas that ``--nostr-authed-quota`` replaces."""


class Sight(NamedTuple):
    """What explanations are about: the options in force, what was spent and refused, whether events can be stored.

    ``sharers`` says in words who else spends the quotas of authors and of the relay as a whole. "" means that these are
    other workers alone: what they spend is spent here.
    """

    options: NostrOptions
    quotas: NostrQuotas
    refused: RefusedLately
    can_store: bool
    sharers: str = _MEMBERS


def key_of_name(name: str) -> str | None:
    """Return the public key that an operator has named, in hex; None if this is none.

    Raises `ActionError` for a typing error, a secret key, and the name of something else of Nostr. It does not repeat
    the text, which may be a secret.
    """
    if _OTHER_ENTITY.fullmatch(name):
        raise ActionError("only public keys and addresses are explained: write npub1..., 64 hex digits, or an address")
    if not _KEY.fullmatch(name):
        return None
    try:
        return parse_key(name)
    except ValueError as error:
        raise ActionError(str(error)) from None


def explain_client(sight: Sight, client: ClientAddress, now: float, *, is_exempt: bool) -> list[Rule]:
    """Return the rules for a client address; ``is_exempt`` tells whether no quota holds for it."""
    rules = [*_store(sight), *_lately(sight, client, now)]
    if is_exempt:
        return [*rules, Rule("quotas", "info", "exempt: the client is allowed (--allow)"), *_open(sight, client)]
    of_client = sight.quotas.client_levels(client.key, now)
    rules += [_of_client(name, level, sight, client) for name, level in of_client.items()]
    # What all clients have spent says nothing about this one.
    of_all = [rule._replace(used=0.0) for rule in _of_relay(sight, now)]
    return [*rules, *of_all, *_open(sight, client)]


def explain_key(sight: Sight, key: str, now: float) -> Named:
    """Return the rules for a public key, given in hex: as an author, and as one that clients have authenticated."""
    levels = sight.quotas.key_levels(bytes.fromhex(key), now)
    quotas = [_of_all(name, level, sight) for name, level in levels.items()]
    lists = [*_denied(sight.options, key), _writing(sight.options, key), _reading(sight.options, key)]
    return Named(f"public key {npub(key)} ({key})", [*_store(sight), *lists, *quotas, *_of_relay(sight, now)])


def _store(sight: Sight) -> Iterator[Rule]:
    if not sight.can_store:
        detail = "no event can be stored now; the log says why, and /healthz answers 503"
        yield Rule("store", "refuses", detail, "see the log, and the space on the disk")


def _lately(sight: Sight, client: ClientAddress, now: float) -> Iterator[Rule]:
    """Tell what was refused to the client, for whichever reason."""
    refused = sight.refused.of(client.key, now)
    if not refused:
        yield Rule("refused lately", "info", "nothing that this process remembers")
        return
    texts = [
        f"{_MESSAGES.get(one.verb, one.verb)} because of {one.word}: {one.times}, the last one"
        f" {time_text(now - one.last_s)} ago"
        for one in refused
    ]
    figures = [
        {"message": one.verb, "reason": one.word, "times": one.times, "ago_s": round(now - one.last_s, 3)}
        for one in refused
    ]
    count = sum(one.times for one in refused)
    yield Rule("refused lately", "info", "; ".join(texts), figures={"refused": figures}, used=count)


def _of_client(name: str, level: Level[AddressKey], sight: Sight, client: ClientAddress) -> Rule:
    rule = _quota(name, level, sight, _MEMBERS)
    of_prefix = name.endswith("-prefix")
    if level.key != (covering_prefix(client.key) if of_prefix else client.key):
        rule = rule._replace(detail=f"{rule.detail}; shared with all of {network_of(level.key)}, for want of room")
    # Neighbours spend the quota of a prefix, too, which says nothing about this client.
    return rule._replace(used=0.0) if of_prefix else rule


def _of_all(name: str, level: Level[bytes], sight: Sight) -> Rule:
    return _quota(name, level if sight.sharers else level._replace(elsewhere=0), sight, sight.sharers)


def _quota(name: str, level: Level[Any], sight: Sight, others: str) -> Rule:
    if name.startswith(_KINDS):
        kinds = name.removeprefix(_KINDS).partition("=")[0]
        what, option = f"quota of kinds {kinds}", "--nostr-kind-quota"
    else:
        what, option = _QUOTAS[name]
    text = level_text(level, option, others)
    if name == "work" and level.owes and not level.elsewhere:
        text += f"; queries of the client wait until it has paid for {level.owes} units"
    if name in _REPLACED and sight.options.nostr_authed_quota is not None:
        text += "; clients that have authenticated spend --nostr-authed-quota instead"
    advice = f"it goes on once it has waited; to allow more, raise {option}, {_RELOAD}"
    state: Any = "refuses" if level.wait_s else "ok"
    return Rule(what, state, text, advice, level_figures(level, option), level.full_s)


def _of_relay(sight: Sight, now: float) -> Iterator[Rule]:
    """Return the rules that all clients share."""
    for name, level in sight.quotas.relay_levels(now).items():
        yield _of_all(name, level, sight)


def _open(sight: Sight, client: ClientAddress) -> Iterator[Rule]:
    """Return the caps on what is open."""
    subscriptions, values = sight.quotas.subscriptions.held(client.key)
    options = sight.options
    for what, held, most, option in (
        ("open subscriptions", subscriptions, options.nostr_max_subscriptions_per_address, "subscriptions"),
        ("values in open subscriptions", values, options.nostr_max_open_values_per_address, "open-values"),
    ):
        flag = f"--nostr-max-{option}-per-address"
        is_full = most is not None and held >= most
        advice = f"it may open others once it has closed some; to allow more, raise {flag}, {_RELOAD}"
        text = f"{held} open, no cap ({flag})" if most is None else f"{held} of {most} open ({flag})"
        figures = {"option": flag, "open": held, "most": most}
        yield Rule(what, "refuses" if is_full else "ok", text, advice, figures, held)


# Lists


def _denied(options: NostrOptions, key: str) -> Iterator[Rule]:
    if key in options.nostr_deny_pubkey:
        hidden = ", and those that are stored are not served (--nostr-deny-hides)" if options.nostr_deny_hides else ""
        advice = f"take it off the deny list (--nostr-deny-pubkey, --nostr-deny-pubkey-file), {_RELOAD}"
        yield Rule("deny list", "refuses", f"events of this author are refused (--nostr-deny-pubkey){hidden}", advice)
    else:
        yield Rule("deny list", "ok", "not on it (--nostr-deny-pubkey)")
    if f"{key}:*" in options.nostr_deny_address:
        text = "all of its addressable and replaceable events are refused (--nostr-deny-address)"
        yield Rule("denied addresses", "refuses", text, f"take {key[:8]}...:* off --nostr-deny-address, {_RELOAD}")
    elif some := sum(f":{key}:" in address for address in options.nostr_deny_address):
        yield Rule("denied addresses", "info", f"events at {some} of its addresses are refused (--nostr-deny-address)")
    if key in options.nostr_trusted:
        text = "clients that have authenticated it are exempt from quotas of events, filters and work (--nostr-trusted)"
        yield Rule("trusted keys", "info", text)


_ALLOW: Final = f"put it on the allow list (--nostr-allow-pubkey, --nostr-allow-pubkey-file), {_RELOAD}"


def _writing(options: NostrOptions, key: str) -> Rule:
    access, is_allowed = options.nostr_write, key in options.nostr_allow_pubkey
    mode = f"(--nostr-write {access})"
    if access == "open":
        return Rule("who may publish", "ok", f"everybody {mode}")
    if access == "auth":
        return Rule("who may publish", "info", f"clients that have authenticated some key {mode}")
    whose = "its events may be published" if access == "allowed-authors" else "clients that authenticate it may publish"
    if is_allowed:
        return Rule("who may publish", "ok", f"{whose}: it is on the allow list {mode}")
    kinds = f", except for {len(options.nostr_open_kinds)} open kinds" if options.nostr_open_kinds else ""
    wraps = ", and gift wraps to keys that are" if options.nostr_inbox else ""
    return Rule("who may publish", "refuses", f"it is not on the allow list {mode}{kinds}{wraps}", _ALLOW)


def _reading(options: NostrOptions, key: str) -> Rule:
    access = options.nostr_read
    mode = f"(--nostr-read {access})"
    if access == "open":
        return Rule("who may read", "ok", f"everybody {mode}")
    if access == "auth":
        return Rule("who may read", "info", f"clients that have authenticated some key {mode}")
    if key in options.nostr_allow_pubkey:
        return Rule("who may read", "ok", f"clients that authenticate it: it is on the allow list {mode}")
    return Rule("who may read", "refuses", f"it is not on the allow list {mode}", _ALLOW)
