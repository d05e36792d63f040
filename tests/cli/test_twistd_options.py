"""The command line of twistd's plugin: what it accepts, and that every error is one line and exit code 2."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.application.app import ServerOptions
from twisted.internet.testing import MemoryReactor
from twisted.python import usage

from pyryrelay import __version__
from pyryrelay.config.sources import SettingsError
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.mounts import Settings
from pyryrelay.start.twistd import Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def hangup_as_before() -> Iterator[None]:
    """Put the handler of SIGHUP back, which the options take over under twistd."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def _parse(*argv: str, env: Mapping[str, str] | None = None) -> Settings:
    reactor = MemoryReactor()
    options = Options(environ=env or {}, reactor=reactor)
    options.parseOptions(list(argv))
    assert not reactor.tcpServers
    assert not reactor.sslServers
    assert not reactor.unixServers
    return options.settings


class Refused:
    """Run a command line that must end in one line and exit code 2, and return the line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        with pytest.raises(SystemExit) as caught:
            _parse(*argv, env=env)
        return self.line(caught.value.code)

    def line(self, code: object) -> str:
        out, err = self._capsys.readouterr()
        assert code == 2
        assert out == ""
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert err.startswith("pyryrelay: ")
        return err.rstrip("\n")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a runner of command lines that must be refused."""
    return Refused(capsys)


@pytest.fixture
def pems(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Write a key, its certificate, and a key that does not belong to it."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(keys[0].public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36_500))
        .sign(keys[0], hashes.SHA256())
    )
    paths = (tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "other.pem")
    pem = serialization.Encoding.PEM
    for path, key in zip(paths[::2], keys, strict=True):
        form = serialization.PrivateFormat.PKCS8
        path.touch(0o600)
        path.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    paths[1].write_bytes(certificate.public_bytes(pem))
    return paths


def test_no_options_are_the_defaults() -> None:
    """No option is required."""
    assert _parse() == Settings()


def test_every_option_is_a_flag() -> None:
    """Every field of the settings is an option of the command line."""
    names = {long.rstrip("=") for long in Options(environ={}).longOpt}
    assert {about.name for about in Settings.options()} <= names


def test_options_in_all_their_forms() -> None:
    """Values follow a blank or an equals sign, repeatable options add up, and names may be abbreviated."""
    settings = _parse(
        "--listen", "tcp:0", "--listen=unix:/tmp/x", "--trust-x-forwarded-for", "--trusted-proxy", "unix",
        "--trusted-proxy=10.0.0.0/8", "--upgrade-quota", "3/second burst 9", "--max-phones=2", "--gra", "0.5",
    )  # fmt: skip
    assert settings == Settings(
        listen=("tcp:0", "unix:/tmp/x"),
        trust_x_forwarded_for=True,
        trusted_proxy=TrustedProxies(CidrSet(["10.0.0.0/8"]), unix=True),
        upgrade_quota=Quota(3, 1.0, 9),
        max_phones=2,
        grace_s=0.5,
    )


def test_a_switch_can_be_turned_off_again() -> None:
    """--no-NAME undoes the environment and the file; of two flags the last counts."""
    env = {"PYRYRELAY_TRUST_X_FORWARDED_FOR": "on"}
    assert _parse(env=env).trust_x_forwarded_for
    assert not _parse("--no-trust-x-forwarded-for", env=env).trust_x_forwarded_for
    assert _parse("--no-trust-x-forwarded-for", "--trust-x-forwarded-for").trust_x_forwarded_for


def test_parsing_twice_starts_afresh() -> None:
    """A parser can be used again and keeps nothing from before."""
    options = Options(environ={}, reactor=MemoryReactor())
    options.parseOptions(["--listen", "tcp:1"])
    options.parseOptions(["--listen", "tcp:2"])
    assert options.settings.listen == ("tcp:2",)


