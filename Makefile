# `make demo` and `make test` work as the first command on a fresh clone.
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast lint fix bench ui clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(CONSTRAINTS) -e ".[dev]"
	touch $(READY)

demo: $(READY)       ## the whole road on real tokens, into ./timtrack
	$(BIN)/tim demo

test: $(READY)       ## every test, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

test-fast: $(READY)  ## without servers and browsers
	$(BIN)/pytest -m "not slow"

lint: $(READY)       ## style, types, SQL
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --disable-progress-bar -q sql

fix: $(READY)        ## mend what the linters can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/sqlfluff fix --disable-progress-bar -q sql
	$(BIN)/python -m tests.readme

bench: $(READY)      ## time and memory, beside the straightforward script
	$(BIN)/python tests/bench/bench.py

ui: $(READY)         ## MLflow on what the demo logged
	$(BIN)/tim ui

clean:               ## remove what make made, and the demo's output
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis timtrack
