"""The names of what a cluster shares."""

from __future__ import annotations

from collections import Counter

from pyryrelay.cluster.keys import PARTITIONS, Keys, partition_of

SECRET = b"0123456789abcdef"


def test_keys_have_a_partition_and_tell_nothing() -> None:
    """An address is in no key; the same one has the same key everywhere."""
    keys, same = Keys("relay", SECRET), Keys("relay", SECRET)
    hashed = keys.hashed(b"address", b"192.0.2.1")
    assert hashed == same.hashed(b"address", b"192.0.2.1")
    assert len(hashed) == 9
    assert keys.key(17, "q:", hashed) == b"pyry:relay:{17}q:" + hashed
    assert keys.key(0, "leases") == b"pyry:relay:{0}leases"
    assert SECRET not in keys.sealing_key + keys.signing_key


def test_other_secrets_and_kinds_have_other_keys() -> None:
    """Two clusters on one server do not meet, and neither do an address and its prefix."""
    hashes = {
        Keys(name, secret).hashed(kind, value)
        for name in ("a", "b")
        for secret in (SECRET, b"other secret ....")
        for kind in (b"address", b"prefix")
        for value in (b"1", b"2")
    }
    assert len(hashes) == 8
    keys = Keys("relay", SECRET)
    assert len({keys.sealing_key, keys.signing_key, Keys("relay", b"x").sealing_key}) == 3


def test_partitions_are_used_evenly() -> None:
    """Each has about as many addresses as the others."""
    keys = Keys("relay", SECRET)
    counts = Counter(partition_of(keys.hashed(b"address", str(number).encode())) for number in range(12_800))
    assert len(counts) == PARTITIONS
    assert 120 < min(counts.values()) <= max(counts.values()) < 280
