# Every target is one of the project's own commands; they run from this folder and work without make as well.
SHELL := /bin/bash
.DEFAULT_GOAL := help

SIZE ?= default
SCHEMA ?= ali_ccp
RAW ?= raw/ali_ccp
OUT ?= samples
WORKERS ?= 1
SEEDS ?= 3
CONTEXTS ?= 24000
DAYS ?= 10
DAY_CONTEXTS ?= 4000
TRAIN ?= $(OUT)/split=train
TEST ?= $(OUT)/split=test
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYSPARK_PYTHON := $(CURDIR)/.venv/bin/python
export PYSPARK_DRIVER_PYTHON := $(PYSPARK_PYTHON)
# Looked up for every command and not once: set-up may just have installed it.
export JAVA_HOME = $(shell scripts/java_home.sh)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Make or update .venv (every target that needs it does so by itself)
	@scripts/setup.sh main

.PHONY: setup-airflow
setup-airflow: setup ## Make or update .venv-airflow
	@scripts/setup.sh airflow

.PHONY: demo
demo: setup ## From raw logs to the three AUCs on planted data (SIZE=tiny for a quick look, SCHEMA=shop for tables)
	@.venv/bin/python -m scripts.demo --size $(SIZE) --schema $(SCHEMA)

.PHONY: ali-ccp-samples
ali-ccp-samples: setup ## Samples of the full Ali-CCP logs (RAW=folder with its archives OUT=samples)
	@.venv/bin/python -m jobs.prepare_ali_ccp --raw '$(RAW)' --out '$(OUT)'

.PHONY: test
test: setup ## Run the tests, but for the slow ones
	.venv/bin/python -m pytest -m "not slow"

.PHONY: test-slow
test-slow: setup ## Run the slow tests
	.venv/bin/python -m pytest -m slow

.PHONY: test-airflow
test-airflow: setup-airflow ## Run the tests of the DAG
	.venv-airflow/bin/python -m pytest --confcutdir=tests/airflow tests/airflow

.PHONY: test-airflow-yarn
test-airflow-yarn: setup-airflow ## Run days of the DAG on YARN with HDFS, on this machine
	.venv/bin/python -m pytest -rs tests/cluster/test_airflow.py

.PHONY: test-cluster
test-cluster: setup ## Run the tests on a Spark standalone cluster and on YARN with HDFS, both on this machine
	.venv/bin/python -m pytest -rs tests/cluster

.PHONY: test-hosts
test-hosts: setup ## Run the tests of training on two hosts, network namespaces of this machine (root, openssh-server)
	.venv/bin/python -m pytest -rs tests/cluster/test_hosts.py

.PHONY: test-report
test-report: setup ## Open reports in Chromium: widths, themes, contrast, requests; screenshots in build/
	@scripts/setup.sh browser
	.venv/bin/python -m pytest tests/report

.PHONY: lint
lint: setup ## Check style, formatting, types and who may import whom
	ruff check .
	ruff format --check .
	mypy
	lint-imports

.PHONY: format
format: setup ## Format the code and repair what can be repaired
	ruff check --fix .
	ruff format .

.PHONY: docs
docs: setup ## Write docs/options.md from the configuration classes
	@.venv/bin/python -m scripts.options_doc

.PHONY: bench
bench: setup ## Measure the stages on this machine
	@.venv/bin/python -m benchmarks.bench

.PHONY: bench-data
bench-data: setup ## Measure raw logs to samples at 1x, 4x and 16x, beside plain Spark SQL and polars
	@.venv/bin/python -m benchmarks.building.data

.PHONY: bench-train
bench-train: setup ## Measure training beside torch-rechub, deepctr-torch and FBGEMM, workers, memory and traffic
	@.venv/bin/python -m benchmarks.training.train

.PHONY: bench-evaluate
bench-evaluate: setup ## Measure predictions to metrics at 1x, 4x and 16x, beside scikit-learn
	@.venv/bin/python -m benchmarks.evaluation.evaluate

.PHONY: bench-choices
bench-choices: setup ## AUC and speed for three shuffle windows, and bf16 against fp32, on the demo's samples
	@.venv/bin/python -m benchmarks.training.choices

.PHONY: bench-long
bench-long: setup ## Train ten million impressions on two workers, with a table of 2^24 rows, and watch the memory
	@.venv/bin/python -m benchmarks.training.long_run

.PHONY: compare
compare: setup ## Train all models of configs/models on a planted world, and compare them (SEEDS=3 CONTEXTS=24000)
	@.venv/bin/python -m benchmarks.models.compare --seeds $(SEEDS) --contexts $(CONTEXTS)

.PHONY: studies
studies: compare ## Collapse, sampling rates, ESM2 and its ablations, unseen worlds: parts of the same page
	@.venv/bin/python -m benchmarks.models.collapse
	@.venv/bin/python -m benchmarks.models.esm2
	@.venv/bin/python -m benchmarks.models.worlds --seeds $(SEEDS)
	@.venv/bin/python -m benchmarks.models.rates
	@.venv/bin/python -m benchmarks.models.compare --seeds $(SEEDS) --contexts $(CONTEXTS)

.PHONY: paper
paper: setup ## The same on samples of the real logs (TRAIN=samples/split=train TEST=samples/split=test)
	@.venv/bin/python -m benchmarks.models.compare --seeds $(SEEDS) --train '$(TRAIN)' --test '$(TEST)' \
		--config configs/ali_ccp.yaml --out build/paper

.PHONY: profile
profile: setup ## Where the time of a training step goes (WORKERS=2 for two workers)
	@.venv/bin/python -m benchmarks.training.profile_step --workers $(WORKERS)

.PHONY: airflow
airflow: setup-airflow ## Run a local Airflow with daily retraining on demo days (http://localhost:8080)
	@.venv-airflow/bin/python -m scripts.local_airflow

.PHONY: airflow-demo
airflow-demo: setup-airflow ## Ten days of daily retraining in a drifting world, as a table (DAYS=10 DAY_CONTEXTS=4000)
	@.venv-airflow/bin/python -m scripts.airflow_demo --days $(DAYS) --contexts $(DAY_CONTEXTS)

.PHONY: dist
dist: setup ## Pack the jobs and their packages for a cluster (dist/)
	@.venv/bin/python -m scripts.dist

.PHONY: lock
lock: ## Resolve requirements/*.in into requirements/*.lock anew
	@scripts/lock.sh

.PHONY: clean
clean: ## Delete what runs leave behind
	rm -rf build dist metastore_db spark-warehouse .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -path ./.venv-airflow -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Delete the environments too
	rm -rf .venv .venv-airflow
