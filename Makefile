# `make` alone prints what there is. Needed: GNU make and a Python of at least 3.11 (PYTHON=… picks one).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
UV_VERSION := 0.13.9

# A name on PATH proves nothing: pyenv's shims answer only with an error, and Debian splits venv off.
CANDIDATES = $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
# What the editable install is made of: the parts in C are built with it.
PROJECT := pyproject.toml setup.py $(shell find appliers cdc -name '_*.[ch]')
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The lock file is the whole truth: hashes for what is fetched, and the build uses what it brought.
INSTALL_PROJECT = $(PIP_INSTALL) --no-deps --no-build-isolation --editable .

.PHONY: help
help: ## Show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-9s %s\n' "$$name" "$$text"; done

$(VENV)/.made:
	@for python in $(CANDIDATES); do \
		if "$$python" -c '$(FITS)' 2>/dev/null; then \
			"$$python" -m venv --clear $(VENV); touch $@; exit 0; fi; done; \
	echo 'Error: no Python of at least 3.11 with its venv module among: $(CANDIDATES)' >&2; \
	echo 'Try: install one (on Debian: python3 and python3-venv), or PYTHON=/path/to/python3 make …' >&2; \
	exit 1

$(VENV)/.runtime: $(VENV)/.made requirements-demo.lock $(PROJECT)
	$(PIP_INSTALL) --require-hashes --requirement requirements-demo.lock
	$(INSTALL_PROJECT)
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements.lock $(PROJECT)
	$(PIP_INSTALL) --require-hashes --requirement requirements.lock
	$(INSTALL_PROJECT)
	@touch $(VENV)/.runtime $@

.PHONY: install
install: $(VENV)/.runtime ## Make .venv; the command is then .venv/bin/cdc

.PHONY: demo
demo: $(VENV)/.runtime ## See it work: PostgreSQL into SQLite, live, compared row by row at the end
	@$(BIN)/cdc demo

# Debian's packages with the programs alone: no service, no account, and nothing that is removed for
# them. What cannot be had is told here, and by the tests themselves, which skip or, in CI, fail.
MARIADB_INSTALL := apt-get install --no-install-recommends mariadb-server-core mariadb-client-core
MARIADB_PATH := $$PATH:/usr/sbin:/usr/libexec

.PHONY: servers
servers: $(VENV)/.dev ## Bring the MariaDB and the MySQL that the tests need
	@if ! PATH="$(MARIADB_PATH)" type -P mariadbd mariadb-install-db >/dev/null; then \
		if [[ $$EUID == 0 ]] && type -P apt-get >/dev/null; then \
			echo 'Installing MariaDB for the tests …'; \
			{ apt-get update --quiet --quiet && DEBIAN_FRONTEND=noninteractive \
				$(MARIADB_INSTALL) --quiet --quiet --yes --no-remove </dev/null; } || \
			echo 'MariaDB cannot be tested here: apt-get could not install it, see above' >&2; \
		else \
			echo 'MariaDB cannot be tested here. Try, as root: $(MARIADB_INSTALL)' >&2; \
		fi; \
	fi
	@$(BIN)/python -m tests.fetch_mysql

.PHONY: test
test: servers ## Run the tests against real servers (TESTS='-k word' narrows them)
	$(BIN)/pytest -n 4 --dist worksteal $(TESTS)

.PHONY: faults
faults: servers ## Run the long fault runs
	$(BIN)/pytest -m faults --timeout=3600 $(TESTS)
	CDC_TEST_EXAMPLES=500 $(BIN)/pytest -n 4 --timeout=3600 tests/test_applier_histories.py

.PHONY: bench
bench: servers ## Measure beside PostgreSQL's subscription and MariaDB's replica
	$(BIN)/pytest -m bench -s --timeout=0 $(TESTS)

.PHONY: check
check: $(VENV)/.dev ## Lint, formatting, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --quiet --no-header tests/test_architecture.py

.PHONY: format
format: $(VENV)/.dev ## Format, and fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

# A venv of its own: uv is five times the size of everything that it locks for the daemon.
build/uv/bin/uv: | $(VENV)/.made
	$(BIN)/python -m venv --clear build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

LOCK = build/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--python-version 3.11 --custom-compile-command 'make lock' $(LOCK_OPTIONS) pyproject.toml

.PHONY: lock
lock: build/uv/bin/uv ## Pin the newest versions that pyproject.toml allows
	$(LOCK) --upgrade --all-extras --group dev --output-file requirements.lock
	$(LOCK) --upgrade --extra demo --group build --constraints requirements.lock \
		--output-file requirements-demo.lock

.PHONY: clean
clean: ## Remove everything that make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find cdc appliers -name '*.so' -delete
	find cdc appliers tests -name __pycache__ -type d -prune -exec rm -rf {} +
