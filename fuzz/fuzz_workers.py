"""What processes of one relay send each other: messages of the mesh, questions, and lines of the log.

Input: one byte for the size of the pieces of the log, then the bytes, which are tried as each of the three.
"""

from __future__ import annotations

import json

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.observe.log_formats.passed_on import Passed, PassedOn, event_of
    from pyryrelay.observe.log_observer import RENDERERS
    from pyryrelay.workers.mesh.messages import Ended, HandedOver, MessageError, decode, encode, encode_head, join_heads
    from pyryrelay.workers.rpc import Rpc


class Said:
    """Notes what one end of a link is told to send."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def send(self, kind: str, **fields: object) -> None:
        """Note a message, which must be JSON."""
        json.dumps(fields)
        self.kinds.append(kind)

    def close(self) -> None:
        """Do nothing."""


def check(data: bytes) -> None:
    """Read the bytes as each of the three."""
    piece_bytes, body = (data[0] if data else 0) or 1, data[1:]
    check_mesh(body)
    check_question(body)
    check_log(body, piece_bytes)


def check_mesh(body: bytes) -> None:
    """Check that a message is refused in one way, or makes the same message again."""
    try:
        message = decode(body)
    except MessageError:
        return
    if isinstance(message, Ended | dict):
        ensure(decode(encode(message)) == message, "a message can be sent on")
        return
    heads = [each for each in message if isinstance(each, HandedOver)]
    ensure(len(heads) == len(message), "heads are heads")
    again = decode(b"".join(join_heads([encode_head(head) for head in heads])))
    ensure(again == message, "heads can be sent on")


def check_question(body: bytes) -> None:
    """Check that each question has one answer, and all else none."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(message, dict):
        return
    rpc, said = Rpc(), Said()
    rpc.attach(said)  # type: ignore[arg-type]
    rpc.on("known", lambda body: body)
    asked: list[object] = []
    rpc.ask("what").addBoth(asked.append)
    rpc.received(message)
    answers = [kind for kind in said.kinds if kind in ("answer", "failed")]
    ensure(len(answers) == (_is_question(message)), "a question has one answer")
    rpc.lost()
    ensure(len(asked) == 1, "a question has one outcome")


def _is_question(message: dict[str, object]) -> bool:
    wanted = {"type": str, "number": int, "name": str, "body": dict}
    fits = all(isinstance(message.get(key), kind) for key, kind in wanted.items())
    return fits and message["type"] == "ask"


def check_log(body: bytes, piece_bytes: int) -> None:
    """Check that lines are the same however they are divided, and can be rendered in each form."""
    reader, pieces = PassedOn(), PassedOn()
    whole = list(reader.feed(body))
    parts: list[Passed] = []
    for start in range(0, len(body), piece_bytes):
        parts += pieces.feed(body[start : start + piece_bytes])
    ensure(parts == whole, "the size of the pieces does not matter")
    for is_block, content in whole:
        event = None if is_block else event_of(content, 3)
        for render in RENDERERS.values() if event else ():
            text = render(event)  # type: ignore[arg-type]
            ensure(not text or text.endswith("\n"), "a line has an end")


if __name__ == "__main__":
    main(check)
