"""The ``Forwarded`` header: nothing escapes, and what was read can be written and read again.

Input: the lines of the header in ISO 8859-1.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.guard.clientip import client_address
    from pyryrelay.guard.forwarded import forwarded_for, node_address


def check(data: bytes) -> None:
    """Read all lines, each one, and what they say written anew."""
    lines = data.decode("latin-1").split("\n")
    nodes = forwarded_for(lines)
    alone = [forwarded_for([line]) for line in lines]
    if None in alone:
        ensure(nodes is None, "one malformed line spoils the header")
        return
    ensure(nodes == [node for found in alone for node in found or ()], "lines are read in order")
    written = ", ".join(f'for="{_escaped(node)}"' for node in nodes or ())
    ensure(forwarded_for([written]) == nodes, "nodes can be written and read again")
    ensure(forwarded_for([f'{written}, for="x']) is None, "an open quotation is malformed")
    for node in nodes or ():
        address = node_address(node)
        if address is not None:
            ensure(address in node, "the address stands in its node")
            client_address(address)


def _escaped(node: str) -> str:
    return node.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    main(check)
