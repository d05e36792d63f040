"""What a jail has to tell: to a copy of it, and to other servers. PURE.

* *Changes* are for a copy that is kept elsewhere, such as a file: all keys whose sentence is another one, or is gone.
* *Released* keys are those whose sentence did not end by itself.
* *News* are for other servers: what was decided here. What was learnt from others is none.

Each is told once. Why memory is bounded: each has at most ``most`` keys; of more, the first ones are told.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from pyryrelay.guard.address.keys import AddressKey
from pyryrelay.guard.jail.sentences import News, Sentence

__all__ = ["Announcements"]


class Announcements:
    """What is to be told, of at most ``most`` keys each. There are news only from `keep_news` on."""

    __slots__ = ("_changed", "_most", "_news", "_released")

    def __init__(self, most: int) -> None:
        """Start with nothing to tell."""
        self._most = most
        self._changed: set[AddressKey] = set()
        self._released: set[AddressKey] = set()
        self._news: dict[AddressKey, News] | None = None

    # For a copy

    def changed(self, key: AddressKey) -> None:
        """Have a copy told of a key."""
        if len(self._changed) < self._most:
            self._changed.add(key)

    def take_changed(self, most: int) -> list[AddressKey]:
        """Return at most ``most`` keys that have changed since the last call."""
        return [self._changed.pop() for _ in range(min(most, len(self._changed)))]

    def released(self, key: AddressKey) -> None:
        """Have a copy told that a sentence is over before its end."""
        if len(self._released) < self._most:
            self._released.add(key)

    def jailed_again(self, key: AddressKey) -> None:
        """Have nobody told of a release that holds no more."""
        self._released.discard(key)

    def take_released(self) -> list[AddressKey]:
        """Return the keys that were released since the last call."""
        released, self._released = list(self._released), set()
        return released

    def forget(self, key: AddressKey) -> None:
        """Have no copy told of a key."""
        self._changed.discard(key)
        self._released.discard(key)

    # For other servers

    def keep_news(self) -> None:
        """Keep news from now on."""
        self._news = {}

    def tell(self, key: AddressKey, sentence: Sentence | None, released: Sentence | None = None) -> None:
        """Have other servers told about a key: see `News`."""
        news = self._news
        if news is None or (key not in news and len(news) >= self._most):
            return
        before = news.pop(key, None)
        if before is not None and released is None:
            released = before.released
        news[key] = News(key, sentence, released)

    @property
    def has_news(self) -> bool:
        """Whether there are news that were not taken."""
        return bool(self._news)

    def retell(self, news: Iterable[News]) -> None:
        """Have other servers told what was decided elsewhere."""
        for each in news:
            self.tell(each.key, each.sentence, each.released)

    def withdraw(self, key: AddressKey) -> None:
        """Have nobody told of a sentence that was not told yet."""
        news = self._news
        if news and (told := news.get(key)) is not None and told.sentence is not None:
            del news[key]

    def take_news(self, most: int) -> list[News]:
        """Return at most ``most`` news since the last call, in their order."""
        news = self._news or {}
        return [news.pop(key) for key in list(islice(news, most))]
