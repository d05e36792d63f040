"""The ``Forwarded`` header: nothing escapes, and what was read can be written and read again.

Input: the lines of the header in ISO 8859-1.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.guard.address.clientip import client_address
    from pyryrelay.guard.address.forwarded import forwarded_for, node_address


MOST_CHARACTERS = 500
MOST_COMMAS = 30


def check(data: bytes) -> None:
    """Read all lines, each one, and what they say written anew."""
    lines = data.decode("latin-1").split("\n")
    nodes = list(forwarded_for(lines))
    ensure(None not in nodes[:-1], "nothing is read left of a malformed element")
    good = [node for node in nodes if node is not None]
    ensure(list(forwarded_for(['for="', *lines])) in ([*nodes, None], nodes), "what stands in front changes nothing")
    # Escapes must not make an element longer than one may be.
    good = [node for node in good if len(_escaped(node)) < MOST_CHARACTERS and node.count(",") < MOST_COMMAS]
    written = ", ".join(f'for="{_escaped(node)}"' for node in reversed(good))
    ensure(list(forwarded_for([written])) == good, "nodes can be written and read again")
    ensure(list(forwarded_for([f'{written}, for="x'])) == [None], "an open quotation is malformed")
    for node in good:
        address = node_address(node)
        if address is not None:
            ensure(address in node, "the address stands in its node")
            client_address(address)


def _escaped(node: str) -> str:
    return node.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    main(check)