def test_the_file_is_named_by_flag_or_variable(tmp_path: Path) -> None:
    """--config wins over PYRYRELAY_CONFIG."""
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text("max-phones = 1\n")
    other.write_text("max_phones = 2\n")
    env = {"PYRYRELAY_CONFIG": str(one)}
    assert _parse(env=env).max_phones == 1
    assert _parse("--config", str(other), env=env).max_phones == 2
    assert _parse("--config", str(other), "--max-phones", "3").max_phones == 3
    assert _parse("--config", str(other), env={"PYRYRELAY_MAX_PHONES": "4"}).max_phones == 4
    assert _parse("--config", str(other)).origins == {"max-phones": f"{other}: max_phones"}


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--lissten", "tcp:80"], ["no such option --lissten", "did you mean --listen?"]),
        (["--zzz"], ["no such option --zzz", "see twistd pyryrelay --help"]),
        (["-x"], ["no such option -x", "see twistd pyryrelay --help"]),
        (["--lis\nten"], [r"no such option --lis\nten", "did you mean --listen?"]),
        (["--listen"], ["--listen ", "its value is missing", "write --listen VALUE"]),
        (["--check=yes"], ["--check ", "a switch takes no value", "write --check alone"]),
        (["--max", "3"], ["--max ", "is the beginning of several", "--max-connections", "--max-phones"]),
        (["true"], ["unexpected argument 'true'", "options begin with --"]),
        (["--grace", "1", "--", "--check"], ["unexpected argument '--check'", "options begin with --"]),
        (["--grace", "-1"], ["--grace ", "'-1'", "write a number of seconds from 0 to 3600"]),
        (["--upgrade-quota", "10/fortnight"], ["--upgrade-quota ", "'10/fortnight' is not a quota", "10/minute"]),
        (["--deny", "10.0.0.1/8"], ["--deny ", "'10.0.0.1/8'", "write '10.0.0.0/8'"]),
        (["--trusted-proxy", "::1"], ["--trusted-proxy ", "'::1/128'", "add --trust-x-forwarded-for"]),
        (["--max-phones", "many"], ["--max-phones ", "'many' is not a whole number", "of 1 or more"]),
        (["--listen", "8080"], ["--listen ", "'8080'", "write tcp:8080:interface=127.0.0.1"]),
        (["--listen", "tcp:notaport"], ["--listen ", "'tcp:notaport'", "write tcp:PORT:interface=ADDRESS"]),
        (["--listen", "tpc:8080"], ["--listen ", "'tpc:8080' is of an unknown type 'tpc'", "write tcp:PORT"]),
        (["--listen", "tcp:80:x=1"], ["--listen ", "'tcp:80:x=1' cannot be parsed", "write tcp:PORT"]),
        (["--listen", "unix:/x:mode=9"], ["--listen ", "'unix:/x:mode=9' cannot be parsed", "unix:PATH"]),
        (["--listen", "tcp:80\\"], ["--listen ", r"'tcp:80\\' cannot be parsed", "write tcp:PORT"]),
        (["--listen", "haproxy:"], ["--listen ", "'haproxy:'", "write tcp:PORT"]),
        (["--listen", "systemd:domain=INET:index=0"], ["'systemd:domain=INET:index=0'", "a .socket unit"]),
        (["--listen", "systemd:domain=INET:name=x"], ["'systemd:domain=INET:name=x'", "a .socket unit"]),
        (["--listen", "systemd:domain=INET"], ["'systemd:domain=INET' cannot be parsed", "systemd:domain=INET:"]),
        (["--admin-listen", "tpc:1"], ["--admin-listen ", "'tpc:1'", 'or "" to turn it off']),
        (
            ["--listen", "ssl:443:privateKey=/nowhere.pem"],
            ["--listen ", "'/nowhere.pem': No such file", "name PEM files"],
        ),
        (["--listen", f"ssl:443:privateKey={__file__}"], ["--listen ", f"{__file__!r} holds no certificate", "PEM"]),
        (
            ["--listen", "ssl:443"],
            ["--listen ", "'ssl:443' has no certificate; add --certificate or --acme NAME, or name PEM files in"],
        ),
        (
            ["--certificate", "/nowhere", "--listen", "ssl:443"],
            ["--certificate ", "'/nowhere': No such file", "PEM files"],
        ),
        (["--host", "https://relay.example.org"], ["--host ", "is a URL; write the name alone"]),
        (["--listen", "ssl:443:x=1"], ["--listen ", "'ssl:443:x=1' cannot be parsed", "ssl:PORT:privateKey="]),
        (["--config", "/nowhere.toml"], ["--config ", "'/nowhere.toml' cannot be read: No such file", "can read"]),
        (["--config", "/"], ["--config ", "'/' cannot be read: Is a directory", "can read"]),
        (["--config", ""], ["--config ", "'' cannot be read: No such file", "can read"]),
        (["--config", "a", "--config", "b"], ["--config ", "'a' and 'b' are both given", "one file"]),
    ],
)
def test_what_is_wrong_is_one_line(refused: Refused, argv: list[str], parts: list[str]) -> None:
    """An error is one line with option, value and fix, without a traceback or a page of help."""
    line = refused(*argv)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"max-phones = \n", ["is not TOML", "line 1, column 14", "settings look like"]),
        (b"a = 1\na = 2\n", ["is not TOML", "line 2", "settings look like"]),
        (b"grace = 3\n# \xff\n", ["is not UTF-8 in line 2", "save the file as UTF-8"]),
        (b"a = " + b"[" * 100_000, ["is not TOML", "settings look like"]),
        (b"#" * (1024 * 1024 + 1), ["is longer than 1 MiB", "name a file of settings"]),
    ],
)
def test_files_that_cannot_be_parsed(refused: Refused, tmp_path: Path, content: bytes, parts: list[str]) -> None:
    """A file that cannot be parsed is named with the place of the mistake."""
    path = tmp_path / "relay.toml"
    path.write_bytes(content)
    line = refused("--config", str(path))
    for part in ["--config (from command line)", repr(str(path)), *parts]:
        assert part in line


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("max-phones = true", ["--max-phones ", ": max-phones)", "'true' is a boolean", "write a whole number"]),
        ("max_phone = 3", ["--max-phone ", ": max_phone)", "no such option", "did you mean max-phones?"]),
        ("[listen]", ["--listen ", "is a table", "write tcp:PORT"]),
        ("listen = ['tcp:1', 'tpc:2']", ["--listen ", ": listen)", "'tpc:2' is of an unknown type", "write tcp"]),
        ("check = true", ["--check ", "for the command line only", "remove it"]),
    ],
)
def test_files_with_wrong_settings(refused: Refused, tmp_path: Path, content: str, parts: list[str]) -> None:
    """A wrong setting is named with its file and key."""
    path = tmp_path / "relay.toml"
    path.write_text(content)
    line = refused("--config", str(path))
    for part in [f"(from {path}", *parts]:
        assert part in line


