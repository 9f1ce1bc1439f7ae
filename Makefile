# Every target sets itself up: it needs only make, Python 3.11 or newer with venv, and a package index.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test check format clean

help:
	@echo "make demo    the whole path on real photographs, into demo/"
	@echo "make test    the tests"
	@echo "make check   format, lint, types and floors; changes nothing"
	@echo "make format  what check asks of the format"

demo: $(READY)
	$(BIN)/controlnet-factory demo --out demo

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,s3]'
	@touch $@
