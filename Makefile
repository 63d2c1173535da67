# `make train` and `make test` work on a machine with Python 3.11 to 3.13 and nothing else.
# PYTHON=python3.12 chooses the interpreter; ARGS="activation=relu epochs=3" goes to the training.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?=
ARGS ?= imbalance=sampler activation=mish
PORT ?= 5000
VENV := .venv
BIN := $(VENV)/bin
export MLFLOW_DISABLE_TELEMETRY := true
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

.PHONY: help setup train test slow lint format docs ui sync bench clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' Makefile | while IFS='|' read -r name line; do printf '  make %-8s %s\n' "$$name" "$$line"; done

setup:  ## .venv with the project and everything pinned in constraints.txt; nothing to do while it is good
	@bash .ci/venv "$(VENV)" "$(PYTHON)"

train: setup  ## train on the built-in data: ARGS="imbalance=sampler activation=mish"
	$(BIN)/python -m emoexp.train $(ARGS)

test: setup  ## the tests, in minutes
	$(BIN)/python -m pytest -n 2 --dist worksteal

slow: setup  ## the tests that take long
	$(BIN)/python -m pytest -m slow

lint: setup  ## formatter, linter, type checker, and which folder may import which
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache

format: setup  ## let the formatter and the linter mend what they can
	$(BIN)/python -m ruff check --fix-only --quiet .
	$(BIN)/python -m ruff format .

docs: setup  ## these pages as a site, in site/; a broken link fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# only this machine, and only under these names: private addresses as wildcards, the default, let a page rebind its name
ui: setup  ## the runs in a browser, on this machine alone: PORT=5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/python -m mlflow ui --backend-store-uri sqlite:///mlflow.db \
	  --host 127.0.0.1 --port $(PORT) --workers 1 --allowed-hosts "localhost:$(PORT),127.0.0.1:$(PORT)" --x-frame-options DENY

sync: setup  ## add to MLflow what it missed, and close runs whose process died
	$(BIN)/python -m emoexp.sync

bench: setup  ## speed, as ratios measured in one run
	$(BIN)/python benchmarks/speed.py

clean:  ## remove .venv and caches; runs and the tracking database stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site *.egg-info
	find . -name __pycache__ -not -path './outputs/*' -prune -exec rm -rf {} +
