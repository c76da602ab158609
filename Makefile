# make demo | test | lint | bench | clean.  Each makes .venv first when it is not there.
PYTHON ?= python3
# Where pip finds torch; empty: pip's own default. The README says how to get the CPU-only build.
TORCH_INDEX ?=

PIP     := .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PROJECT := pyproject.toml constraints.txt Makefile
RUN     ?= runs/demo

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

demo: .venv/run.stamp
	@.venv/bin/python examples/demo.py $(RUN)

test: .venv/test.stamp
	.venv/bin/python -m pytest -q

lint: .venv/lint.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/run.stamp
	.venv/bin/python -m benchmarks.charlm

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and pinned: any other order may let pip choose another build of it.
.venv/run.stamp: $(PROJECT)
	@echo "setting up .venv (torch is the large part)"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable .
	@touch $@

.venv/test.stamp: .venv/run.stamp
	@$(PIP) --no-build-isolation --editable '.[test]'
	@touch $@

.venv/lint.stamp: .venv/run.stamp
	@$(PIP) --no-build-isolation --editable '.[lint]'
	@touch $@
