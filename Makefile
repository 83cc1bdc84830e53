# SPDX-License-Identifier: Apache-2.0
VENV := .venv
BIN := $(VENV)/bin
# The newest Python from 3.11 on that can make a virtual environment; override with make PYTHON=...
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$python; break; }; done)
INSTALLED := $(VENV)/.installed
RESULTS ?= results/$(shell date -u +%Y%m%d-%H%M%S)

.DEFAULT_GOAL := help
.PHONY: help install bench test check docs train clean

help: ## print these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with Septet and the developers' tools in it

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Septet needs Python 3.11 or newer with venv (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

bench: install ## the main job: run the networks under LoadGen, print the table, write the report
	$(BIN)/septet bench --output $(RESULTS)

test: install ## run all tests, one process a core
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

check: install ## formatting, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: install ## write the reference pages into docs/_build
	$(BIN)/pdoc --docformat restructuredtext --output-directory docs/_build septet '!septet.harness.loadgen'

train: install ## train a network's miniature again: make train NETWORK=resnet50
	@test -f "recipes/$(NETWORK).py" || { echo "say which network: make train NETWORK=resnet50 (or another of:" \
		"$$($(BIN)/python -c 'from septet.workloads.workload import networks; print(*networks())'))"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	$(BIN)/python recipes/$(NETWORK).py

clean: ## remove what make has made
	rm -rf $(VENV) build dist docs/_build
