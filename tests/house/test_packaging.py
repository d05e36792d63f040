"""Wheel, sdist and editable install, each built from this tree and run in a virtual environment of its own.

The slow tests need a package index, as any `pip install` does.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import pyryrelay

ROOT = Path(__file__).resolve().parents[2]
ASSETS = "src/pyryrelay/admin/dashboard/assets"
PLUGIN = "twisted/plugins/pyryrelay_plugin.py"
# Variables that would lead a child process to this checkout or environment instead of its own.
LEAKING = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"}


@dataclass(frozen=True)
class Environment:
    """A virtual environment at `path`."""

    path: Path

    def run(self, command: str, *args: str, cwd: str | Path = "/", **variables: str) -> str:
        """Run a command of the environment and return its output. Raises `AssertionError` if it fails."""
        clean = {name: value for name, value in os.environ.items() if name not in LEAKING} | variables
        done = subprocess.run(
            [str(self.path / "bin" / command), *args],
            cwd=cwd,
            env=clean,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command} {' '.join(args)} exited {done.returncode}:\n{done.stdout}"
        return done.stdout

    def pip(self, *args: str) -> str:
        """Run the environment's own pip, quietly."""
        return self.run("python", "-m", "pip", "--quiet", "--disable-pip-version-check", *args)


@dataclass(frozen=True)
class Built:
    """One build of the tree: its folder, the archives, and the environment with the tools that built them."""

    source: Path
    sdist: Path
    wheel: Path
    builder: Environment

    def wheel_text(self, pattern: str) -> str:
        """Return the only file of the wheel whose name matches the regular expression."""
        with zipfile.ZipFile(self.wheel) as archive:
            [name] = [name for name in archive.namelist() if re.search(pattern, name)]
            return archive.read(name).decode()


def _new_environment(path: Path) -> Environment:
    venv.create(path, with_pip=True, symlinks=True)
    return Environment(path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist from a copy of the tree, and the wheel from that sdist."""
    base = tmp_path_factory.mktemp("packaging")
    source = base / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", ".tox", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    subprocess.run(
        [sys.executable, str(source / "docs" / "manpages.py"), str(source / "docs" / "man")],
        env={**os.environ, "PYTHONPATH": str(source / "src")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    builder = _new_environment(base / "builder")
    builder.pip("install", "build", "pipx", "uv")
    builder.run("python", "-m", "build", "--outdir", str(base / "dist"), str(source))
    [sdist] = (base / "dist").glob("*.tar.gz")
    [wheel] = (base / "dist").glob("*.whl")
    return Built(source, sdist, wheel, builder)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with the wheel and its dependencies."""
    environment = _new_environment(tmp_path_factory.mktemp("packaging") / "installed")
    environment.pip("install", str(built.wheel))
    return environment


def _assert_runs_the_relay(environment: Environment) -> None:
    listed = [line.split() for line in environment.run("twistd", "--help").splitlines()]
    assert [words[0] for words in listed if words].count("pyryrelay") == 1
    text = environment.run("twistd", "pyryrelay", "--help")
    for option in ("--listen", "--upgrade-quota", "--trust-x-forwarded-for", "--config", "--check"):
        assert option in text


def test_plugin_imports_nothing_but_service_maker() -> None:
    """The plugin file, which every `twistd` command imports, imports only `ServiceMaker`."""
    tree = ast.parse((ROOT / "src" / PLUGIN).read_text())
    imported = [
        (node.module if isinstance(node, ast.ImportFrom) else "", name.name)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    ]
    assert imported == [("__future__", "annotations"), ("twisted.application.service", "ServiceMaker")]


def test_plugin_folders_are_no_packages() -> None:
    """`src/twisted` leads to the plugin, and neither folder hides Twisted with an `__init__.py`."""
    assert (ROOT / "src" / PLUGIN).is_file()
    assert not list((ROOT / "src/twisted").rglob("__init__.py"))
    if (ROOT / PLUGIN).exists():  # In a checkout; in an sdist src/twisted is the only copy.
        assert (ROOT / "src/twisted").is_symlink()
        assert os.readlink(ROOT / "src/twisted") == "../twisted"


def test_all_python_is_type_checked() -> None:
    """mypy's list of files covers every folder with Python in it, scripts included."""
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    # src/twisted is a link to the plugin's folder.
    not_ours = {"build", "dist", "src/twisted"}
    scripts = [
        path.relative_to(ROOT)
        for path in ROOT.glob("[!.]*/**/*.py")
        if not any(path.is_relative_to(ROOT / folder) for folder in not_ours)
    ]
    assert [str(path) for path in scripts if not any(path.is_relative_to(covered) for covered in checked)] == []
    assert len(scripts) > 100


def test_ci_installs_what_tests_skip_without() -> None:
    """.ci/run installs each Debian package and proxy that a test skips without."""
    gate = ROOT / ".ci" / "run"
    if not gate.exists():
        pytest.skip("an sdist has no gate")
    offered = set(re.findall(r"\|\| echo ([a-z0-9-]+)$", gate.read_text(), re.MULTILINE))
    reasons = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    needed = set(re.findall(r"\(Debian: ([a-z0-9-]+)\)", reasons)) | {"nginx", "haproxy"}
    assert "libnginx-mod-stream" in needed
    assert needed - offered == set()


@pytest.mark.slow
def test_wheel_ships_the_plugin_and_leaves_twisted_alone(built: Built) -> None:
    """The plugin is the only file of the wheel in Twisted's namespace, and the package is marked as typed."""
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.startswith("twisted/")] == [PLUGIN]
    assert "pyryrelay/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/pyryrelay").rglob("*.py")}
    assert sources <= set(names)
    assets = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / ASSETS).iterdir()}
    assert len(assets) > 10
    assert assets <= set(names)