def test_wrong_variables(refused: Refused) -> None:
    """A wrong value or a misspelt name in the environment is named with its variable."""
    line = refused(env={"PYRYRELAY_GRACE": "soon"})
    assert "--grace (from environment variable PYRYRELAY_GRACE): 'soon' is not a number of seconds; write" in line
    assert "did you mean PYRYRELAY_LISTEN?" in refused(env={"PYRYRELAY_LISTENS": "tcp:1"})
    line = refused(env={"PYRYRELAY_CONFIG": "/nowhere"})
    assert "--config (from environment variable PYRYRELAY_CONFIG): '/nowhere' cannot be read: No such file" in line


@pytest.mark.parametrize(
    "endpoint", ["ssl:443:privateKey={0}:certKey={1}", "haproxy:ssl:443:privateKey={0}:certKey={1}"]
)
def test_keys_and_certificates_are_loaded(refused: Refused, pems: tuple[Path, Path, Path], endpoint: str) -> None:
    """A key that fits its certificate is accepted; one that does not is refused without being quoted."""
    key, certificate, other = pems
    assert _parse("--listen", endpoint.format(key, certificate)).listen == (endpoint.format(key, certificate),)
    line = refused("--listen", endpoint.format(other, certificate))
    assert f"the key in {str(other)!r} does not belong to the certificate in {str(certificate)!r}; name the" in line
    assert "PRIVATE" not in line


def test_a_key_that_wants_a_pass_phrase(refused: Refused, pems: tuple[Path, Path, Path]) -> None:
    """An encrypted key asks for nothing on the terminal; the error says how to decrypt it."""
    key, certificate, _ = pems
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    form, lock = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, lock))
    line = refused("--listen", f"ssl:8443:privateKey={key}:certKey={certificate}")
    assert f"{str(key)!r} is encrypted" in line
    assert line.endswith(f"decrypt it into a file of mode 600: openssl pkey -in {key} -out FILE")


