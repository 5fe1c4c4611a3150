# `make demo` and `make test` work as the first command on a fresh clone.
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FRAMEWORKS ?= .venv-frameworks
FRAMEWORKS_READY := $(FRAMEWORKS)/.ready
ZOO ?= .venv-zoo
ZOO_READY := $(ZOO)/.ready
REAL ?= .venv-real
REAL_READY := $(REAL)/.ready
REAL_NEED := tests/real/requirements.txt tests/real/requirements-no-deps.txt
ZOO_NEED := tests/zoo/requirements.txt tests/zoo/requirements-no-deps.txt
FRAMEWORKS_NEED := tests/frameworks/requirements.txt tests/frameworks/requirements-no-deps.txt

.PHONY: demo test test-fast coverage test-frameworks test-real zoo backtest lab chaos lint fix bench ui clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(CONSTRAINTS) -e ".[dev]"
	touch $(READY)

demo: $(READY)       ## the whole road on real tokens, into ./timtrack
	$(BIN)/tim demo

test: $(READY)       ## every test, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## without servers and browsers
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

coverage: $(READY)   ## lines that the tests run, in their own processes
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --cov=flows --cov=tasks --cov-report=term:skip-covered --cov-fail-under=92

test-frameworks: $(READY) $(FRAMEWORKS_READY)  ## the tables against verl's, TRL's, SkyRL's, OpenRLHF's own code
	$(FRAMEWORKS)/bin/python tests/frameworks/write.py build/frameworks
	$(BIN)/python -m tests.frameworks.compare build/frameworks
	$(BIN)/python -m tests.frameworks.hooks_compare build/hooks $(FRAMEWORKS)/bin/python

$(FRAMEWORKS_READY): $(FRAMEWORKS_NEED)
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/pip install --quiet --no-compile --disable-pip-version-check -r tests/frameworks/requirements.txt
	$(FRAMEWORKS)/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps --ignore-requires-python -r tests/frameworks/requirements-no-deps.txt
	touch $(FRAMEWORKS_READY)

test-real: $(READY) $(REAL_READY)  ## vLLM, CTranslate2, Hugging Face and TRL on a real model, watched (3.5 GB, 10 minutes)
	$(REAL)/bin/python tests/real/model.py build/real/model
	$(BIN)/python -m tests.real.run build/real $(REAL)/bin/python

# torchvision, torchaudio and torchcodec come for another torch, and break imports.
$(REAL_READY): $(REAL_NEED)
	$(PYTHON) -m venv $(REAL)
	$(REAL)/bin/pip install --quiet --no-compile --disable-pip-version-check -r tests/real/requirements.txt
	$(REAL)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(REAL)/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps -r tests/real/requirements-no-deps.txt
	touch $(REAL_READY)

zoo: $(READY) $(ZOO_READY)  ## faults of real engines, and which causes are named (hours)
	$(ZOO)/bin/python tests/zoo/make.py build/zoo --half 0 --seeds 0 1
	$(ZOO)/bin/python tests/zoo/make.py build/zoo --half 1 --seeds 2 3
	$(BIN)/python -m tests.zoo.judge build/zoo --write
	$(BIN)/python -m tests.zoo.random_clean

$(ZOO_READY): $(ZOO_NEED)
	$(PYTHON) -m venv $(ZOO)
	$(ZOO)/bin/pip install --quiet --no-compile --disable-pip-version-check -r tests/zoo/requirements.txt
	$(ZOO)/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps -r tests/zoo/requirements-no-deps.txt
	touch $(ZOO_READY)

backtest: $(READY)   ## how early the early warnings come, on toy runs (half an hour)
	$(BIN)/python -m tests.backtest build/backtest

lab: $(READY)        ## toy runs by mismatch and correction: does the advice hold? (half an hour, goes on where it was)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.lab build/lab --write

chaos: $(READY)      ## an hour of disturbed watchers, held against undisturbed ones
	$(BIN)/python -m tests.chaos --seeds 1 2 3 --minutes 20

# The package as it is installed, for tools that want it in one folder.
LINKS := build/links/timtrack
$(LINKS):
	mkdir -p $(LINKS)
	ln -sfn ../../../flows/timtrack/__init__.py ../../../flows ../../../tasks ../../../sql $(LINKS)

lint: $(READY) $(LINKS)  ## style, types, SQL
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
	rm -rf $(VENV) $(FRAMEWORKS) $(REAL) $(ZOO) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis timtrack
