"""The corpora of the fuzz targets are replayed in every run of the suite, without atheris."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))
MAX_CORPORA_BYTES = 300_000

Check = Callable[[bytes], None]


def inputs(target: str) -> list[Path]:
    """Return the kept inputs of a target."""
    return sorted(path for path in (FUZZ / "corpus" / target).iterdir() if path.is_file())


@pytest.fixture
def check(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return the check of one target, loaded as the runner loads it, but not instrumented."""
    monkeypatch.syspath_prepend(FUZZ)
    # None marks a module that cannot be imported. The helper of the targets must not stay in sys.modules.
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.delitem(sys.modules, "harness", raising=False)
    found: Check = runpy.run_path(str(FUZZ / f"fuzz_{request.param}.py"))["check"]
    monkeypatch.delitem(sys.modules, "harness")
    return found


@pytest.mark.parametrize(("check", "target"), [(target, target) for target in TARGETS], indirect=["check"], ids=TARGETS)
def test_kept_inputs_pass(check: Check, target: str) -> None:
    """Every input of the corpus passes the check of its parser."""
    paths = inputs(target)
    assert paths
    broken = {}
    for path in paths:
        try:
            check(path.read_bytes())
        except Exception as error:
            broken[path.name] = repr(error)
    assert broken == {}


@pytest.mark.parametrize("check", TARGETS, indirect=True, ids=TARGETS)
def test_an_empty_input_passes(check: Check) -> None:
    """Every check passes on an empty input, which the fuzzer begins with."""
    check(b"")


def test_every_corpus_has_its_target() -> None:
    """Each target has a corpus, and each corpus and dictionary has a target."""
    assert sorted(path.name for path in (FUZZ / "corpus").iterdir()) == TARGETS
    assert sorted(path.stem for path in (FUZZ / "dictionaries").glob("*.dict")) == TARGETS


def test_the_corpora_are_small() -> None:
    """The corpora are smaller than fuzz/README.md says."""
    assert sum(path.stat().st_size for target in TARGETS for path in inputs(target)) < MAX_CORPORA_BYTES
