# Two commands matter: `make up` runs Parley, `make test` runs the whole suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL ?= $(PIP) install

# Parley is many processes: each would compile all the libraries that it loads.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up test check fix lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/.runtime ## install what is missing, then run everything until Ctrl-C
	@$(BIN)/parley up

# Most tests wait, so four at a time; those of one file share their fixtures. Models and matrices of
# tests are so small that a second thread for one costs more than it does.
test: $(VENV)/.dev ## run the whole test suite, in a real browser too
	@command -v chromium >/dev/null || $(call apt_install,chromium)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 4 --dist loadfile

check: $(VENV)/.dev ## format, lint, import contracts and types, as CI and pre-commit do
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

fix: $(VENV)/.dev ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## write the versions installed now to requirements.lock
	$(PIP) freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean: ## remove the environment and caches; the state in .parley stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The lock is a constraints file: the extras choose what is installed, the lock in which version.
$(VENV)/.runtime: pyproject.toml requirements.lock | $(BIN)/python
	$(INSTALL) --quiet --constraint requirements.lock --editable '.[train]'
	@touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(BIN)/python
	$(INSTALL) --quiet --constraint requirements.lock --editable '.[train,dev]'
	@touch $@ $(VENV)/.runtime

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Parley needs Python 3.11 or newer; name one: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call apt_install,python3-venv)
	$(PYTHON) -m venv $(VENV)

# Debian's packages: installed where we may, else named.
apt_install = { test "$$(id -u)" = 0 && apt-get update -q && apt-get install -yq --no-install-recommends $(1); } || \
	{ echo "Missing: run 'sudo apt-get install $(1)' and try again."; exit 1; }