@pytest.mark.parametrize("argv", [["-n"], ["--nodaemon"], ["-l", "x"], ["--pidfile", "x"]])
def test_options_of_twistd_belong_before_the_name(refused: Refused, argv: list[str]) -> None:
    """An option of twistd behind the word pyryrelay is refused with its right place."""
    from twisted.scripts._twistd_unix import ServerOptions as UnixServerOptions

    options = Options(environ={}, reactor=MemoryReactor())
    options.parent = UnixServerOptions()
    with pytest.raises(SystemExit) as caught:
        options.parseOptions(argv)
    line = refused.line(caught.value.code)
    assert f"{argv[0]} is an option of twistd; write it before pyryrelay: twistd {argv[0]} pyryrelay" in line


def test_other_usage_errors_are_one_line_too(refused: Refused) -> None:
    """Errors of Twisted's own parser are one line as well."""

    class Odd(Options):
        def opt_odd(self) -> None:
            raise usage.UsageError("odd\nindeed")

    with pytest.raises(SystemExit) as caught:
        Odd(environ={}).parseOptions(["--odd"])
    assert refused.line(caught.value.code) == r"pyryrelay: odd\nindeed; see twistd pyryrelay --help for all options"


@pytest.mark.parametrize(("number", "workers", "expected"), [(None, 1, "0"), (3, 4, "3"), (None, 4, "{worker}")])
def test_endpoints_with_the_number_of_the_process(
    number: int | None, workers: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that serves alone has number 0; several are told theirs, and who opens for all keeps the texts."""
    monkeypatch.setattr(Settings, "worker_count", workers)
    texts = ("unix:/tmp/{worker}.sock", "tcp:900{worker}:interface=127.0.0.1", "tcp:0")
    options = Options(environ={}, reactor=MemoryReactor())
    options.worker_index = number
    options.parseOptions([*(word for text in texts for word in ("--listen", text)), "--trust-x-forwarded-for"])
    assert options.settings.listen == tuple(text.replace("{worker}", expected) for text in texts)


def test_endpoints_of_one_process_that_collide(refused: Refused) -> None:
    """The first of several processes must be able to listen, as the only one must."""
    line = refused("--listen", "tcp:900{worker}", "--listen", "tcp:9000")
    assert "'tcp:9000' takes a port or path" in line


def test_check_prints_the_effective_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--check prints a file that gives the same settings, warns on standard error, and ends with exit code 0."""
    outputs = []
    for flags in (["--check"], ["--check", "--check"]):
        with pytest.raises(SystemExit) as caught:
            _parse(*flags, "--listen", "tcp:0", "--admin-listen=", "--trust-x-forwarded-for", "--grace", "5")
        assert caught.value.code == 0
        outputs.append(capsys.readouterr())
    assert outputs[0] == outputs[1]
    assert outputs[0].err.startswith("pyryrelay: warning: --trust-x-forwarded-for without --trusted-proxy on 'tcp:0'")
    assert "grace = 5  # from command line\n" in outputs[0].out
    path = tmp_path / "relay.toml"
    path.write_text(outputs[0].out)
    expected = Settings(listen=("tcp:0",), admin_listen="", trust_x_forwarded_for=True, grace_s=5)
    assert _parse("--config", str(path)) == expected


def test_check_refuses_what_a_start_would_refuse(refused: Refused) -> None:
    """--check ends with one line and exit code 2 where the relay would not start."""
    assert "'tcp:x'" in refused("--check", "--listen", "tcp:x")


def test_check_finds_ports_that_are_taken(refused: Refused) -> None:
    """--check reports every port that is taken, each in a line with the fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        line = refused("--check", "--listen", endpoint, "--admin-listen=")
    assert f"--listen (from command line): {endpoint!r} cannot be listened on: Address already in use: " in line
    assert line.endswith("stop it, or choose another endpoint")


@pytest.mark.parametrize("is_daemon", [True, False])
def test_what_the_background_could_not_tell_any_more(refused: Refused, is_daemon: bool) -> None:
    """Ports are tried before twistd goes into the background, so that the error is on standard error."""
    options = Options(environ={}, reactor=MemoryReactor())
    options.parent = usage.Options()
    options.parent["nodaemon"] = not is_daemon
    with socket.create_server(("127.0.0.1", 0)) as taken:
        argv = ["--listen", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1", "--admin-listen="]
        if not is_daemon:
            options.parseOptions(argv)
            return
        with pytest.raises(SystemExit) as caught:
            options.parseOptions(argv)
    assert "Address already in use" in refused.line(caught.value.code)


def test_folders_of_twistd_that_are_missing(refused: Refused, tmp_path: Path) -> None:
    """Missing folders in twistd's options are one line instead of a traceback."""
    options = Options(environ={}, reactor=MemoryReactor())
    options.parent = usage.Options()
    options.parent["rundir"] = str(tmp_path / "run")
    with pytest.raises(SystemExit) as caught:
        options.parseOptions([])
    line = refused.line(caught.value.code)
    missing = str(tmp_path / "run")
    problem = f"there is no folder {missing!r}"
    assert line == f"pyryrelay: --rundir (of twistd): {problem}; create it: mkdir -p {missing}"


def test_relative_names_count_from_rundir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pems: tuple[Path, Path, Path]
) -> None:
    """Relative names of the configuration, list and key files count from --rundir, or else from the current folder."""
    (tmp_path / "deny.txt").write_text("192.0.2.1")
    (tmp_path / "relay.toml").write_text('deny-file = ["deny.txt"]')
    argv = ["--config", "relay.toml", "--listen", "ssl:0:privateKey=key.pem:certKey=cert.pem"]
    options = Options(environ={}, reactor=MemoryReactor())
    options.parent = usage.Options()
    options.parent["rundir"] = "../" + tmp_path.name
    (tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path.parent / "elsewhere")
    options.parseOptions(argv)
    assert options.settings.deny_file == ("deny.txt",)
    assert options.base.resolve() == tmp_path
    monkeypatch.chdir(tmp_path)
    assert _parse(*argv) == options.settings


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the version of pyryrelay, whatever else is given."""
    with pytest.raises(SystemExit) as caught:
        _parse("--version", "--grace", "x")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pyryrelay {__version__}\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows the usage, every option and examples, each line within 80 columns."""
    options = Options(environ={})
    options.parent = ServerOptions()
    options.parent.subCommand = "pyryrelay"
    with pytest.raises(SystemExit) as caught:
        options.parseOptions(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "pyryrelay [options]\n" in out
    assert "  --upgrade-quota QUOTA|off\n" in out
    assert "Three ways to run it" in out
    assert max(map(len, out.splitlines()[1:])) <= 80


_CHECK = """
from pyryrelay.start.twistd import (Options)
Options().parseOptions(["--check", "--listen", "tcp:0:interface=127.0.0.1", "--admin-listen="])
"""


@pytest.mark.parametrize(
    ("argv", "code", "out", "err"),
    [
        (
            ["-c", "from pyryrelay.start.twistd import Options; Options().parseOptions(['--x'])"],
            2,
            "",
            "pyryrelay: ",
        ),
        (["-c", _CHECK], 0, "# The eff", ""),
    ],
)
def test_in_a_process_of_its_own(argv: list[str], code: int, out: str, err: str) -> None:
    """In a process of its own, with a real exit and reactor, the command line behaves the same."""
    env = {**os.environ, "PYTHONPATH": str(SRC), "PYRYRELAY_ACCEPT_FINDING": "clock root"}
    done = subprocess.run([sys.executable, *argv], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.startswith(out)
    # What is accepted depends on the machine.
    told = [line for line in done.stderr.splitlines() if not line.startswith("pyryrelay: accepted: ")]
    assert [line[: len(err)] for line in told] == [err] * bool(err)


def test_no_reactor_is_installed_by_importing() -> None:
    """Importing the options installs no reactor, which twistd chooses later."""
    program = "import sys, pyryrelay.start.twistd; sys.exit('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(SRC)}, check=False)
    assert done.returncode == 0


# Reading the configuration again while the relay runs


def _reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *argv: str, env: dict[str, str]) -> Options:
    """Return options that were parsed in one directory and are read again in another."""
    monkeypatch.chdir(tmp_path)
    options = Options(environ=env, reactor=MemoryReactor())
    options.parseOptions(list(argv))
    monkeypatch.chdir("/")
    return options


@pytest.mark.parametrize(("argv", "env"), [(["--config", "r.toml"], {}), ([], {"PYRYRELAY_CONFIG": "r.toml"})])
def test_the_file_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], env: dict[str, str]
) -> None:
    """The file is found again after twistd changed the directory, and errors call it by the name that was given."""
    path = tmp_path / "r.toml"
    path.write_text("max-phones = 3\n")
    options = _reading(tmp_path, monkeypatch, *argv, env=env)
    assert options.settings.max_phones == 3
    path.write_text("max-phones = 4\n")
    assert options.read().max_phones == 4
    assert options.settings.max_phones == 3
    path.write_text("max-phones = 0\n")
    with pytest.raises(SettingsError, match=r"--max-phones \(from r.toml: max-phones\): '0' is less than 1"):
        options.read()
    path.unlink()
    with pytest.raises(SettingsError, match=r"--config .*'r.toml' cannot be read: No such file"):
        options.read()