@pytest.mark.slow
def test_sdist_is_complete_without_symlinks(built: Built) -> None:
    """The sdist holds plain files only, among them the plugin, the tests and the licence."""
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert not [member.name for member in members if member.issym()]
    assert {
        f"src/{PLUGIN}",
        "src/pyryrelay/py.typed",
        f"{ASSETS}/index.html",
        "tests/house/test_packaging.py",
        "LICENSE",
    } <= names
    unwanted = ("dropin.cache", ".pyc", "twisted/plugins/__init__.py")
    assert not [name for name in names if name.endswith(unwanted)]


@pytest.mark.slow
def test_version_comes_from_incremental(built: Built) -> None:
    """The file name and metadata of the wheel have the version that the package reports."""
    assert f"-{pyryrelay.__version__}-" in built.wheel.name
    assert f"\nVersion: {pyryrelay.__version__}\n" in built.wheel_text(r"\.dist-info/METADATA$")


@pytest.mark.slow
def test_every_dependency_is_explained(built: Built) -> None:
    """Each required distribution has its line in docs/explanation/dependencies.md."""
    explained = (ROOT / "docs/explanation/dependencies.md").read_text()
    metadata = built.wheel_text(r"\.dist-info/METADATA$")
    required = re.findall(r"^Requires-Dist: ([\w.-]+)", metadata, re.MULTILINE)
    assert required
    assert [name for name in {*required} - {"pyryrelay"} if f"| `{name}` |" not in explained] == []


@pytest.mark.slow
def test_wheel_runs_and_uninstalls(built: Built, installed: Environment) -> None:
    """The installed wheel answers `twistd pyryrelay --help` from `/`, and Twisted works after it is removed."""
    _assert_runs_the_relay(installed)
    installed.pip("uninstall", "--yes", "pyryrelay")
    listed = installed.run("twistd", "--help")
    assert "pyryrelay" not in listed
    assert re.search(r"^\s+web\s", listed, re.MULTILINE)
    installed.run("python", "-c", "import twisted.internet.reactor, twisted.web.server")
    installed.pip("install", "--no-deps", str(built.wheel))


