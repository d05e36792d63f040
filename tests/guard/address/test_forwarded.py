"""The ``Forwarded`` header: its nodes, and the addresses in them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.clientip import client_address
from pyryrelay.guard.address.forwarded import MAX_EMPTY_ELEMENTS, UNKNOWN_NODE, forwarded_for, node_address

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
MANY = 10_000
TOKENS = st.text(TOKEN_CHARACTERS, min_size=1, max_size=8)
QUOTABLE = st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]) | st.just("\t"), max_size=12)
OTHER_NAMES = TOKENS.filter(lambda name: name.lower() != "for")
BLANKS = st.sampled_from(["", "", " ", "\t", "  "])


@st.composite
def quoted(draw: st.DrawFn, text: str) -> str:
    """Draw a quoted-string for a text: what must be escaped is, and other characters sometimes are."""
    escaped = [f"\\{char}" if char in '"\\' or draw(st.booleans()) else char for char in text]
    return f'"{"".join(escaped)}"'


@st.composite
def values(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a parameter's value as written, and its meaning."""
    if draw(st.booleans()):
        token = draw(TOKENS)
        return token, token
    text = draw(QUOTABLE)
    return draw(quoted(text)), text


@st.composite
def elements(draw: st.DrawFn) -> tuple[str, str]:
    """Draw one element as written, and its node."""
    names = draw(st.lists(OTHER_NAMES, max_size=3, unique_by=str.lower))
    parts = [f"{name}={draw(values())[0]}" for name in names]
    node = UNKNOWN_NODE
    if draw(st.booleans()) or not parts:
        written, node = draw(values())
        parts.insert(draw(st.integers(0, len(parts))), f"{draw(st.sampled_from(['for', 'For', 'FOR']))}={written}")
    return f"{draw(BLANKS)};{draw(BLANKS)}".join(parts), node


