# make repro: build everything that changed.   make test: run the tests.   make help: the rest.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help
.PHONY: help repro test test-slow check verify sweep-seeds demo benchmark-public benchmark-training constraints

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
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: .venv/installed-dev  ## the tests that take minutes: killed and queued experiments, a Ray cluster
	@OMP_NUM_THREADS=1 python -m pytest -m slow -o faulthandler_timeout=3600

check: .venv/installed-dev  ## style and types
	@ruff check .
	@ruff format --check .
	@mypy

verify: .venv/installed-dev  ## is dvc.lock current, and does the remote hold all it names
	@python -m apps.verify $(ARGS)

N ?= 5
JOBS ?= 1
# SET adds settings: make sweep-seeds N=3 SET='-S train.learning_rate=1e-4'
sweep-seeds: .venv/installed  ## run the same settings over N seeds, then compare
	dvc exp run --queue -S 'train.seed=range(0,$(N))' $(SET)
	dvc exp run --run-all -j $(JOBS)
	python -m apps.compare --strict

demo: .venv/installed-dev  ## the classifier in a browser, at http://127.0.0.1:7860
	@python -m apps.demo

benchmark-public: .venv/installed  ## the pipeline on BANKING77 and CLINC150, over seeds: benchmarks/public/results.md
	@python -m benchmarks.public.run $(ARGS)

benchmark-training: .venv/installed-dev  ## speed of training beside stock Trainer and SetFit: benchmarks/training/results.md
	@python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmark]'
	@python -m benchmarks.training.run $(ARGS)

constraints:  ## resolve every dependency anew and pin it in constraints.txt
	rm -rf .cache/constraints && $(PYTHON) -m venv .cache/constraints
	.cache/constraints/bin/pip install --quiet torch==2.13.0
	.cache/constraints/bin/pip install --quiet -e '.[all,dev,benchmark]'
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
