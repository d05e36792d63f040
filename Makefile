# `make` prints the targets. Everything is installed into .venv, nothing outside the checkout is touched.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

# The first interpreter that really runs, is new enough and can make environments (a version manager's shims may do neither).
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1; \
	then echo $$p; break; fi; done)

# Extra arguments: make test ARGS="-k gcra", make run ARGS="--max-connections 500"
ARGS ?=
# How long make fuzz takes for each parser
SECONDS ?= 600
# Another relay, running on this machine, that make bench compares with: make bench PEER=ws://127.0.0.1:8000
PEER ?=

METADATA := setup.py pyproject.toml src/pyryrelay/_version.py

.PHONY: help run demo demo-nostr bench bench-quick test test-thorough chaos soak lint format coverage docs site fuzz build deb release lock audit sbom clean

help:  ## print this list
	@echo "make <target>, where <target> is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

run: $(VENV)/.run  ## start the relay in the foreground on 127.0.0.1:8080
	@echo "==> starting the relay on 127.0.0.1:8080; Ctrl-C stops it. Try in another terminal:"
	@echo "      curl http://127.0.0.1:8080/healthz     is it well?"
	@echo "      curl http://127.0.0.1:9090/metrics     what is it doing?"
	@echo "      make demo                              see it relay, and refuse a flood"
ifneq (,$(findstring --nostr,$(ARGS)))
	@echo "    It is a Nostr relay too. Add ws://127.0.0.1:8080 to a Nostr client, or try:"
	@echo "      curl -H 'Accept: application/nostr+json' http://127.0.0.1:8080/"
	@echo "      $(BIN)/websockets ws://127.0.0.1:8080/           type [\"REQ\",\"x\",{\"limit\":5}]"
	@echo "      $(BIN)/pyryrelay nostr stats             how many events are there?"
	@echo "      make demo-nostr                        see two clients and a spammer"
endif
	@exec $(BIN)/twistd --nodaemon --pidfile= pyryrelay $(ARGS)

demo: $(VENV)/.run  ## show a binary, phones and a flood against a relay
	@echo "==> running the demonstration"
	@$(BIN)/python examples/demo.py $(ARGS)

demo-nostr: $(VENV)/.run  ## show two clients and a spammer on a Nostr relay
	@echo "==> running the demonstration of the Nostr relay"
	@$(BIN)/python examples/demo_nostr.py $(ARGS)

bench: $(VENV)/.bench  ## measure on this machine and write docs/performance.md (25 minutes)
	@echo "==> measuring; this takes about 25 minutes"
	@$(BIN)/python benchmarks/report.py $(if $(PEER),--peer $(PEER)) $(ARGS)

bench-quick: $(VENV)/.run  ## measure shorter and rougher, write nothing (6 minutes)
	@echo "==> measuring; this takes about 6 minutes"
	@$(BIN)/python benchmarks/report.py --quick $(if $(PEER),--peer $(PEER)) $(ARGS)

test: $(VENV)/.test  ## run the test suite, without what takes longest
	@echo "==> running the tests"
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not thorough" $(ARGS)

test-thorough: $(VENV)/.test  ## run the long end-to-end tests that "make test" leaves out
	@echo "==> running the thorough tests"
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m thorough $(ARGS)  # they mostly wait

chaos: $(VENV)/.test  ## kill, stop and cut off instances of a cluster for 10 minutes, and check what peers see
	@echo "==> running the chaos driver; it takes about 13 minutes, or less with ARGS=\"--seconds 60\""
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: $(VENV)/.test  ## run a cluster for an hour with a fault each minute, and see whether anything is left over
	@echo "==> running the chaos driver for an hour, or less with ARGS=\"--seconds 300\""
	@$(BIN)/python -m tests.chaos --soak --seconds 3600 $(ARGS)

lint: $(VENV)/.dev  ## check style, formatting and types
	@echo "==> ruff check"
	@$(BIN)/ruff check .
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "==> mypy"
	@$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff sort imports and format
	@echo "==> formatting"
	@$(BIN)/ruff check --select I --fix .
	@$(BIN)/ruff format .