def test_endpoints_of_before_are_not_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pems: tuple[Path, Path, Path]
) -> None:
    """Endpoints that have not changed are not checked again; new ones are."""
    path = tmp_path / "r.toml"
    listen = "ssl:443:privateKey=key.pem:certKey=cert.pem"
    path.write_text(f'listen = "{listen}"\n')
    options = _reading(tmp_path, monkeypatch, "--config", "r.toml", env={})
    assert options.read().listen == (listen,)
    path.write_text(f'listen = ["{listen}", "tpc:1"]\n')
    with pytest.raises(SettingsError, match="'tpc:1' is of an unknown type"):
        options.read()


# List files


@pytest.mark.parametrize("flag", ["--allow-file", "--deny-file"])
def test_list_files_are_read_before_the_start(refused: Refused, tmp_path: Path, flag: str) -> None:
    """A bad list file is refused before the start and by --check, with option, file, line and fix."""
    path = tmp_path / "list.txt"
    path.write_text("192.0.2.0/24\n")
    _parse(flag, str(path))
    path.write_text("192.0.2.0/24\n10.0.0.1/8\n")
    for more in ([], ["--check"]):
        line = refused(flag, str(path), *more)
        assert f"{flag} (from command line): {path}:2: '10.0.0.1/8' has host bits set" in line
        assert "; write '10.0.0.0/8'" in line
    line = refused(flag, "/nowhere.txt")
    assert "/nowhere.txt: cannot be read (No such file or directory); make it a file that" in line


