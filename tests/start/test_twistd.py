"""The relay under twistd: the plugin's entry point, failures that end the process, and signals."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.service import Machine
from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from pyryrelay.listen.listeners import Listeners
from pyryrelay.mounts import Settings
from pyryrelay.service import RelayService
from pyryrelay.start.twistd import Options, TwistdService, makeService

PUBLIC, ADMIN = 8080, 9090


def made(machine: Machine, *arguments: str, pidfile: str | None = None, status_pipe: int | None = None) -> RelayService:
    """Return what makeService returns for a command line, within what twistd sets up."""
    options = Options(environ={}, reactor=machine)
    if pidfile is not None or status_pipe is not None:
        parent = usage.Options()
        parent["pidfile"] = pidfile
        parent["statusPipe"] = status_pipe
        options.parent = parent
    options.parseOptions(arguments)
    service = makeService(options, machine)
    assert isinstance(service, RelayService)
    return service


class Signals:
    """The signal handlers of the process, in place of the real ones."""

    def __init__(self) -> None:
        self.handlers: dict[int, Any] = {}

    def signal(self, number: int, handler: Any) -> None:
        self.handlers[number] = handler

    def send(self, number: int) -> None:
        self.handlers[number](number, None)


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> Signals:
    """Signal handlers, none of which is installed yet."""
    signals = Signals()
    monkeypatch.setattr(signal, "signal", signals.signal)
    return signals


ALL = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2}


def test_the_service(machine: Machine) -> None:
    """The service has a name, the settings of the command line and the given reactor, and listens on nothing yet."""
    service = made(machine, "--max-phones", "3")
    assert IService.providedBy(service)
    assert service.name == "pyryrelay"
    assert isinstance(service.settings, Settings)
    assert service.settings.max_phones == 3
    assert machine.history == []
    service.privilegedStartService()
    assert machine.listening == [PUBLIC, ADMIN]


def test_the_reactor_that_twistd_chose(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the reactor is the installed one, looked up when the service is made."""
    monkeypatch.setattr("twisted.internet.reactor", machine)
    service = makeService(Options(environ={}))
    service.privilegedStartService()
    assert machine.listening == [PUBLIC, ADMIN]


