# `make demo` and `make test` set everything up by themselves; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LLAMA := llama-cpp-python==0.3.36
# pip needs no cache of ours, and must not ask questions
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# the tests start our programs hundreds of times: each would compile all of its modules anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check audit check-web browser pictures bench equal soak chaos fuzz schemas format clean clean-llama setup-check setup

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv, or PYTHON=/path/to/python make …" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V). Set PYTHON=/path/to/python3.11 and run make again." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "[setup] creating $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)
	@# Python 3.11 brings one of 2022, whose faults are known; nothing here needs any
	@$(PIP) uninstall -qq --yes setuptools

# everything but llama.cpp: enough for `make check` and the balancer
$(VENV)/.tools: $(BIN)/python pyproject.toml paddler_py.py
	@echo "[setup] installing Python packages" >&2
	@$(PIP) install --quiet --editable '.[balancer,top,dev]' jinja2 llguidance numpy pillow websockets
	@touch $@

setup-check: $(VENV)/.tools

# the wheel's path is the stamp's content, so that another CMAKE_ARGS or machine installs another wheel
setup: $(VENV)/.tools ## virtual environment with everything, llama.cpp built from source
	@wheel=$$($(BIN)/python deploy/setup/llama_wheel.py '$(LLAMA)'); \
	if [ "$$wheel" != "$$(cat $(VENV)/.llama 2>/dev/null)" ] || [ pyproject.toml -nt $(VENV)/.llama ]; then \
		$(PIP) install --quiet --force-reinstall --no-deps "$$wheel"; \
		$(PIP) install --quiet --editable '.[agent,balancer,top,dev]'; \
		echo "$$wheel" > $(VENV)/.llama; \
	fi

demo: setup ## start everything with the shipped model and ask it a question (ONCE=1: then exit)
	@$(BIN)/paddler-py demo $(if $(ONCE),--once)

test: setup ## all tests: unit, integration, end to end, pages in a browser
	@deploy/setup/test_packages.sh
	@node --test --test-reporter=dot tests/web/
	@$(BIN)/python -m pytest tests/unit --numprocesses=2 --cov --cov-report=
	@$(BIN)/python -m pytest tests/chaos tests/soak tests/fuzz tests/end_to_end tests/integration --numprocesses=2 --dist=loadfile --no-loadscope-reorder --cov --cov-append --cov-report=term:skip-covered --cov-report=json:out/coverage.json
	@$(BIN)/python -m pytest tests/browser --numprocesses=3 --dist=loadfile -m "not long"
	@$(BIN)/python deploy/setup/coverage_floors.py out/coverage.json

check: setup-check ## ruff, bandit, mypy strict, import contracts (llama.cpp not needed)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml balancer agent protocol deploy paddler_py.py
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

audit: setup-check ## known faults of the packages we install, test with and ship, where that can be asked
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/python -m pip --disable-pip-version-check --no-input install --quiet 'pip-audit>=2.10,<3'; } || true
	@$(BIN)/python deploy/setup/audit.py $(VENV)/audit/bin/pip-audit

check-web: ## the dashboard's files: types, lint, and tests that need no browser
	@deploy/setup/test_packages.sh web
	@tests/web/node_modules/.bin/tsc -p tests/web
	@tests/web/node_modules/.bin/eslint --config tests/web/lint.config.js balancer/http/dashboard/assets/app tests/web
	@node --test --test-reporter=dot tests/web/

browser: setup ## the dashboard's pages in Chromium, against real clusters
	@deploy/setup/test_packages.sh
	@$(BIN)/python -m pytest tests/browser --numprocesses=2 --dist=loadfile

pictures: setup ## a picture of every page of the dashboard, into docs/images/dashboard
	@deploy/setup/test_packages.sh
	@PICTURES=docs/images/dashboard $(BIN)/python -m pytest tests/browser/test_pictures.py

bench: setup ## the long measurements, bounded to minutes
	@$(BIN)/python -m tests.benchmarks

equal: setup ## images, adapters, vectors and scores beside llama-server's: equal within rounding? (PART=media)
	@$(BIN)/python -m tests.equality $(PART)

soak: setup ## ten minutes of random churn on the engine (SECONDS_TO_RUN=600)
	@$(BIN)/python -m tests.soak --seconds $(or $(SECONDS_TO_RUN),600)

chaos: setup ## streams and requests while agents are killed, frozen, robbed, drained, or bad (SECONDS_TO_RUN=60)
	@$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS_TO_RUN),60)

fuzz: setup ## 100,000 mutated requests to both ports (INPUTS=100000 SEED=1)
	@$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),100000) --seed $(or $(SEED),1)

schemas: setup ## the shipped model answers 300 random JSON schemas (COUNT=300 SEED=1)
	@$(BIN)/python -m tests.schemas --count $(or $(COUNT),300) --seed $(or $(SEED),1)

format: setup-check ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove the virtual environment and everything generated; the llama.cpp wheel stays
	rm -rf $(VENV) out dist build .mypy_cache .ruff_cache .hypothesis .coverage tests/end_to_end/node/node_modules tests/browser/node/node_modules tests/web/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-llama: ## forget the llama.cpp builds and made-up models kept in the user's cache folder
	cache="$${XDG_CACHE_HOME:-$$HOME/.cache}/paddler-py"; \
	rm -rf "$$cache/wheels" "$$cache/llama-server" "$$cache/llama-cpp-server" "$$cache/models"
