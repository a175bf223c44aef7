# `make` alone tells what there is.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
GENERATE := .venv-generate
GRPCURL_VERSION := v1.9.3
COLLECTOR_VERSION := v0.162.0

.PHONY: help
help: ## Tells what there is.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-18s %s\n", $$1, $$2}'

.PHONY: run
run: .venv/server ## Sets up, fetches the model, starts the service and streams an answer; Ctrl-C ends it.
	@$(BIN)/tokenwire demo

.PHONY: test
test: .venv/dev .cache/tools ## Sets up and runs the Python tests, the real embedded engine included.
	PATH="$(CURDIR)/.cache/bin:$(CURDIR)/$(GENERATE)/bin:$$PATH" $(BIN)/pytest -n 2 --dist loadfile $(ARGS)

.PHONY: test-engines
test-engines: .venv/dev ## Runs the behaviours over scripted, llama.cpp, VLLM_BASE_URL and SGLANG_BASE_URL, and prints which engine does what.
	$(BIN)/pytest tests/behaviour -m "live or not live" $(ARGS)

.PHONY: test-faults
test-faults: .venv/dev ## Plays 48 schedules of faults over real processes, and every single fault.
	$(BIN)/pytest -n 2 --dist loadfile tests/faults --fault-schedules 48 $(ARGS)

.PHONY: agreement
agreement: .venv/dev ## Measures how far llama.cpp, VLLM_BASE_URL and SGLANG_BASE_URL agree when one goes on for another.
	@cd tests && ../$(BIN)/python -m engines.agreement $(ARGS)

.PHONY: collector
collector: ## Builds a real OpenTelemetry Collector, for the tests that take one; needs Go.
	@mkdir -p .cache/bench/bin
	go run go.opentelemetry.io/collector/cmd/builder@$(COLLECTOR_VERSION) --config tests/harness/otelcol.yaml
	mv .cache/bench/otelcol/otelcol .cache/bench/bin/otelcol

.PHONY: bench
bench: bench-ready ## Measures tokenwire beside other gateways, in ten minutes; the results go to .cache/bench/results.
	@cd tests && ../$(BIN)/python -m bench $(ARGS)

.PHONY: bench-full
bench-full: bench-ready ## The same with more rounds, in about 35 minutes.
	@cd tests && ../$(BIN)/python -m bench --full $(ARGS)

# What a benchmark needs that it does not build itself; without a real collector one of its own takes spans and metrics.
.PHONY: bench-ready
bench-ready: .venv/dev
	@[ -x .cache/bench/bin/otelcol ] || $(MAKE) collector \
	|| echo "no OpenTelemetry Collector: Go cannot build it here; the benchmark's own takes its place"

.PHONY: check
check: .venv/dev $(GENERATE)/ready ## Checks style, types, protos, generated code and docs; runs no tests.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(GENERATE)/bin/buf lint
	$(GENERATE)/bin/buf format --diff --exit-code
	$(BIN)/python -m tokenwire.settings_table --check README.md docs/configuration.md
	$(BIN)/python -m tokenwire.engines_table --check docs/engines.md
	$(MAKE) check-generate

.PHONY: check-generate
check-generate: generate ## Checks that the generated code is up to date.
	@git diff --exit-code --stat -- service/tokenwire/v1
	@test -z "$$(git status --porcelain -- service/tokenwire/v1)" || { git status --short -- service/tokenwire/v1; exit 1; }

.PHONY: generate
generate: generate-python ## Generates all stubs.

.PHONY: generate-python
generate-python: $(GENERATE)/ready ## Generates the Python stubs.
	@PATH="$(CURDIR)/$(GENERATE)/bin:$$PATH" $(GENERATE)/bin/python proto/generate.py

.PHONY: lock
lock: .venv/dev ## Writes the hash-pinned requirements anew.
	@for name in server dev generate; do ./requirements/lock $$name; done

.PHONY: clean
clean: ## Removes what the other targets made.
	rm -rf .venv $(GENERATE) .cache build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tokenwire needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv

# Everything that is installed is pinned by hash; the package itself is installed as it stands here.
.venv/server: requirements/server.txt pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/server.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: requirements/dev.txt .venv/server
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@


$(GENERATE)/ready: requirements/generate.txt
	$(PYTHON) -m venv $(GENERATE)
	$(GENERATE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/generate.txt
	@touch $@

# The README's commands are run by a test, with grpcurl itself where Go can build it, else with buf curl.
.cache/tools: $(GENERATE)/ready
	@mkdir -p .cache/bin
	@GOBIN="$(CURDIR)/.cache/bin" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION) \
	|| echo "no grpcurl: Go cannot build it here; the README's grpcurl commands are tested with buf curl"
	@touch $@
