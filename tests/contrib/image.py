"""The steps of a Dockerfile, run without a container engine: each stage is a copy of this machine's root.

An overlay keeps what a stage writes in a folder of the test, so nothing outside of it changes. This needs root and
Linux. Base images are not fetched: the stages have this machine's programs instead, with the interpreter of the
distribution as `python`. What a registry or an engine does is therefore not tested.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Final

PYTHON: Final = "/usr/bin/python3"
_JOINED: Final = re.compile(r"\\\n\s*")
_SCRIPT: Final = """
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/inner" "$0/root"
mount --rbind /dev "$0/root/dev"
mount -t proc proc "$0/root/proc"
mount -t tmpfs none "$0/root/tmp"
if [ -n "$READ_ONLY" ]; then
    ip link set lo up
    mount --bind "$0/root$READ_ONLY" "$0/root$READ_ONLY"
    mount -o remount,bind,ro "$0/root"
fi
exec chroot $CHROOT_OPTIONS "$0/root" /bin/sh -c 'cd "$0" && exec "$@"' "$@"
"""


@dataclass
class Stage:
    """One stage of a build: its folder, and what the instructions so far have set."""

    folder: Path
    workdir: str = "/"
    user: str = ""
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin"})
    entrypoint: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    volume: str = ""

    def __post_init__(self) -> None:
        for name in ("upper", "inner", "root"):
            (self.folder / name).mkdir(parents=True)
        self.add("/usr/local/bin", 0o755)
        (self.upper / "usr/local/bin/python").symlink_to(PYTHON)

    @property
    def upper(self) -> Path:
        """Return the folder with everything that the stage has written."""
        return self.folder / "upper"

    def add(self, path: str, mode: int) -> Path:
        """Make a folder in the image."""
        found = self.upper / path.lstrip("/")
        found.mkdir(parents=True, exist_ok=True)
        found.chmod(mode)
        return found

    def run(self, *words: str, confined: bool = False, extra: Mapping[str, str] = MappingProxyType({})) -> str:
        """Run a program in the image, and return what it printed. Raises `AssertionError` if it fails.

        A program that is ``confined`` has a network of its own, and can write only to the image's volume and /tmp.
        """
        variables = {
            **self.environment,
            **extra,
            "READ_ONLY": self.volume if confined else "",
            "CHROOT_OPTIONS": f"--userspec={self.user}" if self.user else "",
        }
        spaces = ["--mount", "--pid", "--fork", "--kill-child", *(["--net"] if confined else [])]
        command = ["unshare", *spaces, "/bin/sh", "-c", _SCRIPT, str(self.folder), self.workdir, *words]
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile, without comments and with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in _JOINED.sub(" ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def ignored(path: str, rules: Sequence[str]) -> bool:
    """Tell whether .dockerignore keeps a path out of the build: the last rule that matches decides."""
    whole = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    found = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        candidates = Path(path).parts if pattern.startswith("**/") else whole
        if any(fnmatch(one, pattern.removeprefix("**/")) for one in candidates):
            found = not rule.startswith("!")
    return found


class Build:
    """Runs the instructions of a Dockerfile. The last stage is the image."""

    def __init__(self, folder: Path, context: Path, files: Sequence[str]) -> None:
        self.folder, self.context = folder, context
        rules = (context / ".dockerignore").read_text(encoding="utf-8").splitlines()
        rules = [rule for rule in rules if rule and not rule.startswith("#")]
        self.files = [name for name in files if not ignored(name, rules)]
        self.stages: dict[str, Stage] = {}
        self.stage: Stage | None = None

    def build(self, extra: Mapping[str, str]) -> Stage:
        """Run all instructions, with more variables for the commands, and return the image."""
        for name, rest in instructions((self.context / "Dockerfile").read_text(encoding="utf-8")):
            if name == "FROM":
                title = rest.partition(" AS ")[2] or "image"
                self.stage = self.stages[title] = Stage(self.folder / title)
            else:
                assert self.stage is not None
                self._apply(self.stage, name, rest, extra)
        assert self.stage is not None
        return self.stage

    def _apply(self, stage: Stage, name: str, rest: str, extra: Mapping[str, str]) -> None:
        if name == "RUN":
            stage.run("/bin/sh", "-c", rest, extra=extra)
        elif name == "COPY":
            self._copy(stage, shlex.split(rest))
        elif name == "WORKDIR":
            stage.workdir = rest
            if not (stage.upper / rest.lstrip("/")).exists():
                stage.add(rest, 0o755)
        elif name == "ENV":
            for word in shlex.split(rest):
                key, _, value = word.partition("=")
                stage.environment[key] = value.replace("$PATH", stage.environment["PATH"])
        elif name == "USER":
            stage.user = rest
        elif name == "VOLUME":
            stage.volume = rest
        elif name == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif name == "HEALTHCHECK":
            stage.healthcheck = json.loads(rest.partition("CMD ")[2])
        elif name != "EXPOSE":
            raise ValueError(f"{name} is not known here")

    def _copy(self, stage: Stage, words: list[str]) -> None:
        *sources, target = words
        where = stage.upper / (target if target.startswith("/") else f"{stage.workdir}/{target}").lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        if sources[0].startswith("--from="):
            origin = self.stages[sources[0].partition("=")[2]].upper / sources[1].lstrip("/")
            _run("cp", "--archive", "--no-target-directory", str(origin), str(where))
            return
        [source] = sources
        if (self.context / source).is_file():
            _run("cp", "--no-dereference", str(self.context / source), str(where))
            return
        prefix = "" if source == "." else source
        for name in self.files:
            if name.startswith(prefix):
                copied = where / name.removeprefix(prefix)
                copied.parent.mkdir(parents=True, exist_ok=True)
                _run("cp", "--no-dereference", str(self.context / name), str(copied))


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
