"""``pyryrelay probe``: visit a relay like its clients, and explain what is wrong."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.arguments import positive_seconds
from pyryrelay.cli.output import Output
from pyryrelay.cli.probe.prober import RelayProber
from pyryrelay.cli.probe.sockets import tls_context
from pyryrelay.cli.probe.steps import State, Step, Steps
from pyryrelay.cli.probe.target import Target, target
from pyryrelay.cli.protocol_commands import CommandError
from pyryrelay.mounts import Settings
from pyryrelay.protocol_options import Probe, ProbeError

__all__ = ["add"]

DEFAULT_TIMEOUT_S: Final = 10.0

_EXAMPLES: Final = """\
examples:
  pyryrelay probe wss://relay.example              as the clients of pyry: both sides of a pair talk
  pyryrelay probe --nostr wss://relay.example      as a Nostr client: document, REQ to EOSE
  pyryrelay probe --nostr --publish wss://relay.example
  pyryrelay probe ws://127.0.0.1:8080              without TLS and the proxy in front
  pyryrelay probe wss://relay.example --json | jq '.steps[] | select(.state != "ok")'
  */5 * * * * pyryrelay probe --strict wss://relay.example >/dev/null
                                                   in a crontab: mail if something is wrong, or soon will be

It works with every relay of the protocol, and needs no access to the machine of the relay. It prints each step with its
time, and stops at the first one that fails, with what is wrong and the fix. It spends the quota of this address like
any client: one attempt, or two for a pair.

A certificate that ends within 14 days, and whatever else is not as it should be, is a warning. With --strict a
warning is a problem.

exit codes: 0 all is well, 1 something is wrong, 2 wrong command line
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    probe = commands.add_parser(
        "probe", help="visit a relay like its clients, and explain what is wrong", epilog=_EXAMPLES, parents=[common]
    )
    probe.add_argument(
        "url", metavar="URL", type=target, help="ws:// or wss://, host, and the path if the relay has one of its own"
    )
    probes: dict[str, Probe] = {protocol.name: protocol.probe() for protocol in Settings.protocols}
    default = next(iter(probes))
    choice = probe.add_mutually_exclusive_group()
    for name, one in probes.items():
        text = f"probe a relay of {name}, as {one.visitor}{' (the default)' if name == default else ''}"
        choice.add_argument(f"--{name}", dest="probe", action="store_const", const=name, default=default, help=text)
    text = f"seconds that each step may take (default: {DEFAULT_TIMEOUT_S:g})"
    probe.add_argument("--timeout", metavar="SECONDS", type=positive_seconds, default=DEFAULT_TIMEOUT_S, help=text)
    probe.add_argument("--strict", action="store_true", help="exit with 1 for warnings, too")
    probe.add_argument("--ca", metavar="FILE", help="trust the authorities, or the certificate, in this PEM file")
    probe.add_argument("--insecure", action="store_true", help="go on with a certificate that cannot be verified")
    for one in probes.values():
        one.add_options(probe)
    probe.set_defaults(run=_probe, probes=probes)


def _probe(client: AdminClient, arguments: argparse.Namespace, output: Output) -> int:
    relay: Target = arguments.url
    _check_authorities(arguments.ca)
    steps = Steps(time.perf_counter, (lambda step: None) if output.as_json else _writer(output))
    prober = RelayProber(relay, steps, arguments.timeout, arguments.ca, verify=not arguments.insecure)
    problem: ProbeError | None = None
    try:
        arguments.probes[arguments.probe].visit(prober, arguments)
    except ProbeError as error:
        problem = error
    finally:
        prober.close()
    warnings = [step for step in steps.taken if step.state is State.WARNING]
    is_well = problem is None and not (warnings and arguments.strict)
    seconds = sum(step.seconds for step in steps.taken)
    if output.as_json:
        taken = [step.as_json() for step in steps.taken]
        output.json({"url": str(relay), "ok": is_well, "seconds": round(seconds, 6), "steps": taken})
        return 0 if is_well else 1
    if problem is not None:
        raise CommandError(f"{relay}: {steps.taken[-1].name}: {problem.problem}; {problem.fix}")
    if not is_well:
        first = warnings[0]
        raise CommandError(f"{relay}: {first.name}: {first.detail}; {first.fix}")
    output.message(f"{relay} is well: {seconds * 1000:.0f} ms in all")
    return 0


def _check_authorities(file: str | None) -> None:
    """Raise `CommandError` for a file of authorities that cannot be used."""
    if file is None:
        return
    try:
        tls_context(file, verify=True)
    except OSError as error:
        cause = error.strerror or str(error)
        raise CommandError(f"--ca {file!r} cannot be used ({cause}): name a PEM file of certificates") from None


_MARKS: Final = {State.OK: "ok", State.WARNING: "warning", State.PROBLEM: "FAILED"}


def _writer(output: Output) -> Any:
    """Return what writes a step when it is over: aligned for people, a row with tabs in a pipe."""

    def write(step: Step) -> None:
        time_ms = f"{step.seconds * 1000:.1f} ms"
        fix = f"; {step.fix}" if step.state is State.WARNING else ""
        if output.is_terminal:
            output.lines([f"{_MARKS[step.state]:<8}{step.name:<26}{time_ms:>11}  {step.detail}{fix}"])
        else:
            output.table(("", "", "", ""), [(_MARKS[step.state], step.name, time_ms, f"{step.detail}{fix}")])
        output.stream.flush()

    return write