class TestNodes:
    """`forwarded_for` reads the chain of nodes."""

    @pytest.mark.parametrize(
        ("lines", "nodes"),
        [
            ([], []),
            ([""], []),
            ([" , ,,\t"], []),
            (["for=192.0.2.43"], ["192.0.2.43"]),
            (['For="[2001:db8:cafe::17]:4711"'], ["[2001:db8:cafe::17]:4711"]),
            (["for=192.0.2.60;proto=http;by=203.0.113.43"], ["192.0.2.60"]),
            (
                ['for=192.0.2.43, for="[2001:db8:cafe::17]",for=unknown'],
                ["192.0.2.43", "[2001:db8:cafe::17]", "unknown"],
            ),
            (["for=_hidden, for=_SEVKISEK", "for=192.0.2.1"], ["_hidden", "_SEVKISEK", "192.0.2.1"]),
            (["proto=https, by=_x;FOR=192.0.2.1"], ["unknown", "192.0.2.1"]),
            ([";", ";;for=192.0.2.1;", ",;,"], ["unknown", "192.0.2.1", "unknown"]),
            (["for=a ;\tproto=http , for=b"], ["a", "b"]),
            (['for="a,b;c=d",for=e'], ["a,b;c=d", "e"]),
            ([r'for="\"\\\a"'], ['"\\a']),
            (['for=""'], [""]),
            (['for="\xe9\t "'], ["\xe9\t "]),
        ],
    )
    def test_each_element_has_one(self, lines: list[str], nodes: list[str]) -> None:
        """Nodes are read from the right over all lines, unquoted; a missing one is unknown."""
        assert list(forwarded_for(lines)) == nodes[::-1]

    @pytest.mark.parametrize(
        "line",
        [
            "for",
            "for=",
            "=192.0.2.1",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "192.0.2.1",
            "for=192.0.2.1 for=192.0.2.2",
            "for=192.0.2.1:80",
            "for=[2001:db8::1]",
            'for="192.0.2.1',
            'for="192.0.2.1\\"',
            'for="192.0.2.1\\',
            'for="192.0.2.1"x',
            'for=x"192.0.2.1"',
            "for='192.0.2.1, 192.0.2.2'",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1;FOR=192.0.2.1",
            "for=192.0.2.1;proto=http;Proto=http",
            "for=192.0.2.1\n",
            'for="\x7f"',
            'for="\\\x00"',
            'for="\u0100"',
            "f\u00f6r=192.0.2.1",
            "for=192.0.2.1/24",
        ],
    )
    def test_a_malformed_element_ends_the_reading(self, line: str) -> None:
        """A malformed element is not used, nor is any element left of it."""
        assert list(forwarded_for([line])) == [None]
        assert list(forwarded_for(["for=192.0.2.1", line, "for=192.0.2.2"])) == ["192.0.2.2", None]
        assert list(forwarded_for([f"for=192.0.2.1, {line}"])) == [None]
        assert next(forwarded_for([f"{line}, for=192.0.2.1"])) == "192.0.2.1"

    @pytest.mark.parametrize("opened", ['for="', 'for="x', 'for="\\"', 'for=x;by="[::1]', "," * MANY, "a=," * MANY])
    @pytest.mark.parametrize(
        ("appended", "node"),
        [
            ("for=198.51.100.4", "198.51.100.4"),
            ('for="[2001:db8::1]";host="example.org"', "[2001:db8::1]"),
            ('for=198.51.100.4;host="a, for=6.6.6.6"', "198.51.100.4"),
            ('for=198.51.100.4;host="a\\", for=6.6.6.6;x=\\"b"', "198.51.100.4"),
        ],
    )
    def test_what_stands_in_front_hides_nothing(self, opened: str, appended: str, node: str) -> None:
        """Whatever a client writes, the node that a proxy appends is read first, with its quotation marks."""
        assert next(forwarded_for([f"{opened}, {appended}"])) == node
        assert next(forwarded_for([opened, appended])) == node

    @pytest.mark.parametrize(
        "line", ['for="' + "," * MANY, 'for="' + "," * MANY + '"', f"for={'1' * MANY}", f'for="{"1" * MANY}"']
    )
    def test_an_element_is_bounded(self, line: str) -> None:
        """An element that is too long, or has too many commas, is malformed."""
        assert list(forwarded_for([line])) == [None]

    def test_a_long_chain_is_read_as_far_as_one_asks(self) -> None:
        """Reading a node costs what its element costs, however long the header is."""
        nodes = forwarded_for(["for=192.0.2.1," * MANY])
        assert [next(nodes) for _ in range(3)] == ["192.0.2.1"] * 3

    def test_empty_elements_are_bounded(self) -> None:
        """A bounded number of empty elements is ignored, over all lines together."""
        half = "," * (MAX_EMPTY_ELEMENTS // 2)
        assert list(forwarded_for([f"for=a{half}", f"{half}"[1:]])) == ["a"]
        assert list(forwarded_for([f"for=a{half}", f"{half}"])) == [None]
        assert list(forwarded_for([f"for=a{half}", f"for=b{half},"])) == ["b", None]

    @given(st.lists(st.lists(elements(), max_size=4), max_size=3), st.data())
    def test_what_was_written_is_read(self, lines: list[list[tuple[str, str]]], draws: st.DataObject) -> None:
        """A well-formed header gives back its nodes, whatever is between the elements."""
        commas = st.builds("{}{}{}".format, BLANKS, st.sampled_from([",", ",", ",,", ", ,"]), BLANKS)
        written = [draws.draw(commas).join(text for text, _ in line) for line in lines]
        assert list(forwarded_for(written)) == [node for line in lines for _, node in line][::-1]

    @given(st.lists(st.text() | st.text('for=;, "\\\t[]:.1a', max_size=40), max_size=3))
    def test_never_raises(self, lines: list[str]) -> None:
        """Any lines give texts, and None at most once, at the end."""
        *nodes, last = [*forwarded_for(lines)] or [None]
        assert all(isinstance(node, str) for node in nodes)
        assert isinstance(last, str | None)

    @given(st.lists(st.text('for=;, "\\1', max_size=30), max_size=4))
    def test_lines_are_read_one_by_one(self, lines: list[str]) -> None:
        """A header is read line by line, the last line first, as far as lines are well-formed."""
        expected: list[str | None] = []
        for line in reversed(lines):
            expected += forwarded_for([line])
            if None in expected:
                break
        assert list(forwarded_for(lines)) == expected


class TestAddresses:
    """`node_address` finds the address in a node."""

    @pytest.mark.parametrize(
        ("node", "address"),
        [
            ("192.0.2.43", "192.0.2.43"),
            ("192.0.2.43:80", "192.0.2.43:80"),
            ("192.0.2.43:_port", "192.0.2.43"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:DB8::1]:4711", "[2001:DB8::1]:4711"),
            ("[2001:db8::1]:_a-b.c", "[2001:db8::1]"),
            ("unknown", None),
            ("unknown:80", None),
            ("_hidden", None),
            ("_hidden:_port", None),
            ("", None),
            ("2001:db8::1", None),
            ("2001:db8::1:80", None),
            ("[fe80::1%eth0]", None),
            (" 192.0.2.43", None),
            ("192.0.2.43\n", None),
            ("192.0.2.43:", None),
            ("192.0.2.43:_", None),
            ("192.0.2.43:80:_x", None),
            ("example.org", None),
            ("\u0661\u0669\u0662.0.2.1", None),
        ],
    )
    def test_nodes_are_read_strictly(self, node: str, address: str | None) -> None:
        """An address may have a port, obfuscated or not; IPv6 needs its brackets; names are no addresses."""
        assert node_address(node) == address

    @given(st.ip_addresses(), st.none() | st.integers(0, 65_535) | st.just("_hidden"))
    def test_every_address_is_found(self, ip: IPv4Address | IPv6Address, port: int | str | None) -> None:
        """Any address in a node, quoted where it must be, gives its client."""
        host = str(ip) if ip.version == 4 else f"[{ip}]"
        (node,) = forwarded_for([f'for="{host}"' if port is None else f'for="{host}:{port}"'])
        assert node is not None
        address = node_address(node)
        assert address is not None
        assert client_address(address) == client_address(str(ip))