@pytest.mark.slow
def test_the_command_runs_without_twistd_and_plugins(installed: Environment) -> None:
    """`pyryrelay run` needs neither `twistd` nor a cache of plugins, which it does not write either."""
    folder = installed.run("python", "-c", "import twisted.plugins as p; print(p.__path__[0])").strip()
    cache, plugin = Path(folder) / "dropin.cache", Path(folder) / "pyryrelay_plugin.py"
    cache.unlink(missing_ok=True)
    plugin.rename(f"{plugin}.away")
    try:
        assert "\nlisten = " in installed.run("pyryrelay", "run", "--check", "--listen", "tcp:0")
        assert "\nlisten = " in installed.run("python", "-m", "pyryrelay", "run", "--check", "--listen", "tcp:0")
    finally:
        Path(f"{plugin}.away").rename(plugin)
    assert not cache.exists()


@pytest.mark.slow
def test_the_guard_needs_no_dependencies(built: Built, tmp_path: Path) -> None:
    """Installed without its dependencies, the package has a guard that works."""
    environment = _new_environment(tmp_path / "alone")
    environment.pip("install", "--no-deps", "--no-index", str(built.wheel))
    program = (
        "import sys; from pyryrelay.guard import Gate, Refusal; gate = Gate(); "
        "answers = [gate.admit('192.0.2.7', 'chat', 0.0) for _ in range(21)]; "
        "print([isinstance(answer, Refusal) for answer in answers].index(True)); "
        "print([name for name in sys.modules if name.partition('.')[0] in ('twisted', 'autobahn', 'msgspec')])"
    )
    assert environment.run("python", "-c", program) == "20\n[]\n"


@pytest.mark.slow
def test_editable_install_runs(built: Built, installed: Environment) -> None:
    """`twistd` finds an editable install from any directory."""
    installed.pip("uninstall", "--yes", "pyryrelay")
    installed.pip("install", "--no-deps", "--editable", str(built.source))
    _assert_runs_the_relay(installed)
    where = installed.run("python", "-c", "import pyryrelay; print(pyryrelay.__file__)").strip()
    assert Path(where).is_relative_to(built.source)


@pytest.mark.slow
def test_editable_install_without_symlink_is_refused(built: Built, installed: Environment, tmp_path: Path) -> None:
    """Where git wrote the symlink as a text file, an editable install fails and names the fix."""
    copy = tmp_path / "source"
    shutil.copytree(built.source, copy, symlinks=True)
    (copy / "src/twisted").unlink()
    (copy / "src/twisted").write_text("../twisted")
    with pytest.raises(AssertionError, match=r"core\.symlinks"):
        installed.pip("install", "--no-deps", "--editable", str(copy))


CHECK = ("run", "--check", "--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", "")


@pytest.mark.slow
def test_pipx_installs_the_command_and_its_manual(built: Built, tmp_path: Path) -> None:
    """pipx puts `pyryrelay` on the path, which starts the relay without `twistd`, and links its manual pages."""
    folders = {f"PIPX_{name}": str(tmp_path / name) for name in ("HOME", "BIN_DIR", "MAN_DIR")}
    built.builder.run("pipx", "install", "--python", sys.executable, str(built.wheel), **folders)
    tools = [path.name for path in (tmp_path / "BIN_DIR").iterdir()]
    assert tools == ["pyryrelay"]
    done = subprocess.run([tmp_path / "BIN_DIR" / "pyryrelay", *CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "listen = " in done.stdout
    assert {path.name for path in (tmp_path / "MAN_DIR").rglob("*.1")} == {"pyryrelay.1", "twistd-pyryrelay.1"}


@pytest.mark.slow
def test_uv_installs_the_command(built: Built, tmp_path: Path) -> None:
    """`uv tool install` puts `pyryrelay` on the path, which starts the relay."""
    folders = {f"UV_TOOL_{name}": str(tmp_path / name) for name in ("DIR", "BIN_DIR")}
    built.builder.run("uv", "tool", "install", "--python", sys.executable, str(built.wheel), **folders)
    done = subprocess.run([tmp_path / "BIN_DIR" / "pyryrelay", *CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "listen = " in done.stdout