@pytest.fixture
def standard_error(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """The real standard error; twistd has replaced `sys.stderr` by the time the relay starts."""
    text = StringIO()
    monkeypatch.setattr(sys, "__stderr__", text)
    return text


def test_a_port_in_use_ends_the_process(machine: Machine, standard_error: StringIO, tmp_path: Path) -> None:
    """A port in use ends the process with exit code 2 and a line on standard error, without a pidfile."""
    pidfile = tmp_path / "twistd.pid"
    pidfile.write_text("1")
    machine.take(PUBLIC)
    service = made(machine, pidfile=str(pidfile))
    with captured() as log, pytest.raises(SystemExit) as caught:
        service.privilegedStartService()
    assert caught.value.code == 2
    assert caught.value.__suppress_context__
    (line,) = standard_error.getvalue().splitlines()
    assert line.startswith("pyryrelay: --listen 'tcp:8080:interface=127.0.0.1': cannot listen: ")
    assert log.texts == [line.removeprefix("pyryrelay: ")]
    assert not pidfile.exists()


def test_the_parent_of_a_daemon_is_told(machine: Machine, standard_error: StringIO) -> None:
    """In the background the error is written to the pipe on which the parent process waits."""
    machine.take(PUBLIC)
    read_end, write_end = os.pipe()
    try:
        with captured(), pytest.raises(SystemExit):
            made(machine, status_pipe=write_end).privilegedStartService()
        assert os.read(read_end, 200).startswith(b"1 pyryrelay: --listen 'tcp:8080:interface=127.0.0.1'")
    finally:
        os.close(read_end)
        os.close(write_end)


def test_no_standard_error_to_write_to(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With standard error closed, the exit code is the same."""
    monkeypatch.setattr(sys, "__stderr__", None)
    machine.take(PUBLIC)
    with captured(), pytest.raises(SystemExit) as caught:
        made(machine).privilegedStartService()
    assert caught.value.code == 2


@pytest.mark.parametrize("pidfile", [None, "", "there-is-no-such-file"])
def test_no_pidfile_to_remove(
    machine: Machine, pidfile: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pidfile, the exit code is the same."""
    monkeypatch.chdir(tmp_path)
    machine.take(ADMIN)
    with captured(), pytest.raises(SystemExit) as caught:
        made(machine, pidfile=pidfile).privilegedStartService()
    assert caught.value.code == 2


def test_signals_are_taken_over_before_the_first_port_is_open(
    machine: Machine, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signal handlers are installed before the first port opens, and again by the reactor when it starts."""
    found: list[set[int]] = []
    monkeypatch.setattr(Listeners, "open", lambda *arguments, **others: found.append(set(signals.handlers)))
    made(machine).privilegedStartService()
    assert found == [ALL, ALL]
    handlers = {signals.handlers[signal.SIGTERM], signals.handlers[signal.SIGINT]}
    assert handlers == {vars(machine)["sigTerm"], vars(machine)["sigInt"]}


def test_a_hangup_does_no_harm_before_there_is_a_relay(
    machine: Machine, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGHUP before the relay runs is remembered and causes one reload."""
    reloads: list[None] = []
    monkeypatch.setattr(RelayService, "reload", lambda service: reloads.append(None))

    def read(options: Options) -> Settings:
        signals.send(signal.SIGHUP)
        return Settings()

    monkeypatch.setattr(Options, "read", read)
    service = made(machine, pidfile="")
    assert set(signals.handlers) == {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    assert signals.handlers[signal.SIGUSR1] == signals.handlers[signal.SIGUSR2] == signal.SIG_IGN
    assert reloads == []
    service.privilegedStartService()
    assert len(reloads) == 1
    signals.send(signal.SIGHUP)
    assert len(reloads) == 2


def test_options_outside_of_twistd_touch_no_signals(machine: Machine, signals: Signals) -> None:
    """Options that are parsed outside of twistd install no signal handler."""
    made(machine)
    assert signals.handlers == {}


def test_options_that_are_parsed_in_a_thread(machine: Machine, signals: Signals) -> None:
    """Options that are parsed in another thread install no signal handler."""
    thread = threading.Thread(target=lambda: made(machine, pidfile=""))
    thread.start()
    thread.join()
    assert signals.handlers == {}


def test_no_signal_counts_after_the_end(machine: Machine, signals: Signals) -> None:
    """After the reactor has stopped, a signal changes nothing."""
    made(machine).privilegedStartService()
    ((call, _, _),) = machine.triggers["after"]["shutdown"]
    call()
    assert signals.handlers == dict.fromkeys({*ALL, signal.SIGUSR1}, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_reactor(machine: Machine, signals: Signals, number: int) -> None:
    """A signal stops the reactor in order, with exit code 0."""
    made(machine).startService()
    signals.send(number)
    assert machine.stops == 1


def test_a_second_signal_ends_the_drain(machine: Machine, signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal ends the drain, and does not stop the reactor twice."""
    service = made(machine)
    hurried: list[None] = []
    monkeypatch.setattr(service, "skip_drain", lambda: hurried.append(None))
    service.startService()
    signals.send(signal.SIGTERM)
    signals.send(signal.SIGINT)  # In the same turn of the reactor, before the service has begun to stop.
    service.stopService()
    signals.send(signal.SIGTERM)
    assert machine.stops == 1
    assert len(hurried) == 2


class Application(MultiService, Componentized):
    """An application, as twistd makes it."""

    def __init__(self) -> None:
        MultiService.__init__(self)
        Componentized.__init__(self)


@contextmanager
def joined(machine: Machine, *arguments: str, **twistd_options: object) -> Iterator[ILogObserver | None]:
    """Return the observer of an application that the relay has joined."""
    parent = usage.Options()
    parent.update({"pidfile": None, "logfile": None, "nodaemon": True, **twistd_options})
    options = Options(environ={}, reactor=machine)
    options.parent = parent
    options.parseOptions(arguments)
    application = Application()
    service = makeService(options, machine)
    assert isinstance(service, TwistdService)
    service.setServiceParent(application)
    components: Any = application
    yield components.getComponent(ILogObserver, None)
    if (file := vars(service).get("_log_file")) is not None:
        file.close()


def test_a_log_file_is_the_relays_own(machine: Machine, signals: Signals, tmp_path: Path) -> None:
    """SIGUSR1 opens the log file again after it was moved away."""
    path = tmp_path / "relay.log"
    with joined(machine, logfile=str(path)) as observer:
        assert observer is not None
        Logger(observer=observer).info("before")
        path.rename(tmp_path / "moved.log")
        signals.send(signal.SIGUSR1)
        Logger(observer=observer).info("after")
    assert ("after" in path.read_text(), "before" in path.read_text()) == (True, False)


def test_other_logs_are_twistds(machine: Machine, signals: Signals) -> None:
    """Syslog is left to twistd, and SIGUSR1 does nothing then."""
    with joined(machine, syslog=True, logfile="x") as observer:
        assert observer is None
    assert signals.handlers[signal.SIGUSR1] == signal.SIG_IGN


@pytest.mark.parametrize("twistd_options", [{}, {"logfile": "-"}])
def test_standard_output(
    machine: Machine, signals: Signals, twistd_options: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the lines that twistd would write, from our observer, which is faster; SIGUSR1 does nothing."""
    with joined(machine, **twistd_options) as observer:
        assert observer is not None
        theirs = StringIO()
        for one in (observer, textFileLogObserver(theirs)):
            Logger(observer=one, namespace="pyryrelay").info("metrics on {endpoint}", endpoint="tcp:1")
    ours = capsys.readouterr().out
    assert ours.partition(" ")[2] == theirs.getvalue().partition(" ")[2] == "[pyryrelay#info] metrics on tcp:1\n"
    assert signals.handlers[signal.SIGUSR1] == signal.SIG_IGN


def test_the_file_can_be_json(machine: Machine, signals: Signals, tmp_path: Path) -> None:
    """The format, the size and the number of files are the relay's options."""
    path = tmp_path / "relay.log"
    for number in (1, 2, 3):
        (tmp_path / f"relay.log.{number}").write_text("old")
    with joined(machine, "--log-format", "json", "--log-keep", "2", logfile=str(path)) as observer:
        assert observer is not None
        Logger(observer=observer, namespace="pyryrelay").info("metrics on {endpoint}", endpoint="tcp:1")
        signals.send(signal.SIGUSR1)
    assert json.loads((tmp_path / "relay.log.1").read_text())["event"] == "metrics_on"
    assert not (tmp_path / "relay.log.3").exists()


def test_standard_output_can_be_json(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """So can standard output."""
    with joined(machine, "--log-format", "json") as observer:
        assert observer is not None
        Logger(observer=observer, namespace="pyryrelay").info("metrics on {endpoint}", endpoint="tcp:1")
    assert json.loads(capsys.readouterr().out)["endpoint"] == "tcp:1"


@pytest.mark.parametrize(
    ("twistd_options", "warns"), [({"syslog": True}, True), ({"logger": print}, True), ({"logfile": "-"}, False)]
)
def test_a_format_that_others_choose(machine: Machine, twistd_options: dict[str, object], warns: bool) -> None:
    """Where twistd logs elsewhere, JSON is not to be had, and a warning says so."""
    service = made(machine, "--log-format", "json", "--listen", "tcp:0", "--admin-listen=")
    assert isinstance(service, TwistdService)
    service.twistd_options = twistd_options
    with captured() as log:
        service.startService()
    assert any("--log-format json" in text for text in log.texts) == warns


def test_a_log_that_cannot_be_opened(machine: Machine, standard_error: StringIO, tmp_path: Path) -> None:
    """A log that cannot be opened ends the start with one line and exit code 2."""
    with pytest.raises(SystemExit) as caught, joined(machine, logfile=str(tmp_path)):
        pass
    assert caught.value.code == 2
    assert standard_error.getvalue().startswith(f"pyryrelay: --logfile (of twistd): '{tmp_path}' cannot be opened: ")
