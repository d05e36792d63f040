"""Push wakes as they are mounted: what the options turn on, what prevents the start, and reloads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.harness import environment
from tests.support.capture import captured
from tests.support.push import ACCESS, PUSH_URL, SENT, TOKEN, PushServices, key_text
from tests.support.services import services as services_on

from pyryrelay.mounts import Settings
from pyryrelay.pyry.envelope import PushWake
from pyryrelay.pyry.mount import PYRY
from pyryrelay.pyry.push import mount
from pyryrelay.pyry.push.mount import PushMount, push_finding

SECRET = "s3cr3t-s3cr3t"


class Mounted:
    """Push wakes in a relay whose services are in memory."""

    def __init__(self, base: Path) -> None:
        self.remote = PushServices()
        self.ended: list[tuple[str, str]] = []
        self.dead = 0
        services = replace(services_on(self.remote.clock), agent=self.remote.outgoing.agent, base=base)
        self.push = PushMount(services, self)

    def wake_ended(self, server_id: str, outcome: str, reason: str, connection: int) -> None:
        """Record what became of a wake."""
        self.ended.append((str(outcome), str(reason)))

    def wake(self, server_id: str = "sid") -> None:
        """Ask for a wake, which must be possible."""
        assert self.push.wakes is not None
        self.push.wakes.wake(server_id, PushWake("fcm", TOKEN), 1, self._report)

    def _report(self) -> None:
        self.dead += 1


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    """Push wakes that are off."""
    return Mounted(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Settings]:
    """Return a function that writes a key file and returns settings that name it."""

    def settings(**changes: Any) -> Settings:
        path = tmp_path / "fcm.json"
        path.write_text(key_text(**changes))
        path.chmod(0o600)
        return Settings(push_credentials="fcm.json", push_url=PUSH_URL)

    return settings


def test_off_by_default(mounted: Mounted) -> None:
    """Without credentials, nothing is sent and nothing is wrong."""
    mounted.push.configure(Settings())
    assert mounted.push.wakes is None
    assert mounted.push.stop() is None
    assert push_finding(Settings(), Path()) is None


def test_wakes_are_sent(mounted: Mounted, write: Callable[..., Settings]) -> None:
    """The project of the key is part of the URL, and the access token comes from where the key says."""
    with captured() as log:
        mounted.push.configure(write(project_id="other-project"))
        mounted.wake()
        mounted.remote.grant()
        line, received = mounted.remote.next()
        line.answer(body=SENT)
    assert received.target == "/v1/projects/other-project/messages:send"
    assert received.fields["authorization"] == f"Bearer {ACCESS}"
    assert mounted.ended == [("sent", "")]
    assert log.texts == [f"push wakes are sent to {PUSH_URL}"]


def test_the_base_of_the_url_may_have_a_path(mounted: Mounted, write: Callable[..., Settings]) -> None:
    """A proxy of the operator may have one."""
    mounted.push.configure(replace(write(), push_url=f"{PUSH_URL}/fcm"))
    mounted.wake()
    mounted.remote.grant()
    assert mounted.remote.next()[1].target == "/fcm/v1/projects/my-project/messages:send"


def test_feedback_is_an_option(mounted: Mounted, write: Callable[..., Settings]) -> None:
    """A reload turns it on, and the access token of before is fetched anew with the rest."""
    settings = write()
    for feedback, dead in ((False, 0), (True, 1)):
        mounted.push.configure(replace(settings, push_feedback=feedback))
        mounted.wake()
        mounted.remote.grant()
        mounted.remote.next()[0].answer(404, b'{"error":{"status":"NOT_FOUND"}}')
        assert mounted.dead == dead


def test_a_reload_of_the_same_changes_nothing(mounted: Mounted, write: Callable[..., Settings]) -> None:
    """The access token is kept, and the log says nothing."""
    settings = write()
    mounted.push.configure(settings)
    mounted.wake()
    mounted.remote.grant()
    mounted.remote.next()[0].answer(body=SENT)
    with captured() as log:
        mounted.push.configure(settings)
    mounted.wake()
    assert mounted.remote.next()[1].fields["authorization"] == f"Bearer {ACCESS}"
    assert log.events == []


def test_a_new_key_is_taken_over(mounted: Mounted, write: Callable[..., Settings]) -> None:
    """The file is read at each reload; limits hold across it."""
    mounted.push.configure(write())
    for _ in range(6):
        mounted.wake()
    mounted.push.configure(write(project_id="other-project"))
    mounted.wake()
    assert mounted.ended == [("dropped", "quota")]
    mounted.wake("other")
    mounted.remote.grant("at-1")
    mounted.remote.grant("at-2")
    mounted.remote.accept()
    received = [line.request() for line in mounted.remote.lines]
    assert sum("other-project" in found.target for found in received if found is not None) == 1


def test_a_key_that_became_unusable(mounted: Mounted, write: Callable[..., Settings], tmp_path: Path) -> None:
    """The one before stays in force, and a line says what is wrong, without a secret."""
    settings = write()
    mounted.push.configure(settings)
    (tmp_path / "fcm.json").write_text(SECRET)
    with captured() as log:
        mounted.push.configure(settings)
    assert mounted.push.wakes is not None
    assert log.texts == ["--push-credentials 'fcm.json': it is no JSON object; give the key file of a service account"]


def test_turning_it_off_and_on(mounted: Mounted, write: Callable[..., Settings]) -> None:
    """A reload can do both; wakes in flight end in order."""
    settings = write()
    mounted.push.configure(settings)
    mounted.wake()
    mounted.push.configure(Settings())
    assert mounted.push.wakes is None
    mounted.remote.grant()
    mounted.remote.next()[0].answer(body=SENT)
    assert mounted.ended == [("sent", "")]
    mounted.push.configure(settings)
    assert mounted.push.wakes is not None


def test_no_access_token_is_an_error(mounted: Mounted, write: Callable[..., Settings]) -> None:
    """The operator is told, with a word and the time until the next attempt."""
    mounted.push.configure(write())
    with captured() as log:
        mounted.wake()
        line, _ = mounted.remote.next(4001)
        line.answer(400, b'{"error":"invalid_grant","error_description":"s3cr3t"}')
    assert log.texts == ["there is no access token for push wakes: invalid_grant; trying again after 5 s"]
    assert mounted.ended == [("token_fetch_failed", "invalid_grant")]


# The start


def test_a_usable_key_is_no_problem(write: Callable[..., Settings], tmp_path: Path) -> None:
    """The protocol has no problem with it."""
    assert PYRY.findings(write(), tmp_path) == ()


def test_an_unusable_key_is_a_problem(write: Callable[..., Settings], tmp_path: Path) -> None:
    """The line names option, value and fix."""
    (problem,) = PYRY.findings(write(private_key=SECRET), tmp_path)
    assert str(problem) == "--push-credentials 'fcm.json': it has no usable private_key; download the key again"


def test_a_key_that_cannot_sign_is_a_problem(write: Callable[..., Settings], tmp_path: Path) -> None:
    """The key is tried before the start."""
    broken = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"
    (problem,) = PYRY.findings(write(private_key=broken), tmp_path)
    assert "no usable RSA key" in str(problem)
    assert SECRET not in str(problem)


def test_a_missing_library(write: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line has the command that installs it."""
    monkeypatch.setattr(mount, "LIBRARIES", ("no_such_library",))
    assert str(push_finding(write(), tmp_path)) == (
        "--push-credentials: it needs treq and PyJWT, which are not installed; pip install 'pyryrelay[push]'"
    )
    assert push_finding(Settings(), tmp_path) is None


def test_nothing_is_imported_while_it_is_off() -> None:
    """Most relays send no wakes, and do not pay for the libraries at the start."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pyryrelay.mounts import Settings\n"
        "from pyryrelay.pyry.mount import PYRY\n"
        "PYRY.findings(Settings(), Path())\n"
        "sys.exit(bool({'treq', 'jwt', 'twisted.web.client'} & {*sys.modules}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
