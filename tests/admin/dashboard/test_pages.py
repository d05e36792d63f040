"""The files of the dashboard: what they are, what they may load, and what their code must not do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.admin import Client, open_access
from twisted.internet.task import Clock

from pyryrelay.admin.dashboard import pages
from pyryrelay.admin.dashboard.pages import POLICY, Login, assets_folder, read_assets
from pyryrelay.admin.site import admin_site

FOLDER = Path(pages.__file__).parent / "assets"
OURS = sorted(path for path in FOLDER.iterdir() if not path.name.startswith("uPlot"))
SCRIPTS = [path for path in OURS if path.suffix == ".js"]
HTML = [path for path in OURS if path.suffix == ".html"]


@pytest.fixture
def client() -> Client:
    """A client of a site with the dashboard."""
    assets = read_assets()
    access = open_access()
    login = Login(access, assets["login.html"])
    dashboard = {"/": assets["index.html"], "/assets": assets_folder(assets), "/login": login}
    return Client(admin_site({}, Clock(), {}, access, dashboard))


def test_the_front(client: Client) -> None:
    """Browsers get the dashboard, everybody else the paths, and caches are told what decides."""
    page = client.request("GET", "/", Accept="text/html,*/*")
    assert page.fields["Content-Type"] == "text/html; charset=utf-8"
    assert page.fields["Content-Security-Policy"] == POLICY
    assert client.request("GET", "/").fields["Content-Type"].startswith("text/plain")
    assert {client.request("GET", "/", Accept=text).fields["Vary"] for text in ("text/html", "*/*")} == {"Accept"}


def test_the_policy() -> None:
    """Nothing is loaded from elsewhere, nothing that stands in a page runs, and no page frames it."""
    assert POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_each_file_is_served(client: Client, path: Path) -> None:
    """Each file has its type and the policy, and is sent again only if it has changed."""
    response = client.request("GET", f"/assets/{path.name}")
    assert (response.status, response.text) == (200, path.read_text(encoding="utf-8"))
    assert response.fields["Content-Security-Policy"] == POLICY
    assert response.fields["X-Content-Type-Options"] == "nosniff"
    assert response.fields["Cache-Control"] == "no-cache"
    again = client.request("GET", f"/assets/{path.name}", If_None_Match=response.fields["ETag"])
    assert (again.status, again.text) == (304, "")


@pytest.mark.parametrize("path", ["", "/", "/nothing.js", "/../pages.py", "/%2e%2e/pages.py", "/static/app.js"])
def test_there_is_nothing_else(client: Client, path: str) -> None:
    """No other file of the machine can be had."""
    assert client.request("GET", f"/assets{path}").status == 404


@pytest.mark.parametrize("path", HTML, ids=lambda path: path.name)
def test_pages_load_what_is_there(path: Path) -> None:
    """A page names files of this package only, has no script or style in itself, and says its language."""
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r'(?:src|href)="(/assets/[^"]*)"', text):
        assert (FOLDER / name.removeprefix("/assets/")).is_file(), name
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", text)
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize("path", HTML, ids=lambda path: path.name)
def test_fields_have_labels(path: Path) -> None:
    """Each field of a form has a label, and each id is used once."""
    text = path.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    labelled = set(re.findall(r'<label for="([^"]*)"', text)) | set(
        re.findall(r'<label[^>]*><input id="([^"]*)"', text)
    )
    assert set(re.findall(r'<(?:input|select)[^>]*\bid="([^"]*)"', text)) == labelled
    referred = {name for names in re.findall(r'aria-labelledby="([^"]*)"', text) for name in names.split()}
    assert referred <= set(ids)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_text_only(path: Path) -> None:
    """No script reads text as HTML or code, whatever it holds; modules name files that are there."""
    text = path.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|createContextual"
    )
    assert not re.findall(forbidden, text)
    for name in re.findall(r'from "\./([^"]*)"', text):
        assert (FOLDER / name).is_file(), name
    assert not re.findall(r"https?://", text)


def test_ids_in_scripts_exist() -> None:
    """An element that a script looks for by its id is in the page."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    for path in SCRIPTS:
        for name in re.findall(r'byId\("([^"]*)"\)', path.read_text(encoding="utf-8")):
            assert f'id="{name}"' in page, (path.name, name)


def test_uplot_has_its_licence_and_version() -> None:
    """The library that is not ours is named with its version, and its licence is beside it."""
    licence = (FOLDER / "uPlot.LICENSE.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^uPlot ([\d.]+), from the npm registry", licence)
    assert "The MIT License" in licence
    assert f"(v{version})" in (FOLDER / "uPlot.iife.min.js").read_text(encoding="utf-8")[:200]
