# Everything runs in .venv, which is made on first use. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
# Two test processes, one thread each: faster than two that fight for the same cores.
PYTEST := env OMP_NUM_THREADS=1 MPLBACKEND=Agg $(RUN) -m pytest

.PHONY: help demo test test-slow bench format clean

help:
	@echo "make demo       fine-tune and measure a small ViT on the built-in benchmark, offline; writes runs/demo"
	@echo "make test       ruff, mypy, the arrows between rooms and the quick tests"
	@echo "make test-slow  the slow tests"
	@echo "make bench      speed and memory of a training step, speed of automatic masks"
	@echo "make format     format the code"
	@echo "make clean      remove .venv and caches (results in runs/ stay)"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "relevit needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: $(STAMP)
	$(RUN) -m relevit demo

test: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache
	$(PYTEST) -m "not slow" -n 2

test-slow: $(STAMP)
	$(PYTEST) -m slow

bench: $(STAMP)
	$(RUN) benchmarks/step.py
	$(RUN) benchmarks/masks.py

format: $(STAMP)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
