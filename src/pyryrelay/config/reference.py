"""How the options are explained to people: ``--help`` and docs/reference/options.md, both made from
`Settings`. PURE.

Lines of the help keep within the width asked for, except where one word is longer.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from pyryrelay.config.guard_options import QUOTAS
from pyryrelay.config.settings import OPTIONS
from pyryrelay.config.sources import ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from pyryrelay.config.sources import Option

CONFIG_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}CONFIG"

CONFIG_HELP: Final = (
    "Read settings from this TOML file, whose keys are the names of the options below. "
    f"The environment variable `{CONFIG_VARIABLE}` can name it too."
)
CHECK_HELP: Final = (
    "Look for everything that a start would stumble over (settings, files, certificates, ports that are taken) without "
    "changing anything, print warnings and the effective settings, and exit: 0 when the relay would start, 2 when it "
    "would not. Beside a running relay, the ports that it holds are no fault."
)
WHOAMI_HELP: Final = (
    "With `--check`: explain step by step which client is behind a peer (an address, or `unix`) that sends this value "
    "of the forwarding header, such as `--whoami '10.0.0.7 203.0.113.9, 10.0.0.8'`. May be repeated."
)
HELP_HELP: Final = "Show the options and exit."
VERSION_HELP: Final = "Show the version of pyryrelay and exit."

_PROGRAM_OPTIONS: Final = (
    ("--config FILE", CONFIG_HELP),
    ("--check", CHECK_HELP),
    ("--whoami 'PEER [VALUE]'", WHOAMI_HELP),
    ("--help", HELP_HELP),
    ("--version", VERSION_HELP),
)

EXAMPLES: Final = """\
Three ways to run it:

  Try it on this machine, in the foreground:

    twistd -n pyryrelay

  Behind nginx on the same machine, which terminates TLS and appends to
  X-Forwarded-For:

    twistd -n pyryrelay --trust-x-forwarded-for --trusted-proxy 127.0.0.1

  From a file, checked first and then run; a value on the command line wins:

    twistd pyryrelay --config relay.toml --check
    twistd -n pyryrelay --config relay.toml --upgrade-quota "30/minute burst 60"

Every option is also a key in the file given by --config (grace = 30) and an
environment variable (PYRYRELAY_GRACE=30). The command line wins over the
environment, the environment over the file. Options that may be repeated replace
those of a lower place all together; "" stands for none. In the environment
their values are separated by blanks, in the file they are an array.
"""

_REFERENCE_HEAD: Final = """\
# Options

<!-- Generated: change src/pyryrelay/config/settings.py, then run
     python -m pyryrelay.cli.twistd_options > docs/reference/options.md -->

`twistd [options of twistd] pyryrelay [options]`. Every option can be given in three places. The command line
wins over the environment, the environment over the file.

| place | one value | several values |
|---|---|---|
| command line | `--grace 60` | `--deny 192.0.2.0/24 --deny 2001:db8::/32` |
| environment | `PYRYRELAY_GRACE=60` | `PYRYRELAY_DENY="192.0.2.0/24 2001:db8::/32"` |
| TOML file | `grace = 60` | `deny = ["192.0.2.0/24", "2001:db8::/32"]` |

- A switch is turned on by `--NAME` and off by `--no-NAME` on the command line, by `true`, `yes`, `on`, `1` and
  `false`, `no`, `off`, `0` in the environment, and by `true` and `false` in the file.
- A repeatable option replaces the values of a lower place all together. An empty value (`--deny ""`,
  `deny = []`) stands for none.
- Keys of the file may be written with underscores. A key that is no option is refused, and so is a variable
  `PYRYRELAY_...` that is nearly one; other variables of that prefix are left alone.
- Anything wrong ends the start with one line on standard error that names the option, the value, where it came
  from and the fix, and with exit code 2. A value is checked even where a higher place replaces it.

These are for the command line only:

"""


_QUOTAS_TEXT: Final = """\
A quota is `N/PERIOD [burst B]`: `10/minute burst 20` is a bucket of 20 tokens that gains one every 6 seconds. Without
a burst, it equals N. PERIOD is `second`, `minute`, `hour`, `day` or `s`, `m`, `h`, `d`, the letters with a number if
needed (`5m`). Quotas of bytes may use `KiB`, `MiB` and `GiB`. `off` turns a quota off.
"""


def help_text(width: int) -> str:
    """What ``--help`` prints below the synopsis: the options by group, then worked examples."""
    lines = ["This command"]
    for usage_line, text in _PROGRAM_OPTIONS:
        lines += _help_lines(usage_line, text, width)
    group = ""
    for about in OPTIONS:
        if about.group != group:
            group = about.group
            lines += ["", group]
        lines += _help_lines(_usage_line(about), f"{about.help} [default: {_default(about)}]", width)
    return "\n".join(["", *lines, "", EXAMPLES])


def _usage_line(about: Option) -> str:
    if about.kind.flag:
        return f"--{about.name}, --no-{about.name}"
    return f"--{about.name} {about.kind.metavar}{' (repeatable)' if about.kind.repeatable else ''}"


def _default(about: Option) -> str:
    return " ".join(about.kind.write(about.default)) or "none"


def _help_lines(usage_line: str, text: str, width: int) -> list[str]:
    indent = " " * 8
    wrapper = textwrap.TextWrapper(
        width=width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    described = wrapper.wrap(text.replace("`", ""))
    wrapper.initial_indent = "  "
    return [*wrapper.wrap(usage_line), *described]


def reference() -> str:
    """The text of docs/reference/options.md."""
    program = [f"- `{usage_line}`: {text}" for usage_line, text in _PROGRAM_OPTIONS]
    rows = [f"| [`--{o.name}`](#--{o.name}) | `{_default(o)}` | {o.group} |" for o in OPTIONS]
    overview = ["", "| option | default | about |", "|---|---|---|", *rows, ""]
    return _REFERENCE_HEAD + "\n".join([*program, *overview, *_quotas(), *map(_section, OPTIONS)])


def _quotas() -> list[str]:
    """All quotas in one table, with what they default to and why."""
    rows = [f"| [`--{o.name}`](#--{o.name}) | `{_default(o)}` | {_cell(o.why)} |" for o in OPTIONS if o.group == QUOTAS]
    return [f"## Quotas\n\n{_QUOTAS_TEXT}", "| quota | default | why |", "|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    """`text` for a cell of a table, where a bar would end it."""
    return text.replace("|", "\\|")


def _section(about: Option) -> str:
    rows = (
        ("default", f"`{_default(about)}`"),
        ("values", about.kind.fix.removeprefix("write ") + ("; repeatable" if about.kind.repeatable else "")),
        ("command line", f"`{_command_line_example(about)}`"),
        ("environment", f"`{about.environment}={_shell_quoted(' '.join(about.example))}`"),
        ("TOML", f"`{about.name} = {about.toml(about.kind.read(about.example))}`"),
    )
    table = "\n".join(f"| {name} | {_cell(text)} |" for name, text in rows)
    return f"## --{about.name}\n\n{about.help}\n\n| | |\n|---|---|\n{table}\n\nWhy this default: {about.why}\n"


def _command_line_example(about: Option) -> str:
    if about.kind.flag:
        return f"--{about.name}"
    return " ".join(f"--{about.name} {_shell_quoted(text)}" for text in about.example)


def _shell_quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text
