# make run    the whole pipeline on this machine        make test   every test, the linter and the type checker
# make lock   resolve the requirements anew             make clean  forget all runs (databases, logs, artifacts)
# make docs   build the documentation                    make coverage  the tests, with the lines that they reach
# make sbom   what the images hold, as CycloneDX, in sbom/
# make predict IMAGE=x.png   ask the champion          make serve  the champion over HTTP, with a page
# make up     the stack of many services, in containers    make env, down, logs, backup, restore: infra/README.md
# make test-containers, make test-stack   what make test leaves out: see CONTRIBUTING.md

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run predict serve test test-containers test-stack coverage bench lint docs lock sbom clean setup setup-dev up env down logs backup restore

DATA ?=
PROFILE ?= quick
SET ?=
ONCE ?=
REPRODUCE_LEAK ?=
ESTIMATE ?=
CXR_HOME ?= .cxr
AIRFLOW_PORT ?= 8080
MLFLOW_PORT ?= 5000
PYTHON ?=
# Handed over in the environment, so that quotes and spaces in a path mean nothing to the shell.
export PYTHON DATA PROFILE SET CXR_HOME

help:
	@sed -n '1,7s/^# //p' Makefile
	@echo 'make run DATA=/path/to/COVID-19_Radiography_Dataset PROFILE=paper   (without DATA: generated phantoms)'
	@echo "make run DATA=… SET='data.layout=nih; gan.epochs=300'   lays settings over the profile"
	@echo 'make run ONCE=1   exits after the run; AIRFLOW_PORT=, MLFLOW_PORT=, CXR_HOME= choose ports and folder'
	@echo 'make run ESTIMATE=0   starts without measuring first how long it will take'
	@echo 'make run REPRODUCE_LEAK=1   also repeats the source report with its synthetic test images'
	@echo '.venv/bin/cxr --help   the same run and every step by hand, after make setup'

setup:
	@./infra/setup.sh requirements.lock

setup-dev:
	@./infra/setup.sh requirements-dev.lock

run: setup
	@set -f; set --; IFS=';'; for each in $$SET; do set -- "$$@" --set "$$each"; done; unset IFS; \
	.venv/bin/cxr run "$$@" --data "$$DATA" --profile "$$PROFILE" --home "$$CXR_HOME" \
	    --airflow-port $(AIRFLOW_PORT) --mlflow-port $(MLFLOW_PORT) $(if $(filter-out 0,$(ONCE)),--once) \
	    $(if $(filter-out 0,$(REPRODUCE_LEAK)),--reproduce-leak) $(if $(filter 0,$(ESTIMATE)),--no-estimate)

# A file, or a folder whose answers go to CSV=answers.csv.
IMAGE ?=
CSV ?=
# Without a name: the champion of all.
MODEL ?=
MLFLOW ?= http://127.0.0.1:$(MLFLOW_PORT)
SERVING_PORT ?= 8088
export IMAGE CSV MODEL MLFLOW

predict: setup
	@test -n "$$IMAGE" || { echo "Say which image: make predict IMAGE=x.png, or a folder with CSV=answers.csv" >&2; exit 2; }
	@.venv/bin/cxr predict "$$IMAGE" $(if $(MODEL),--model "$$MODEL") --mlflow "$$MLFLOW" $(if $(CSV),--csv "$$CSV")

serve: setup
	@.venv/bin/cxr serve $(if $(MODEL),"$$MODEL") --mlflow "$$MLFLOW" --port $(SERVING_PORT)

lint: setup-dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy

# Three workers, a file each at a time, and one core for each: what trains in one does not hold up the others, and while
# one waits for a server two others have work. In the order of the folders, because the longest files have few tests and
# would otherwise come last.
PYTEST = TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: lint
	@$(PYTEST) $(PYTEST_ARGS)

# The stack of docker-compose.yaml, really started, destroyed and restored. It needs a Docker engine.
test-containers: setup-dev
	@.venv/bin/python -m pytest -m containers -s tests/infra/test_containers.py $(PYTEST_ARGS)

# Both DAGs on Celery, PostgreSQL, Redis, S3 and MLflow with passwords, as processes; and what becomes of tasks when parts of
# that break. It needs root, and Debian's packages postgresql and redis-server; nftables, libfaketime and gcc for some faults.
test-stack: setup-dev
	@.venv/bin/python -m pytest -m stack -s tests/infra/test_whole_runs.py tests/infra/test_kubernetes_pods.py \
	    tests/infra/test_approval.py tests/infra/faults $(PYTEST_ARGS)

# Every test once more, a quarter slower, with the lines that they reach. Lines that only processes of their own reach
# (Airflow's tasks, the console script) do not count as covered.
coverage: setup-dev
	@$(PYTEST) --cov --cov-report=term --cov-fail-under=90 $(PYTEST_ARGS)

# All speeds in one sitting, in turn with the last one's revision: docs/speed. FULL=1 takes hours.
FULL ?=
AGAINST ?=
bench: setup-dev
	@.venv/bin/python -m benchmarks $(if $(DATA),--data "$$DATA") $(if $(filter-out 0,$(FULL)),--full) \
	    $(if $(AGAINST),--against "$(AGAINST)")

# The reference of settings and the documentation, as a site of files in site/.
docs: setup-dev
	@.venv/bin/python docs/make_reference.py
	@.venv/bin/mkdocs build --strict

lock: setup-dev
	@./infra/lock.sh

sbom: setup
	@.venv/bin/python infra/sbom.py sbom

# In containers: nothing of .venv is needed. DATA and PROFILE count when .env is written, which is once.
SERVICE ?=
TO ?=
FROM ?=
CONTAINERS = $(or $(PYTHON),python3) infra/containers.py

up:
	@$(CONTAINERS) up

# Only .env, with secrets of its own: docs/how-to/kubernetes.md makes a Secret of it.
env:
	@$(CONTAINERS) env

down:
	@$(CONTAINERS) down

logs:
	@$(CONTAINERS) logs $(SERVICE)

backup:
	@$(CONTAINERS) backup $(if $(TO),"$(TO)")

restore:
	@$(CONTAINERS) restore "$(or $(FROM),$(error Say which backup: make restore FROM=backup/2026-11-29T09-00-00))"

clean:
	@rm -rf "$$CXR_HOME"
