# Every target sets itself up in .venv; running one again installs nothing twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint types rooms pytest clouds test-clouds bench bench-step soak clean

help:  ## what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.examples: pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smlt needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[examples]'
	@touch $@

$(VENV)/.dev: $(VENV)/.examples
	$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.clouds: $(VENV)/.dev
	$(INSTALL) -e '.[clouds]'
	npm install --silent --no-audit --no-fund --prefix .clouds azurite@3.35.0
	@touch $@

venv: $(VENV)/.dev  ## everything for development, in .venv

demo: $(VENV)/.examples  ## train a small CNN on real handwritten digits, on two local workers
	cd examples/digits && ../../$(BIN)/smlt train --workers 2

test: lint types rooms pytest  ## all checks: ruff, mypy, import rules, pytest

lint: $(VENV)/.dev  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

rooms: $(VENV)/.dev  ## which room may import which
	$(BIN)/lint-imports

pytest: $(VENV)/.dev  ## the tests alone
	$(BIN)/python -m pytest -n auto --dist loadfile

clouds: $(VENV)/.clouds  ## an emulated AWS to try things on, until Ctrl-C; it says how
	$(BIN)/python -m tests.emulators

test-clouds: $(VENV)/.clouds  ## the tests that need emulated clouds; about ten minutes
	$(BIN)/python -m pytest -m clouds --timeout=900 -n 2 --dist loadfile

bench: $(VENV)/.dev  ## gradient synchronisation beside gloo, in one run
	$(BIN)/smlt bench sync

bench-step: $(VENV)/.dev  ## whole training steps beside torch DDP, and behind shaped links (as root)
	$(BIN)/python -m benchmarks.step.ddp
	$(BIN)/python -m benchmarks.step.shaped_link

soak: $(VENV)/.dev  ## an hour or two: all seeds, the GPT, 500 random disturbances, 20 minutes of kills and hand-overs
	$(BIN)/python -m pytest -m soak --timeout=1800 -n auto
	$(BIN)/python -m benchmarks.soak

clean:  ## forget the environment and what tools left
	rm -rf $(VENV) .clouds build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
