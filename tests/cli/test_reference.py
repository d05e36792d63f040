"""The documentation that is made from the parser."""

from __future__ import annotations

import argparse

from pyryrelay.cli.arguments import Parser, common_options
from pyryrelay.cli.command import COMMANDS, complete_parser
from pyryrelay.cli.reference import every_parser, reference, summaries


def parser() -> argparse.ArgumentParser:
    """Return a parser with a command of two levels."""
    common = common_options()
    whole = Parser(prog="tool", parents=[common])
    commands = whole.add_subparsers(metavar="COMMAND")
    tree = commands.add_parser("tree", help="care for trees", epilog="examples:\n  tool tree plant oak\n\nbye\n")
    trees = tree.add_subparsers()
    plant = trees.add_parser(
        "plant", help="plant a | tree", parents=[common], epilog="examples:\n  tool tree plant oak"
    )
    plant.add_argument("kind", metavar="KIND", help="which kind")
    plant.add_argument("--deep", type=int, default=3, help="how deep (default: %(default)s)")
    plant.add_argument("--side", choices=("n", "s"))
    trees.add_parser("fell", help="fell one", description="Fell a tree.\n")
    return whole


def test_every_parser_is_found() -> None:
    """All levels are walked through, depth first."""
    assert [one.prog for one in every_parser(parser())] == ["tool", "tool tree", "tool tree plant", "tool tree fell"]


def test_the_page() -> None:
    """Each command has its line, its usage, its arguments without the shared ones, and its examples."""
    text = reference(parser())
    assert "| `--admin URL` | " in text
    assert "| [`tool tree plant`](#tool-tree-plant) | plant a \\| tree |\n" in text
    assert "\n## tool tree\n\nCare for trees.\n\n    examples:\n      tool tree plant oak\n\n    bye\n" in text
    plant = text[text.index("\n## tool tree plant\n") : text.index("\n## tool tree fell\n")]
    assert plant.startswith("\n## tool tree plant\n\nPlant a | tree.\n\n    tool tree plant [-h] [--admin URL]")
    assert "| `KIND` | which kind |\n| `--deep DEEP` | how deep (default: 3) |\n| `--side n\\|s` |  |\n" in plant
    assert plant.endswith("\n\n    examples:\n      tool tree plant oak\n")
    assert "--json" not in plant.partition("\n\n|")[2]
    assert text.endswith("## tool tree fell\n\nFell a tree.\n\n    tool tree fell [-h]\n")


def test_all_commands_have_the_line_of_the_help() -> None:
    """The short help, which loads no command, says the same as the complete one."""
    assert summaries(complete_parser()) == COMMANDS
