"""Sentences."""

from __future__ import annotations

from ipaddress import ip_network

from pyryrelay.guard.client import named
from pyryrelay.guard.jail.sentences import News, Sentence, origin_of_worker


def test_a_sentence_names_its_network() -> None:
    """That of its key; and nobody, if it was passed here."""
    sentence = Sentence(named("2001:db8::7").key, 60.0, 1)
    assert sentence.network == ip_network("2001:db8::/64")
    assert sentence.origin == ""


def test_news_release_nothing_unless_they_say_so() -> None:
    """A first sentence is over nobody's."""
    assert News(100, None).released is None


def test_other_hosts_hear_no_name_of_a_worker() -> None:
    """They have workers of the same names; a host's name they hear."""
    assert Sentence(100, 60.0, 1, origin_of_worker(3)).origin == "worker 3"
    assert Sentence(100, 60.0, 1, origin_of_worker(3)).origin_for_others == ""
    assert Sentence(100, 60.0, 1, "10.0.0.2:7000").origin_for_others == "10.0.0.2:7000"
