# Everything starts from a machine with python3 >= 3.11 and nothing else. `make help` lists the goals.
SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13,$(shell command -v $(name) >/dev/null && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Debian's python3 comes without what `python3 -m venv` needs; root gets it from apt, others are told.
ENSUREPIP = { test "$$(id -u)" = 0 && apt-get -qq update && apt-get -qq -y install --no-install-recommends python3-venv; } || \
	{ echo "$(PYTHON) cannot make environments: apt install python3-venv" >&2; exit 1; }

.PHONY: bench-int8 bench-calibration sources accuracy crash help venv test lint types contract unit demo bench bench-graphs conformance zoo models docs clean

help:  ## list the goals
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

# A venv per set of extras would be three installs of the same packages: one stamp a set, in one venv.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "edgec needs Python 3.11 or later: none found on PATH" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(ENSUREPIP)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[image,audio]' --constraint constraints.txt
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@ $(VENV)/.user

venv: $(VENV)/.dev  ## everything for working on edgec, in .venv

test: lint types contract unit  ## all checks: style, types, import contract, tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contract: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev devlab-files tensorflow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -q

# Tests of Keras and SavedModel sources skip where this environment cannot be made.
tensorflow: $(VENV)/.dev  ## TensorFlow in an environment of its own, under .cache/edgec
	-EDGEC_HOME=$(CURDIR)/.cache/edgec $(BIN)/edgec doctor --install tensorflow >/dev/null

# Tests of virtual devices skip where these files cannot be made.
devlab-files: $(VENV)/.dev
	@timeout 300 $(BIN)/python -m tools.devlab prepare --best-effort || true

devlab: $(BIN)/python  ## virtual devices (a Pi, a phone, an sshd) in the background, and their inventory; needs Debian
	@$(BIN)/python -m tools.devlab up; code=$$?; $(BIN)/python -m tools.devlab status; exit $$code

devlab-board: $(BIN)/python  ## a whole emulated board that boots; prints the line to log in with
	@$(BIN)/python -m tools.devlab up board; code=$$?; $(BIN)/python -m tools.devlab status; exit $$code

demo: $(VENV)/.user  ## build a real trained model from PyPI for a Raspberry Pi, and validate it here
	$(BIN)/python tools/demo.py

bench: $(VENV)/.dev  ## seconds and peak memory of every stage, and of `edgec --help`
	$(BIN)/python -m tools.bench

bench-graphs: $(VENV)/.dev  ## our TFLite graphs against other converters' of the same models (installs those under .cache/venvs)
	$(BIN)/python -m tools.peers.graphs --page docs/bench-graphs.md

conformance: $(VENV)/.dev  ## ONNX's own test suite through every backend; writes docs/conformance.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.conformance --jobs $(JOBS) --docs --expected

sources: $(VENV)/.dev  ## real models of every kind of source, built and measured; writes docs/sources-measured.md
	$(BIN)/python -W ignore -m tools.sources --write

bench-calibration: $(VENV)/.dev  ## 1000 samples through MobileNetV2: time against plain inference, and peak memory
	$(BIN)/python -m tools.bench_calibration

bench-int8: $(VENV)/.dev  ## our int8 against our float and the peers' int8, speed and accuracy, into docs/bench-int8.md
	$(BIN)/python -m tools.peers.int8 --page docs/bench-int8.md

accuracy: $(VENV)/.dev  ## int8 accuracy against the peers, into docs/accuracy.md
	$(BIN)/python -m tools.accuracy --ours --time --draws 6 --jobs $(JOBS) --write

zoo: $(VENV)/.dev  ## 89 Transformers architectures through both backends (rows not cached yet); writes docs/zoo.md
	$(BIN)/python -m tools.zoo

models: $(VENV)/.dev  ## export the test models from torch into .cache/models
	$(BIN)/python tools/export_models.py

crash: $(VENV)/.dev  ## break 500 flashes at random bytes over real SSH and adb, and 10 by cutting a whole board's power
	$(BIN)/python -m tools.devlab prepare sshd phone board
	$(BIN)/python -m tools.crashtest --count 500 --power 10

docs: $(VENV)/.dev  ## write the generated pages
	$(BIN)/python tools/gen_docs.py

clean:  ## remove the venv and all caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