# Explaining the client address


def test_check_explains_who_a_client_is(capsys: pytest.CaptureFixture[str]) -> None:
    """--check --whoami prints each step as a comment before the settings."""
    with pytest.raises(SystemExit) as caught:
        _parse(
            "--check", "--trust-x-forwarded-for", "--trusted-proxy", "10.0.0.0/8",
            "--whoami", "10.0.0.7 203.0.113.9, 10.0.0.8", "--whoami", "unix", "--whoami", "192.0.2.1 \x1b[2J",
        )  # fmt: skip
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "# x-forwarded-for '203.0.113.9, 10.0.0.8' from 10.0.0.7:\n"
        "#   peer 10.0.0.7 is a trusted proxy\n"
        "#   entry 1 from the right, 10.0.0.8, is a trusted proxy: skipped\n"
        "#   entry 2 from the right, 203.0.113.9, is the client\n"
        "# no x-forwarded-for from unix:\n"
    )
    assert "# x-forwarded-for '\\x1b[2J' from 192.0.2.1:\n#   peer 192.0.2.1 is no trusted proxy" in out
    assert tomllib.loads(out)["trusted-proxy"] == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (
            ["--check", "--whoami", "nginx 1.2.3.4"],
            ["--whoami ", "'nginx' is not the address of a peer; write '192.0.2.7 V"],
        ),
        (["--check", "--whoami", ""], ["--whoami ", "'' is not the address of a peer"]),
        (["--whoami", "192.0.2.7"], ["--whoami ", "'192.0.2.7' has no effect without --check; add --check"]),
    ],
)
def test_explanations_that_cannot_be_had(refused: Refused, argv: list[str], parts: list[str]) -> None:
    """--whoami needs the address of a peer, and --check."""
    line = refused(*argv)
    for part in parts:
        assert part in line
