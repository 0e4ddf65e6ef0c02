# Needs Python 3.11 or newer, and make. Everything goes into .venv and .cache; else,
# only the caches of pip and, for `make test`, of Maven (~/.m2) and Go are touched.
# Another Python: make PYTHON=python3.13 …

.DEFAULT_GOAL := help
CHECKS := check-types check-style check-floors check-lua
.PHONY: help setup demo test pythons chaos simulate bench containers check $(CHECKS) format docs docs-site release clean

BIN := .venv/bin
# Tests mostly wait: for servers, deadlines and leases. So five, beside the one with Kafka, keep two processors busy.
WORKERS := 5
# Written by .ci/bootstrap when all is installed, so that it is done again only when its inputs change.
DEMO := .venv/.installed-demo
DEV := .venv/.installed-dev

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(DEV) ## Install everything that development needs, into .venv and .cache

demo: $(DEMO) ## Show the whole story in about 15 seconds, with servers of its own
	@$(BIN)/expiry-bridge demo

test: check ## Check, then run all tests and measure their coverage
	@.ci/test $(WORKERS)

pythons: $(DEV) ## Run unit tests, the simulation and one journey on the other Pythons that are installed
	@.ci/pythons

chaos: $(DEV) ## Strike all that a deployment has, for CHAOS_SECONDS; on CHAOS_TOPOLOGY; CHAOS_SEED repeats a run
	@CHAOS_TOPOLOGY=$${CHAOS_TOPOLOGY:-all} CHAOS_CONDITION=$${CHAOS_CONDITION:-all} $(BIN)/python -m pytest \
	    tests/chaos/test_chaos.py tests/chaos/test_conditions.py

simulate: $(DEV) ## Simulate the whole bridge with SEEDS seeds (10000), from FROM on; each failing one prints how to repeat it
	@$(BIN)/python -m tests.simulation --seeds $${SEEDS:-10000} --from $${FROM:-0}

bench: $(DEV) ## Measure, with servers of its own, and say which bars are reached: some minutes, on an idle machine
	@$(BIN)/python -m tests.bench

containers: $(DEV) ## Build the image, and try it and compose.yaml with podman, as root: some minutes
	@.ci/containers

check: $(DEV) ## Format, lint, types, and the floors that imports must keep
	@$(MAKE) --no-print-directory --jobs --keep-going --output-sync=target $(CHECKS)

check-types:
	@$(BIN)/mypy
check-style:
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/ruff check --quiet --preview --config 'lint.explicit-preview-rules=true' --select PLW1514 bridge # UTF-8, in any locale
check-floors:
	@$(BIN)/lint-imports
check-lua:
	@$(BIN)/python -m tests.support.lua

format: $(DEV) ## Format the code, and fix what ruff can fix
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

docs: $(DEV) ## Renew the tables of the pages that are made of the code
	@$(BIN)/python -m tests.support.docs

docs-site: $(DEV) ## Build the site of all pages into .cache/site
	@$(BIN)/python -m tests.support.site

release: $(DEV) ## Build what is published into dist, twice, and only if both are the same
	@PATH="$(CURDIR)/$(BIN):$(CURDIR)/.cache/tools/bin:$$PATH" .ci/release

clean: ## Remove what the other commands made
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO) $(DEV): .venv/.installed-%: pyproject.toml .ci/bootstrap
	@PYTHON='$(PYTHON)' .ci/bootstrap $*
