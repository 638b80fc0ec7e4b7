# Each target works as the first and only command on a machine with Python 3.11+, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cluster test test-unit test-cluster chaos-budget lint format bench bench-cluster crds manifests docs kind-up kind-down lock clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY) ## Install everything into .venv

$(READY): pyproject.toml requirements/bootstrap.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Fleetward needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); } || \
	  { echo "python3 -m venv failed: on Debian and Ubuntu, install python3-venv"; exit 1; }
	@echo "Installing the pinned packages ..."
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/bootstrap.txt requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## Tell the report pipeline's story on this machine
	@$(BIN)/python examples/report-pipeline/story.py

demo-cluster: $(READY) ## Tell it on a real Kubernetes control plane, built first (minutes, once); STAY=1 keeps it running
	@$(BIN)/python examples/report-pipeline/cluster_story.py $(if $(STAY),--stay)

test: test-unit test-cluster ## Run every test

test-unit: $(READY) ## Run the tests that need no Kubernetes control plane
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not cluster"

# kopf, stopped while a TLS connection of its stalls, ends its loop before that is closed, and whichever test runs when the
# garbage is collected would fail by it. The tests that need no control plane run no kopf, and are held to it.
LEFT_BY_KOPF = -W "ignore:unclosed transport:ResourceWarning" -W "ignore:unclosed <socket:ResourceWarning"

test-cluster: $(READY) ## Run the tests on a real Kubernetes API server; builds that first (minutes, once)
	@$(BIN)/python -m pytest -n 0 -m cluster $(LEFT_BY_KOPF)

chaos-budget: $(READY) ## Kill everything while budgets are spent: SECONDS=120 SEED=7 POSTGRES=1, all as you please
	@PYTHONPATH=tests $(BIN)/python -m chaos.budgets --seconds $(or $(SECONDS),120) $(if $(SEED),--seed $(SEED)) \
	  $(if $(POSTGRES),--postgres)

lint: $(READY) ## Formatting, style, types, layers, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p fleetward -p fleetward_operator -p fleetward_webhook
	@$(BIN)/mypy tests bench examples
	@$(BIN)/lint-imports
	@$(BIN)/python -m fleetward.resources.crd crds --check
	@$(BIN)/python -m fleetward.resources.reference docs/reference.md --check
	@$(BIN)/python charts/render.py --check

format: $(READY) ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## Measure speed and memory; pictures and raw data go to bench/out build
	@$(BIN)/python -m bench

bench-cluster: $(READY) ## Measure on a real Kubernetes control plane: scale, kill, admission, one change to many
	@$(BIN)/python -m bench.cluster

crds: $(READY) ## Write crds/ from the models
	@$(BIN)/python -m fleetward.resources.crd crds

manifests: $(READY) ## Write deploy/fleetward.yaml from the chart; builds Helm first (a minute, once)
	@$(BIN)/python charts/render.py --helm "$$(PYTHONPATH=tests $(BIN)/python -c 'from support.controlplane.build import helm; print(helm())')"

docs: $(READY) ## Write docs/reference.md from the models
	@$(BIN)/python -m fleetward.resources.reference docs/reference.md

kind-up: ## Bring up a kind cluster with Fleetward in it (needs docker, kind and kubectl)
	@bash charts/kind-up.sh

kind-down: ## Delete the kind cluster
	@bash charts/kind-up.sh --down

lock: ## Pin everything anew, with hashes
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --upgrade requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --upgrade --all-extras --group dev pyproject.toml -o requirements/dev.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --constraints requirements/dev.txt --extra operator --extra webhook --extra admission --extra postgres pyproject.toml -o requirements/image.txt

clean: ## Remove what these targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache bench/out build
