"""The documentation as a whole: its links resolve, and what it names exists."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
from twisted.scripts._twistd_unix import ServerOptions

from pyryrelay.cli.command import complete_parser
from pyryrelay.cli.reference import every_parser
from pyryrelay.config.sources import COMMAND_LINE_ONLY
from pyryrelay.guard import LeaseLimits
from pyryrelay.mounts import Settings
from pyryrelay.nostr.tools import command as nostr

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NOT_OURS = {
    *("interface", "fdname", "http1", "signal", "upgrade"),
    *("cap-drop", "command", "publish", "read-only", "security-opt", "volume"),
    *("now", "upgrade"),
    *("adapter", "copy-config", "no-deps", "require-hashes", "requirement"),
}
"""Options of other programs that the pages mention, such as curl."""
UNSHOWN = {"fail2ban", "grafana", "prometheus", "toml", "README.md", "deb"}
"""Folders of contrib/ with files that no page has to show as a whole."""


def text_of(path: Path) -> str:
    """Return the text of a page."""
    return path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def options_of_twistd() -> set[str]:
    """Return the long options of twistd, without their dashes."""
    return {name.rstrip("=") for name in ServerOptions().longOpt}


def options_of_the_command() -> set[str]:
    """Return the long options of the command `pyryrelay`, without their dashes."""
    parsers = every_parser(complete_parser([nostr.add]))
    return {option.removeprefix("--") for parser in parsers for option in parser._option_string_actions}


def name_of(path: Path) -> str:
    """Return the name of a page in test reports."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    """A relative link leads to a file of the repository, and its anchor to a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_every_page_is_reached_from_the_index() -> None:
    """docs/README.md links to every page under docs."""
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", text_of(index))}
    assert {path for path in PAGES if path.is_relative_to(ROOT / "docs")} - linked == {index}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CONTRIBUTING.md"], ids=name_of)
def test_options_exist(page: Path) -> None:
    """An option that a page names in code belongs to the relay, to twistd or to another listed program."""
    ours = {name for option in Settings.options() for name in (option.name, f"no-{option.name}")}
    known = ours | {*COMMAND_LINE_ONLY, "help", "version"} | options_of_twistd() | options_of_the_command() | NOT_OURS
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])(?![\w-])", text_of(page)))
    assert named - known == set()


def test_toml_examples_are_settings() -> None:
    """Keys in TOML examples are options, and the examples of the service page are valid settings."""
    keys = {option.name for option in Settings.options()}
    page = text_of(ROOT / "docs" / "howto" / "run-as-a-service.md")
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert set(tomllib.loads(block)) <= keys


def test_the_pages_show_the_files_of_contrib() -> None:
    """A code block that shows a file is the file, and the pages that people start with show theirs."""
    showing: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "generate.py"))["showing"]()
    for name, text in showing.items():
        assert text_of(ROOT / "docs" / name) == text, f"docs/{name} is not current: run make docs"
    shown = {file for text in showing.values() for file in re.findall(r"^<!-- (contrib/\S+) -->$", text, re.MULTILINE)}
    missing = {path.relative_to(ROOT).as_posix() for path in (ROOT / "contrib").rglob("*.*")} - shown
    assert {Path(name).parts[1] for name in missing} <= UNSHOWN, missing


def test_the_readme_shows_how_to_run_and_test() -> None:
    """The first screen of the README has the literal commands, each on a line of its own."""
    first_screen = text_of(ROOT / "README.md").splitlines()[:45]
    for command in ("make run", "make test", "make demo", "    twistd pyryrelay --trust-x-forwarded-for"):
        assert any(line.strip().startswith(command.strip()) for line in first_screen), command
    assert "    make run" in first_screen
    assert "    make test" in first_screen
    assert "    twistd pyryrelay --trust-x-forwarded-for" in text_of(ROOT / "README.md").splitlines()


