# `make` lists the commands. Each does all of its own set-up: Python 3.11 or 3.12 and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
PROJECT ?= examples/complete_journey
READY := .venv/ready
# as many processes as there are processors; tests that share what is costly stay in one (tests/conftest.py)
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-slow check bench-quick lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(READY) ## a grocer's year, from raw exports to scores, segments and a service (six to seven minutes)
	$(BIN)/python -m examples.complete_journey.demo

serve: $(READY) ## the scoring service on the demo's project (PROJECT=folder for another; after `make demo`)
	$(BIN)/foretell --project $(PROJECT) serve

test: $(READY) ## the tests, without those marked slow
	$(PYTEST) -m "not slow"

test-slow: $(READY) ## the slow tests
	$(PYTEST) -m slow

check: $(READY) ## format, lint, types, import order between the rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench-quick: $(READY) ## every benchmark at a small size
	$(BIN)/python -m benchmarks --quick

lock: $(READY) ## resolve requirements.lock again
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate -q -o requirements.lock

clean: ## remove the environment and everything the demo made
	rm -rf .venv examples/*/.foretell examples/*/exports examples/*/audiences

# uv comes from the lock too, with its hash; it then installs the rest several times faster than pip. Compiled at once, as
# the libraries are large: the first run of a command, or every one where Python may write none, would take 15 s longer.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)) and "Foretell needs Python 3.11 or 3.12, got " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	sed -n '/^uv==/,/^[a-z0-9]*==/p' requirements.lock | sed '$$d' > .venv/uv.lock
	$(BIN)/python -m pip install -q --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	$(BIN)/python -c 'from unification.store import warm; warm()'
	touch $(READY)
