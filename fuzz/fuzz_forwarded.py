"""The ``Forwarded`` header: no exception is raised, and nodes can be serialized and parsed again.

Input: the lines of the header in ISO 8859-1.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.guard.address.clientip import client_address
    from pyryrelay.guard.address.forwarded import forwarded_for, node_address


MAX_CHARACTERS = 500
MAX_COMMAS = 30


def check(data: bytes) -> None:
    """Parse all lines, then parse what was found again."""
    lines = data.decode("latin-1").split("\n")
    nodes = list(forwarded_for(lines))
    ensure(None not in nodes[:-1], "parsing stops at a malformed element")
    good = [node for node in nodes if node is not None]
    ensure(list(forwarded_for(['for="', *lines])) in ([*nodes, None], nodes), "elements on the left do not matter")
    # Escaped nodes may exceed the length limit; leave them out.
    good = [node for node in good if len(_escaped(node)) < MAX_CHARACTERS and node.count(",") < MAX_COMMAS]
    written = ", ".join(f'for="{_escaped(node)}"' for node in reversed(good))
    ensure(list(forwarded_for([written])) == good, "nodes can be serialized and parsed again")
    ensure(list(forwarded_for([f'{written}, for="x'])) == [None], "an unterminated quoted string is malformed")
    for node in good:
        address = node_address(node)
        if address is not None:
            ensure(address in node, "the address is part of its node")
            client_address(address)


def _escaped(node: str) -> str:
    return node.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    main(check)
