# Everything installs into .venv from hash-locked requirements. `make help` lists the targets.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
UV = $(BIN)/uv
FAULTS ?= long

.DEFAULT_GOAL := help
.PHONY: help run live setup setup-dev test test-determinism test-faults test-api check bench bench-fanout lock protos clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: $(VENV)/.product  ## start the whole system with the simulated exchange
	@exec $(BIN)/tracker up

live: $(VENV)/.product  ## the same against Binance's public market data
	@exec $(BIN)/tracker up --exchange binance

setup: $(VENV)/.product  ## install the product
setup-dev: $(VENV)/.dev  ## install the product and the development tools

test: $(VENV)/.dev  ## the test suite, on real parts; what kills and freezes them is test-faults
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not faults" $(PYTEST_ARGS)

test-determinism: $(VENV)/.dev  ## the long matrix: one log, the same bytes however it is run (DETERMINISM_SEEDS=1,2)
	DETERMINISM=long $(BIN)/python -m pytest -n 2 --dist load -q -rP tests/determinism $(PYTEST_ARGS)

test-faults: $(VENV)/.dev  ## kills, frozen and missing stores, draining (FAULTS=long|short, FAULTS_SEED=1)
	FAULTS=$(FAULTS) $(BIN)/python -m pytest -n 2 --dist loadfile -m faults $(PYTEST_ARGS)

test-api: $(VENV)/.dev  ## the long form of the tests that make up requests: schemathesis, fuzzed messages
	API_TESTS=long $(BIN)/python -m pytest -s -q -k "schema or fuzz" --timeout 3000 tests/api $(PYTEST_ARGS)

check: $(VENV)/.dev  ## linter, formatter check, import directions, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: $(VENV)/.product  ## the benchmarks, with their ratios to a peer in the same run
	$(BIN)/tracker bench $(BENCH)

bench-fanout: $(VENV)/.product  ## the BFF's fan-out beside a Go server (FANOUT_PEERS=DIR of its source)
	$(BIN)/tracker bench fanout

protos: $(VENV)/.dev  ## generate the gRPC code from protos/*.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protos/*.proto

lock: $(VENV)/bin/uv  ## resolve the dependencies anew into the lock files (names and hashes only)
	echo 'uv' | $(UV) pip compile -q --universal --generate-hashes --no-annotate --no-header - -o requirements-bootstrap.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra embedded pyproject.toml -o requirements.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -c requirements.lock pyproject.toml -o requirements-services.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra embedded --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove the virtual environment (the data in .data stays)
	rm -rf $(VENV)

# The host's Python 3.11 or 3.12, whatever it is called there.
$(VENV)/bin/uv: requirements-bootstrap.lock
	@for p in $(PYTHON) python3.12 python3.11 python3 python; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "Python 3.11 or 3.12 is needed and was not found (set PYTHON=/path/to/python3.12)." >&2; exit 1; fi; \
	case "$(PYTHON)" in ""|"$$python") ;; *) echo "PYTHON=$(PYTHON) is not Python 3.11 or 3.12 (or can't be run): taking $$python" >&2;; esac; \
	echo "setting up .venv with $$($$python --version)"; \
	$$python -m venv $(VENV) || { echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-bootstrap.lock
	@touch $@

$(VENV)/.product: $(VENV)/bin/uv requirements.lock pyproject.toml
	@echo "installing packages (1.7 GB on disk, once)"
	@$(UV) pip install --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m flows.runs
	@touch $@

$(VENV)/.dev: $(VENV)/bin/uv requirements-dev.lock pyproject.toml
	@echo "installing packages and development tools"
	@$(UV) pip install --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m flows.runs
	@touch $@ $(VENV)/.product
