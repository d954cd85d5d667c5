# Everything runs inside a virtual environment that the first target makes; `make help` lists the targets.
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] < (3,13))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test test-ray test-plain test-all test-fast lint install constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## run the main job on text that is already on this machine
	$(BIN)/python jobs/boom.py conf/quickstart.yaml

test: $(STAMP) ## all tests but those of minutes, those that need Ray beside the others
	@$(MAKE) --no-print-directory -j2 test-ray test-plain

test-ray: $(STAMP)
	$(BIN)/python -m pytest -m "ray and not long"

test-plain: $(STAMP)
	nice -n 19 $(BIN)/python -m pytest -m "not ray and not long" # Ray's workers have 15 and would starve beside it

test-all: $(STAMP) ## all tests
	$(BIN)/python -m pytest

test-fast: $(STAMP) ## tests that need no Ray cluster and take no time
	$(BIN)/python -m pytest -m "not ray and not slow"

lint: $(STAMP) ## style, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

constraints: ## write constraints.txt from what is installed
	@{ grep '^#' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/^torch==\([0-9.]*\)+.*/torch==\1/'; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove the virtual environment and caches, not the store
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
