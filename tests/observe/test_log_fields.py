"""What may be logged, read from the source: literal formats and fields that a room or a protocol allows, nothing else.

A format that a client can influence, or a field that was not reviewed, could leak frames, tokens or headers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from pyryrelay.mounts import Settings
from pyryrelay.observe.log import ALLOWED_FIELDS

SOURCE = Path(__file__).parents[2] / "src" / "pyryrelay"
LEVELS = frozenset({"debug", "info", "warn", "error", "critical"})
FAILURES = frozenset({"failure", "errback"})
LOGGER_NAME = "_log"
FIELDS = ALLOWED_FIELDS.union(*(protocol.log_fields for protocol in Settings.protocols))
OTHER_WAYS = frozenset({"logging", "msg", "err", "warnings"})


def named(node: ast.expr) -> str:
    """Return the last name of a dotted expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def is_logger(node: ast.expr) -> bool:
    """Tell whether an expression is a module's logger, however it is reached."""
    return named(node) == LOGGER_NAME


def complaints(tree: ast.Module) -> Iterator[str]:
    """Yield what is wrong with the log calls of a module, as ``line: problem``."""
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_logger(node.value):
            call = calls.get(node)
            problems = ["the logger's method is not called in place"] if call is None else judge(node.attr, call)
            yield from (f"{node.lineno}: {problem}" for problem in problems)
        elif isinstance(node, ast.Call) and named(node.func).endswith("Logger") and not is_the_modules(tree, node):
            yield f"{node.lineno}: a logger is a module's {LOGGER_NAME}"
        elif isinstance(node, ast.Import | ast.ImportFrom) and {alias.name for alias in node.names} & OTHER_WAYS:
            yield f"{node.lineno}: another way to log"


def is_the_modules(tree: ast.Module, call: ast.Call) -> bool:
    """Tell whether a call is that of a module-level statement ``_log = Logger(...)``."""
    return any(
        isinstance(statement, ast.Assign) and statement.value is call and all(map(is_logger, statement.targets))
        for statement in tree.body
    )


def judge(level: str, call: ast.Call) -> list[str]:
    """Yield what is wrong with one call of a logger."""
    if level not in LEVELS | FAILURES:
        return [f"{level!r} is no level"]
    if not call.args or not isinstance(call.args[0], ast.Constant) or not isinstance(call.args[0].value, str):
        return ["the format is not one literal string"]
    # A failure may be given where it is not the exception being handled.
    if len(call.args) > (2 if level == "failure" else 1):
        return ["the format is not one literal string"]
    fields = {keyword.arg for keyword in call.keywords}
    placeholders = list(placeholders_of(call.args[0].value))
    if level in FAILURES:
        return ["a failure takes a literal only"] if fields or placeholders else []
    problems = []
    if None in fields:
        problems.append("fields are unpacked from a mapping")
    problems += [f"placeholder {name!r} has no field" for name in placeholders if name not in fields]
    problems += [f"field {name!r} is not allowed" for name in sorted(fields - {None} - FIELDS, key=str)]
    return problems


def placeholders_of(text: str) -> Iterator[str]:
    """Return the names of a format's placeholders; attributes, items and calls are left in the name."""
    for _, name, spec, _ in Formatter().parse(text):
        if name is not None:
            yield name
            yield from placeholders_of(spec or "")


def test_every_log_call_is_literal_and_reviewed() -> None:
    """All log calls of the package have a literal format and allowed fields."""
    found = [
        f"{path.relative_to(SOURCE)}:{problem}"
        for path in sorted(SOURCE.rglob("*.py"))
        for problem in complaints(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_the_reader_sees_the_calls() -> None:
    """The reader finds log calls, so that the test above checks something."""
    calls = sum(path.read_text(encoding="utf-8").count(f"{LOGGER_NAME}.") for path in SOURCE.rglob("*.py"))
    assert calls > 10


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('_log.info(f"hello {name}")', "not one literal"),
        ('_log.info("hello " + name)', "not one literal"),
        ('_log.info("hello {}".format(name))', "not one literal"),
        ("_log.info(text)", "not one literal"),
        ("_log.info()", "not one literal"),
        ("_log.info(format='hello')", "not one literal"),
        ('_log.info("hello", name)', "not one literal"),
        ('_log.info(*["hello"])', "not one literal"),
        ('_log.info(b"hello")', "not one literal"),
        ('_log.info("hello {code}")', "placeholder 'code' has no field"),
        ('_log.info("hello {code!r} {count}", code=1)', "placeholder 'count' has no field"),
        ('_log.info("{code.real}", code=1)', "placeholder 'code.real' has no field"),
        ('_log.info("{code[0]}", code=1)', "placeholder 'code[0]' has no field"),
        ('_log.info("{code:{width}}", code=1)', "placeholder 'width' has no field"),
        ('_log.info("hello", payload=frame)', "field 'payload' is not allowed"),
        ('_log.info("hello {code}", code=1, token=t)', "field 'token' is not allowed"),
        ('_log.warn("hello", **fields)', "unpacked"),
        ('_log.failure(f"failed {x}")', "not one literal"),
        ('_log.failure("failed {code}", code=1)', "a literal only"),
        ('_log.failure("failed", failure=f)', "a literal only"),
        ('_log.failure("failed {code}", failure)', "a literal only"),
        ('_log.failure("failed", failure, level)', "not one literal"),
        ("_log.errback(text)", "not one literal"),
        ('_log.errback("failed", failure)', "not one literal"),
        ('_log.errback("failed {code}")', "a literal only"),
        ('_log.emit(level, "hello")', "is no level"),
        ('self._log.info("hello", payload=frame)', "field 'payload' is not allowed"),
        ("say = _log.info", "not called in place"),
        ('logger = Logger(namespace="x")', "a module's _log"),
        ("class A:\n    log = Logger()", "a module's _log"),
        ("log = QuickLogger()", "a module's _log"),
        ("import logging", "another way"),
        ("from twisted.python.log import msg", "another way"),
    ],
)
def test_planted_violations_are_found(source: str, problem: str) -> None:
    """The reader finds each way around the rules."""
    found = list(complaints(ast.parse(source)))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "source",
    [
        '_log = Logger(namespace="pyryrelay")',
        '_log.info("hello")',
        '_log.info("hello {code!r} {count:d}", code=f(x), count=2, reason="y")',
        '_log.warn("a literal " "in two parts {code}", code=1)',
        '_log.failure("An application failed")',
        '_log.failure("An application failed", failure)',
        'self.log.info(f"another logger")',
    ],
)
def test_correct_calls_are_accepted(source: str) -> None:
    """The reader accepts calls that follow the rules."""
    assert list(complaints(ast.parse(source))) == []
