# make repro: build everything that changed.   make test: run the tests.   make help: the rest.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help
.PHONY: help repro test check constraints

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

repro: .venv/installed  ## install what is missing, then rebuild whatever changed, up to the evaluation
	@dvc repro
	@echo
	@echo "metrics     metrics/*.json; over experiments: dvc exp show --only-changed"
	@echo "report      metrics/report.html"
	@echo "plots       dvc plots show"
	@echo "classifier  models/classifier"

test: .venv/installed-dev  ## install what is missing, then run the tests
	@python -m pytest

check: .venv/installed-dev  ## style and types
	@ruff check .
	@ruff format --check .
	@mypy

constraints:  ## resolve every dependency anew and pin it in constraints.txt
	rm -rf .cache/constraints && $(PYTHON) -m venv .cache/constraints
	.cache/constraints/bin/pip install --quiet torch==2.13.0
	.cache/constraints/bin/pip install --quiet -e '.[all,dev]'
	( echo "# Exact versions of everything that is installed; made by: make constraints"; \
	  .cache/constraints/bin/pip freeze --all --exclude-editable \
	  | grep -vE '^(pip|setuptools|wheel|nvidia-.*|cuda-.*|triton)(==| @)' | sed -E 's/\+cpu$$//' ) > constraints.txt
	rm -rf .cache/constraints

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found %d.%d; try make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv
	@touch $@

# pip, because it takes a CPU build of torch where the machine offers one and the CUDA build elsewhere.
.venv/installed: .venv/python pyproject.toml constraints.txt
	@echo "installing (once, some minutes) ..."
	@python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/python pyproject.toml constraints.txt
	@echo "installing (once, some minutes) ..."
	@python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@
