"""The instances of a cluster, and how they prove their addresses."""

from __future__ import annotations

import pytest

from pyryrelay.cluster.directory.members import Listed, Load, Member, left_mac_of, mac_of, members_of, owner_of

SECRET = b"secret"
MEMBER = Member("10.0.0.1:7000", "boot", "10.0.0.1:7000")


def test_an_owner_with_its_mac_is_believed() -> None:
    """The MAC is that of name, boot id and address."""
    words = [*MEMBER, mac_of(MEMBER, SECRET), "7"]
    assert owner_of(words, SECRET) == MEMBER
    assert owner_of(words, SECRET) is owner_of(list(words), SECRET)  # thousands of routes share it


@pytest.mark.parametrize("at", range(3))
def test_an_altered_owner_is_not_believed(at: int) -> None:
    """Nobody without the secret can send connections to another address."""
    words = [*MEMBER, mac_of(MEMBER, SECRET), "7"]
    words[at] = "10.0.0.66:7000"
    assert owner_of(words, SECRET) is None
    for mac in (mac_of(MEMBER, b"other"), "", "ü\ufffd"):
        assert owner_of([*MEMBER, mac, "7"], SECRET) is None


def test_leases_are_listed() -> None:
    """Each lease has the seconds that it lasts; what cannot be read is left out."""
    good = f"boot 7500000 {MEMBER.address} {mac_of(MEMBER, SECRET)} 3,2,1"
    answer = ["5000000", MEMBER.name, good, "b:1", "boot 4000000 b:1 bad", "c:1", "nonsense", "d:1", "boot x d:1 m"]
    answer += ["e:1", "boot ² e:1 m", "f:1", "boot 9000000 f:1 \ufffd"]
    assert members_of(answer, SECRET) == [
        Listed(MEMBER, 2.5, True, Load(3, 2, 1)),
        Listed(Member("b:1", "boot", "b:1"), -1.0, False),
        Listed(Member("f:1", "boot", "f:1"), 4.0, False),
    ]


def test_a_load_is_read_as_it_was_written() -> None:
    """What is no load is none."""
    assert Load.parse(Load(1, 2, 3, 4).text) == Load(1, 2, 3, 4)
    assert Load.parse("1,2,3") == Load(1, 2, 3)
    assert Load.parse("1,2,3,4,5") == Load(1, 2, 3, 4)
    assert Load.parse("1,2") == Load.parse("1,2,3," + 5000 * "9") == Load.parse("a,b,c") == Load.parse("") == Load()


def test_who_has_left_has_proven_it() -> None:
    """Nobody without the secret can say so, and a mark is good for one start of one instance."""
    lease = f"boot 4000000 {MEMBER.address} {mac_of(MEMBER, SECRET)} 3,2,1"
    marks = {
        left_mac_of(MEMBER, SECRET): True,
        mac_of(MEMBER, SECRET): False,
        left_mac_of(MEMBER._replace(boot="other"), SECRET): False,
        left_mac_of(MEMBER, b"other"): False,
        "\ufffd": False,
        "": False,
    }
    for mark, has_left in marks.items():
        (listed,) = members_of(["5000000", MEMBER.name, f"{lease} {mark}"], SECRET)
        assert listed == Listed(MEMBER, -1.0, True, Load(3, 2, 1), has_left)


def test_times_that_are_too_long_are_none() -> None:
    """A number of 400 digits is no time."""
    assert members_of(["1", "a:1", f"boot {'9' * 400} a:1 m"], SECRET) == []
