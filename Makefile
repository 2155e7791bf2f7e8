# make quickstart   install if needed, show the agent that ships, train a small one, report both
# make test         install if needed, then lint, types and all tests
# make test-fast    the tests that take no longer than it takes to think
# JOBS=2 chooses how many processes test at once.
# PYTHON=... chooses the interpreter (3.10 - 3.12); VENV=... the environment's folder.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.memo-habitat-installed
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3 python; do \
	command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && \
	echo $$p && break; done)

.PHONY: help install quickstart test tests test-fast lint format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## the virtual environment in .venv, with this package and its tools

$(STAMP): setup.py pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "no Python 3.10 - 3.12 found: install one, or name it with" \
		"make PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@if [ ! -x $(BIN)/python ]; then echo "== virtual environment in $(VENV) ($(PYTHON))"; \
		$(PYTHON) -m venv $(VENV); fi
	@echo "== install memo-habitat and its dependencies (about 7 GB unpacked, once)"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar on -e '.[dev]'
	@touch $@

quickstart: $(STAMP) ## show the agent that ships, train a small one, report both: 15 minutes
	@echo "== quickstart: the agent that ships, a small training of extobjnav/recall, report"
	@$(BIN)/memo-habitat quickstart $(QUICKSTART)

lint: $(STAMP) ## ruff and mypy
	@echo "== ruff"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== mypy"
	@$(BIN)/mypy

# Torch on one thread a process. Each begins with its part of the files, which keeps the fixtures of a
# file in one process, and takes from the others' when it is done: none works alone at the end.
RUN_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test: $(STAMP) ## lint, types and all tests: fifteen minutes on two cores
	@$(MAKE) --no-print-directory -j2 lint tests  # types take one core, tests both

tests:
	@echo "== tests"
	@$(RUN_TESTS) $(PYTEST)

test-fast: $(STAMP) ## tests that are neither slow nor start commands: four minutes
	@$(RUN_TESTS) -q -m "not slow and not integration" $(PYTEST)

format: $(STAMP) ## rewrite the sources in the house style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean: ## remove caches and builds; keeps .venv and runs
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
