# `make` lists the targets. Needs python3.11 (with venv), pip and make; everything else is installed into .venv.
PY ?= python3.11
EXTRAS ?= dev,export,report,pipeline,gpu,gpu-data,speech,cc
BIN := .venv/bin
# uv does not read pip's settings. A wheel folder known to pip may hold the CPU build of torch; without one, uv
# takes the torch family from PyTorch's CPU index. Neither way can pull a CUDA wheel.
WHEELS := $(or $(PIP_FIND_LINKS),$(shell $(PY) -m pip config get global.find-links 2>/dev/null))
TORCH := $(if $(WHEELS),--find-links $(WHEELS),--torch-backend=cpu)
WORKERS ?= 2
LOWEST ?= tests

.PHONY: help claims setup demo fmt lint types test test-all kill-test check bench peers data-check docs lowest sbom wheel-test clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/uv:
	@$(PY) -c 'import venv, ensurepip' 2>/dev/null || { echo "netfit: $(PY) lacks venv; on Debian: apt-get install python3.11-venv"; exit 2; }
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q uv

.venv/.stamp: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install -q --python $(BIN)/python $(TORCH) -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

setup: .venv/.stamp  ## install everything into .venv

demo: setup  ## train, compress and report on scikit-learn's digits, from scratch, in a few minutes
	$(BIN)/netfit compress digits-cnn --data digits --target host --latency 0.5 --trials 24 --run runs/demo

fmt: setup  ## rewrite the code in the house format
	$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format -q .

lint: setup  ## style, import layers, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/vulture

types: setup  ## mypy --strict
	$(BIN)/mypy

test: setup  ## the test suite
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not kill"

test-all: setup  ## the test suite with the slow tests
	$(BIN)/python -m pytest -n $(WORKERS) -m "not kill"

kill-test: setup  ## kill searches at random moments and resume them
	$(BIN)/python -m pytest -m kill

check: lint types test  ## what must be green before a commit

bench: setup  ## run the benchmarks; results go to benchmarks/results
	$(BIN)/python -m benchmarks

peers: | $(BIN)/uv  ## install the peers netfit is compared with, in their own environment
	$(PY) -m venv .venv-peers
	$(BIN)/uv pip install -q --python .venv-peers/bin/python $(TORCH) -c constraints.txt -r benchmarks/peers.txt -e ".[export]"
	$(BIN)/uv pip install -q --python .venv-peers/bin/python --no-deps -r benchmarks/peers_bare.txt

claims: setup  ## write docs/claims.md from the result files of the benchmarks
	$(BIN)/python scripts/claims.py

data-check: setup  ## check the data sets in $$NETFIT_DATA against their known floors
	$(BIN)/python -m benchmarks.data_check

docs: setup  ## build the documentation into build/docs; a warning is an error
	$(BIN)/uv pip install -q --python $(BIN)/python $(TORCH) -c constraints.txt -e ".[$(EXTRAS),docs]"
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

wheel-test: setup  ## build the wheel, install it in a fresh environment, run the tests against it
	rm -rf build/wheel && $(BIN)/uv build -q --wheel -o build/wheel
	$(PY) -m venv build/wheel/venv
	$(BIN)/uv pip install -q --python build/wheel/venv/bin/python $(TORCH) -c constraints.txt "$$(ls build/wheel/*.whl)[export,report,dev]"
	build/wheel/venv/bin/python -m pytest -n $(WORKERS) -m "not slow and not kill" tests

# torch stays at the CPU build of constraints.txt: the lowest match of an index would be one with CUDA.
lowest: | $(BIN)/uv  ## install the lowest allowed versions in their own environment and run the quick tests
	$(PY) -m venv --clear build/lowest
	$(BIN)/uv pip install -q --python build/lowest/bin/python $(TORCH) -c constraints.txt torch
	$(BIN)/uv pip install -q --python build/lowest/bin/python $(TORCH) -c constraints.txt --resolution lowest-direct -e ".[export,report,pipeline,gpu,gpu-data,speech]"
	$(BIN)/uv pip install -q --python build/lowest/bin/python pytest pytest-xdist pytest-timeout hypothesis
	build/lowest/bin/python -m pytest -n $(WORKERS) -m "not slow and not kill" $(LOWEST)

sbom: setup  ## write what is installed as a CycloneDX list to build/sbom.json
	$(BIN)/uv tool run -q --from cyclonedx-bom cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml -o build/sbom.json

clean:  ## remove what the targets made
	rm -rf .venv .venv-peers build runs
