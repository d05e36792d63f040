"""What a jail has to tell: each once, and a bounded number of it."""

from __future__ import annotations

from pyryrelay.guard.jail import Jail, JailPolicy
from pyryrelay.guard.jail.announcements import Announcements
from pyryrelay.guard.jail.sentences import News, Sentence

FIRST, SECOND = Sentence(100, 60.0, 1), Sentence(100, 90.0, 2)


def test_a_copy_is_told_once() -> None:
    """Of changes and of releases, unless they hold no more."""
    told = Announcements(9)
    for key in (100, 102, 104):
        told.changed(key)
        told.released(key)
    told.jailed_again(102)
    told.forget(104)
    assert len(told.take_changed(1)) == 1
    assert len(told.take_changed(9)) == 1
    assert told.take_released() == [100]
    assert (told.take_changed(9), told.take_released()) == ([], [])


def test_there_is_room_for_so_many() -> None:
    """Of more, the first ones are told."""
    told = Announcements(2)
    told.keep_news()
    for key in (100, 102, 104, 100):
        told.changed(key)
        told.released(key)
        told.tell(key, Sentence(key, 60.0, 1))
    assert {*told.take_changed(9)} == {*told.take_released()} == {100, 102}
    assert [news.key for news in told.take_news(9)] == [102, 100]


def test_other_servers_are_told_the_last_word() -> None:
    """With the release of what they may have heard of; nothing before it is asked for."""
    told = Announcements(9)
    told.tell(100, FIRST)
    assert told.take_news(9) == []
    told.keep_news()
    told.tell(100, None, FIRST)
    told.tell(100, SECOND)
    assert told.take_news(9) == [News(100, SECOND, FIRST)]
    told.retell([News(102, None, FIRST)])
    told.withdraw(102)
    assert told.take_news(9) == [News(102, None, FIRST)]
    told.tell(100, FIRST)
    told.withdraw(100)
    assert told.take_news(9) == []


def test_news_are_bounded() -> None:
    """Of more than may be kept, the first ones are told; a release takes the place of its sentence."""
    jail = Jail(JailPolicy(), max_entries=2)
    jail.keep_news()
    for key in (100, 102, 104):
        jail.add(key, 10.0, 0.0)
    jail.release(102)
    assert [(news.key, news.sentence is None) for news in jail.news()] == [(100, False), (102, True)]


def test_a_jail_has_news_until_they_are_taken() -> None:
    """Whoever takes them at most a few at a time asks again."""
    jail = Jail(JailPolicy())
    jail.keep_news()
    assert not jail.has_news
    jail.add(100, 10.0, 0.0)
    jail.add(102, 10.0, 0.0)
    seen = [jail.has_news, len(jail.news(1)), jail.has_news, len(jail.news(1)), jail.has_news]
    assert seen == [True, 1, True, 1, False]
