# make demo | test | grid | lint | bench | peers | clean.  Each makes .venv first when it is not there.
PYTHON ?= python3
# Where pip finds torch; empty: pip's own default. The README says how to get the CPU-only build.
TORCH_INDEX ?=

PIP     := .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PROJECT := pyproject.toml constraints.txt Makefile
RUN     ?= runs/demo
# Options of the benchmarks: BENCH=--quick, BENCH='--threads 1'.
BENCH   ?=

.PHONY: demo test grid lint bench peers clean
.DELETE_ON_ERROR:

demo: .venv/run.stamp
	@.venv/bin/python examples/demo.py $(RUN)

test: .venv/test.stamp
	.venv/bin/python -m pytest -q -n auto --dist worksteal

# GRID='-k ugrnn' takes the points of one cell.
grid: .venv/test.stamp
	.venv/bin/python -m pytest -q -n auto --dist loadgroup --grid tests/nn/test_grid.py $(GRID)

lint: .venv/lint.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# No speed without the numbers: the tests of what is timed come first.
bench: .venv/test.stamp
	.venv/bin/python -m pytest -q -n auto tests/emit tests/nn/test_against_torch.py
	.venv/bin/python -m benchmarks --json runs/bench.json $(BENCH)

# The libraries that `make bench` measures too where they are installed; about 2 GB.
peers: .venv/run.stamp
	@$(PIP) --no-build-isolation --editable '.[bench]'

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