coverage: $(VENV)/.dev  ## measure coverage; fails if a pure module is below 100 %
	@echo "==> running the tests under coverage"
	@$(BIN)/tox run -e coverage -- $(ARGS)

docs: $(VENV)/.run  ## write the generated pages and tables under docs/reference
	@echo "==> generating docs/reference"
	@$(BIN)/python docs/generate.py

site: $(VENV)/.docs  ## build the documentation as a site into build/site
	@echo "==> building the site"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "    open build/site/index.html"

fuzz: $(VENV)/.run  ## fuzz every parser, SECONDS (600) of CPU time each; needs atheris and installs it
	@$(BIN)/python -c 'import atheris' 2>/dev/null || { echo "==> installing atheris"; $(PIP) install atheris; }
	@echo "==> fuzzing for $(SECONDS) CPU seconds each"
	@$(BIN)/python fuzz/run.py --seconds $(SECONDS) $(ARGS)

build: $(VENV)/.dev  ## build sdist and wheel into dist/, and check them
	@echo "==> building"
	@rm -rf build dist docs/man
	@$(BIN)/python docs/manpages.py docs/man
	@$(BIN)/python -m build
	@$(BIN)/twine check --strict dist/*
	@ls -l dist

deb: build  ## build a Debian package into dist/, with an environment of its own in /opt/pyryrelay
	@echo "==> building the Debian package"
	@contrib/deb/build dist/*.whl dist

release: $(VENV)/.dev  ## build the changelog, then what is published, into dist/; see CONTRIBUTING.md
	@test -z "$$(git status --porcelain)" || { echo "Commit everything first." >&2; exit 1; }
	@echo "==> building the changelog of $$($(BIN)/python -c 'import pyryrelay; print(pyryrelay.__version__)')"
	@$(BIN)/towncrier build --yes
	@$(MAKE) --no-print-directory build sbom
	@cd dist && sha256sum * >SHA256SUMS && cat SHA256SUMS

lock: $(VENV)/.dev  ## pin anew what the container image installs, with hashes
	@echo "==> pinning the newest versions that setup.py admits"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python requirements/lock.py $(ARGS)

audit: $(VENV)/.dev  ## look for known vulnerabilities of the pinned versions; needs the network
	@echo "==> asking for known vulnerabilities"
	@$(BIN)/pip-audit --disable-pip --require-hashes --requirement requirements/runtime.txt $(ARGS)

sbom: $(VENV)/.dev  ## write the bill of materials, dist/pyryrelay.cdx.json
	@echo "==> writing the bill of materials"
	@mkdir -p dist
	@$(BIN)/python requirements/sbom.py dist/pyryrelay.cdx.json

clean:  ## remove everything that make made
	@echo "==> cleaning"
	@rm -rf $(VENV) .tox .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov build dist docs/man
	@rm -rf src/*.egg-info twisted/plugins/dropin.cache
	@rm -f twistd.pid twistd.log* pyryrelay-jail.sqlite* pyryrelay-nostr.sqlite*
	@find src tests twisted -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer that can make environments was found." \
		"Install one (Debian: python3-venv) or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "==> creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# Stamps: each is as new as the last installation that it stands for.
$(VENV)/.run: EXTRAS := [all]
$(VENV)/.test: EXTRAS := [test,all]
$(VENV)/.dev: EXTRAS := [test,dev,all]
$(VENV)/.bench: EXTRAS := [bench,nostr]
$(VENV)/.docs: EXTRAS := [docs,nostr]
$(VENV)/.run $(VENV)/.test $(VENV)/.dev $(VENV)/.bench $(VENV)/.docs: $(METADATA) | $(BIN)/python
	@echo "==> installing pyryrelay$(EXTRAS) into $(VENV) (a minute the first time)"
	@$(PIP) install --editable ".$(EXTRAS)"
	@touch $@