def test_the_readmes_defaults_are_the_programs() -> None:
    """Defaults in the README's table are those of the options."""
    rows = re.findall(r"^\| `--([a-z-]+)[^`]*`[^|]*\| `?([^`|]*?)`? \|", text_of(ROOT / "README.md"), re.MULTILINE)
    defaults = {option.name: option for option in Settings.options()}
    checked = 0
    for name, told in rows:
        if name in defaults:
            option = defaults[name]
            written = " ".join(option.type.write(option.default)) or "none"
            assert told == {"false": "off"}.get(written, written), name
            checked += 1
    assert checked >= 7


def test_the_tests_that_the_threat_model_names_exist() -> None:
    """Each row of the threat model names test files that exist and hold tests."""
    page = text_of(ROOT / "docs" / "explanation" / "threat-model.md")
    tables = [part.split("\n\n", 1)[0].splitlines()[2:] for part in page.split("| attack |")[1:]]
    assert len(tables) == 2
    rows = [row for table in tables for row in table]
    assert len(rows) >= 30
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5, row
        assert all(cells), row
        named = re.findall(r"`(tests/[\w/]+\.py)`", cells[4])
        assert named, row
        for name in named:
            assert re.search(r"^ *(async )?def test_|\.TestCase$", text_of(ROOT / name), re.MULTILINE), name


def test_the_threat_model_has_a_row_for_every_known_attack() -> None:
    """Each known attack on relays has its row, under the name that people search for."""
    page = text_of(ROOT / "docs" / "explanation" / "threat-model.md")
    attacks = "\n".join(re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE))
    for attack in (
        *("connection flood", "slow head", "slow body", "slow reader", "ping flood", "fragment flood"),
        *("oversized message", "header spoofing", "prefix rotation", "cap exhaustion by idling", "log flooding"),
        *("metrics scraping", "admin exposure"),
        *("event spam", "forged signatures", "subscription spam", "large messages", "complex filters", "slow reading"),
        *("extreme timestamps", "replayed challenges", "using up a victim's quota", "many addresses of one owner"),
        *("deleting what others have published", "a database that is wedged", "hammering the information document"),
    ):
        assert re.search(rf"^{attack}", attacks, re.MULTILINE | re.IGNORECASE), attack


def table(page: str, header: str) -> list[list[str]]:
    """Return the rows of the table whose header row begins like this."""
    lines = page.split(f"| {header} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_on_limits_knows_what_needs_a_restart() -> None:
    """docs/howto/tune-the-limits.md lists exactly the options that need a restart."""
    page = text_of(ROOT / "docs" / "howto" / "tune-the-limits.md")
    told = [name for row in table(page, "option | because") for name in re.findall(r"`--([a-z-]+)`", row[0])]
    assert sorted(told) == sorted(option.name for option in Settings.options() if option.restart)


def test_the_page_on_limits_has_every_quota_and_cap() -> None:
    """Each quota has its row, and each cap is named for some symptom."""
    page = text_of(ROOT / "docs" / "howto" / "tune-the-limits.md")
    quotas = [re.findall(r"`--([a-z-]+)`", row[0])[0] for row in table(page, "quota | counts")]
    assert sorted(quotas) == sorted(option.name for option in Settings.options() if option.name.endswith("-quota"))
    knobs = {name for row in table(page, "you see | it means") for name in re.findall(r"`--([a-z-]+)`", row[2])}
    caps = {option.name for option in Settings.options() if option.name.startswith("max-")} - {"max-message-bytes"}
    assert caps <= knobs
    assert set(quotas) <= knobs
    assert f"has {LeaseLimits().max_connections_per_address} connections, or 16 binaries" in page


def test_the_service_units_name_the_endpoint_of_their_socket() -> None:
    """The name of the socket unit is the one that the endpoint in the settings asks for."""
    page = text_of(ROOT / "docs" / "howto" / "run-as-a-service.md")
    [name] = re.findall(r"^FileDescriptorName=(\w+)$", page, re.MULTILINE)
    assert f'listen = ["systemd:domain=INET6:name={name}"]' in page


def test_pages_hold_no_local_paths() -> None:
    """No page holds a path of a developer's machine."""
    for page in PAGES:
        assert not re.search(r"(?<![\w.])(/root/|/home/|/tmp/)", text_of(page)), page
