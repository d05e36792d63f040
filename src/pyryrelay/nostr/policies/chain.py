"""The policies of the relay in the order of the specification, built from the options. PURE.

`EventChain` has those of section 4, `FilterChain` those of section 7. A Python user adds policies of the same shape:
see `event_chain` and `filter_chain`. Policies that refuse always, or never, cost nothing: only those that the options
turn on are in a chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyryrelay.nostr.events import Canonical, Event
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies import access, events, scraping
from pyryrelay.nostr.policies.access import FilterPolicy
from pyryrelay.nostr.policies.events import EventPolicy
from pyryrelay.nostr.policies.lists import Lists, list_policies
from pyryrelay.nostr.policies.proof_of_work import min_pow
from pyryrelay.nostr.policies.protected import no_protected_reposts, only_by_author
from pyryrelay.nostr.policies.refusal import Context, Refused

__all__ = ["EventChain", "FilterChain", "event_chain", "filter_chain"]


def _first(policies: Sequence[EventPolicy], event: Event, canonical: Canonical, context: Context) -> Refused | None:
    for policy in policies:
        refused = policy(event, canonical, context)
        if refused is not None:
            return refused
    return None


@dataclass(frozen=True, slots=True)
class EventChain:
    """The policies for events, by when they are asked.

    ``before_quota`` are steps 2 to 8, before anything is charged. ``after_signature`` are steps 13 and 14, before the
    quota of the author. ``rules`` is step 16. ``hooks`` is step 19: policies of a Python user, or a plugin.
    ``from_hosts`` holds for events that another host of a cluster has accepted: what this relay could not store or
    serve, and its own lists. When they were written, by whom, and with how much work, was decided there.
    """

    before_quota: tuple[EventPolicy, ...] = ()
    after_signature: tuple[EventPolicy, ...] = ()
    rules: tuple[EventPolicy, ...] = ()
    hooks: tuple[EventPolicy, ...] = ()
    from_hosts: tuple[EventPolicy, ...] = ()

    def check_before_quota(self, event: Event, canonical: Canonical, context: Context) -> Refused | None:
        """Return why an event is refused before anything is charged, or None."""
        for policy in self.before_quota:
            refused = policy(event, canonical, context)
            if refused is not None:
                return refused
        return None

    def check_after_signature(self, event: Event, canonical: Canonical, context: Context) -> Refused | None:
        """Return why this client may not publish this event, or None."""
        return _first(self.after_signature, event, canonical, context)

    def check_from_host(self, event: Event, canonical: Canonical, context: Context) -> Refused | None:
        """Return why an event that another host has accepted is not wanted here, or None."""
        return _first(self.from_hosts, event, canonical, context)

    def check_rules(self, event: Event, canonical: Canonical, context: Context) -> Refused | None:
        """Return which rule of its kind an event breaks, or None."""
        return _first(self.rules, event, canonical, context)

    def check_hooks(self, event: Event, canonical: Canonical, context: Context) -> Refused | None:
        """Return why a hook refuses an event, or None."""
        return _first(self.hooks, event, canonical, context)


@dataclass(frozen=True, slots=True)
class FilterChain:
    """The policies for the filters of a REQ or COUNT.

    ``scrape`` is not asked about exempt clients, and about precise filters of a COUNT. ``hooks`` are the policies of a
    Python user, and are asked last.
    """

    shape: tuple[FilterPolicy, ...] = ()
    scrape: tuple[FilterPolicy, ...] = ()
    hooks: tuple[FilterPolicy, ...] = ()

    def check(self, filters: Sequence[Filter], context: Context, *, is_count: bool = False) -> Refused | None:
        """Return why filters are refused, or None."""
        for policy in self.shape:
            refused = policy(filters, context)
            if refused is not None:
                return refused
        if self.scrape and not context.is_exempt:
            suspects = [one for one in filters if not scraping.is_precise(one)] if is_count else filters
            for policy in self.scrape:
                refused = policy(suspects, context)
                if refused is not None:
                    return refused
        for policy in self.hooks:
            refused = policy(filters, context)
            if refused is not None:
                return refused
        return None


def event_chain(
    options: NostrOptions, lists: Lists | None = None, *, can_authenticate: bool, hooks: Sequence[EventPolicy] = ()
) -> EventChain:
    """Return the policies for events. ``lists`` has the lists of options and files, by default those of the options.

    ``can_authenticate`` says whether clients can authenticate here at all (`RelayUrls`).
    """
    lists = lists_of(options) if lists is None else lists
    return EventChain(
        before_quota=tuple(_before_quota(options, lists)),
        after_signature=tuple(_after_signature(options, lists, can_authenticate)),
        rules=(events.deletions(options.nostr_max_deletions), no_protected_reposts()),
        hooks=tuple(hooks),
        from_hosts=tuple(_from_hosts(options, lists)),
    )


def lists_of(options: NostrOptions) -> Lists:
    """Return the lists that the options have without their files."""
    return Lists(
        allowed_keys=options.nostr_allow_pubkey,
        denied_keys=options.nostr_deny_pubkey,
        allowed_kinds=options.nostr_allow_kind,
        denied_kinds=options.nostr_deny_kind,
        denied_words=options.nostr_deny_word,
        denied_events=options.nostr_deny_event,
        denied_addresses=options.nostr_deny_address,
    )


def _before_quota(options: NostrOptions, lists: Lists) -> Iterator[EventPolicy]:
    """Yield steps 2 to 8."""
    yield from _sizes(options)
    yield events.no_credentials
    yield from list_policies(lists, options.nostr_private_kinds)
    if options.nostr_inline_media == "refuse":
        yield events.no_inline_media()
    if options.nostr_only_protected:
        yield events.only_protected()
    window = (options.nostr_reject_newer_s, options.nostr_reject_older_s, options.nostr_reject_ephemeral_older_s)
    if window != (None, None, None):
        yield events.time_window(*window, spares_replaceable=not options.nostr_reject_older_replaceable)
    yield events.expires_later()
    if options.nostr_min_pow or options.nostr_pow_kind:
        yield min_pow(options.nostr_min_pow, options.nostr_pow_kind)


def _from_hosts(options: NostrOptions, lists: Lists) -> Iterator[EventPolicy]:
    """Yield what holds for events of other hosts."""
    yield from _sizes(options)
    yield events.no_credentials
    yield from list_policies(lists, options.nostr_private_kinds)
    yield events.expires_later()
    yield events.deletions(options.nostr_max_deletions)


def _sizes(options: NostrOptions) -> Iterator[EventPolicy]:
    """Yield steps 2 to 4."""
    if options.nostr_max_event_bytes is not None:
        yield events.max_bytes(options.nostr_max_event_bytes)
    if options.nostr_max_tags is not None:
        yield events.max_tags(options.nostr_max_tags)
    if options.nostr_max_tag_value_bytes is not None:
        yield events.max_tag_value_bytes(options.nostr_max_tag_value_bytes)
    if options.nostr_max_content_chars is not None:
        yield events.max_content_chars(options.nostr_max_content_chars)
    if options.nostr_max_indexed_tags is not None:
        kinds = options.nostr_indexed_tags_kinds or None
        yield events.max_indexed_tags(options.nostr_max_indexed_tags, kinds, options.nostr_indexed_tags_ignore_kinds)


def _after_signature(options: NostrOptions, lists: Lists, can_authenticate: bool) -> Iterator[EventPolicy]:
    """Yield steps 13 and 14."""
    yield only_by_author(are_accepted=options.nostr_protected and can_authenticate)
    if options.nostr_write != "open":
        yield access.writers(
            options.nostr_write,
            lists.allowed_keys,
            options.nostr_open_kinds,
            has_inbox=options.nostr_inbox,
            register_url=options.nostr_payments_url if options.nostr_payment_required else "",
        )
    if options.nostr_giftwrap_auth:
        yield access.authenticated_gift_wraps()


def filter_chain(
    options: NostrOptions, lists: Lists | None = None, *, hooks: Sequence[FilterPolicy] = ()
) -> FilterChain:
    """Return the policies for filters. ``lists`` is as for `event_chain`."""
    lists = lists_of(options) if lists is None else lists
    return FilterChain(tuple(_shape(options, lists)), tuple(_scrape(options)), tuple(hooks))


def _shape(options: NostrOptions, lists: Lists) -> Iterator[FilterPolicy]:
    """Yield what binds everybody."""
    if options.nostr_max_filters is not None:
        yield scraping.max_filters(options.nostr_max_filters)
    if options.nostr_max_filter_values is not None:
        yield scraping.max_values(options.nostr_max_filter_values)
    if options.nostr_max_tag_keys is not None:
        yield scraping.max_tag_keys(options.nostr_max_tag_keys)
    if options.nostr_read != "open":
        yield access.readers(options.nostr_read, lists.allowed_keys)
    if options.nostr_private_kinds:
        yield access.private(options.nostr_private_kinds)


def _scrape(options: NostrOptions) -> Iterator[FilterPolicy]:
    """Yield what does not bind exempt clients."""
    yield from (policy for name, policy in scraping.SCRAPE_POLICIES.items() if name in options.nostr_scrape)
    if options.nostr_complex_filters == "refuse":
        yield scraping.not_complex()
    if options.nostr_max_filter_kinds is not None:
        yield scraping.max_kinds(options.nostr_max_filter_kinds)
    if options.nostr_filter_kinds:
        yield scraping.only_kinds(options.nostr_filter_kinds)
    if options.nostr_filter_needs == "author-or-tag":
        yield scraping.author_or_tag()
