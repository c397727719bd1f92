# Every target sets up what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test scenarios mutations lint check bench bench-worker pins clean

demo: .venv/run ## start everything on an embedded Kafka, ask real questions, print the answers
	@$(BIN)/python -m demo

test: .venv/dev ## the whole suite; the container tests where a Docker engine answers
	@$(BIN)/python -m pytest -n 2 --dist loadfile

scenarios: .venv/dev ## the scenarios in their full size, with their figures; long
	@$(BIN)/python -m pytest -m full -s

mutations: .venv/dev ## put faults into a copy, one by one: each must turn a test red; long
	@$(BIN)/python -m tests.mutations

lint: .venv/dev ## lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

check: lint test ## all of it

bench: .venv/dev ## the bridge beside the raw Kafka round trip and an empty echo
	@$(BIN)/python -m benchmarks

bench-worker: .venv/dev ## the worker with an empty handler beside a bare loop of the client library
	@$(BIN)/python -m benchmarks.overhead

pins: .venv/dev ## resolve requirements/*.txt anew
	@PATH=$(CURDIR)/$(BIN):$$PATH requirements/compile

clean: ## remove what the targets made
	rm -rf .venv .bridge .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("want Python 3.11 or later: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv

.venv/run: requirements/run.txt pyproject.toml | .venv/bin/python
	@echo "installing into .venv (once)"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: requirements/dev.txt pyproject.toml | .venv/bin/python
	@echo "installing into .venv (once)"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ .venv/run
