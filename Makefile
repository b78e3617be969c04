# Every command that a newcomer needs; `make` alone lists them.
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
SOURCES := src stages tests tools benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup extras repro diff prune test lint bench timings experiments lock preset weights seeds folds classes replay clean

help: ## list these commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/installed ## make .venv with the locked packages that the pipeline needs, set how git merges results
	@git rev-parse --git-dir >/dev/null 2>&1 && git config merge.ours.driver true || true

extras: setup .venv/extras ## add the packages of all extras and of the tests (`medrobust app`, ONNX, Dask, S3, DICOM, ...)

.venv/installed: requirements-base.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "medrobust needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the locked packages: some minutes, 2 to 7 GB"
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-base.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

.venv/extras: requirements.lock .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	@touch $@

# On workers of Dask (docs/scaling.md): make repro ENGINE=dask SCHEDULER=tcp://HOST:8786
OPTIONS := $(if $(ENGINE),--engine $(ENGINE)) $(if $(SCHEDULER),--scheduler $(SCHEDULER)) \
	$(if $(RESOURCES),--resources $(RESOURCES)) $(if $(REPOSITORY),--repository $(REPOSITORY)) \
	$(if $(filter 1,$(KEEP_GOING)),--keep-going) $(if $(filter 1,$(ANY_VERSIONS)),--any-versions)

repro: setup ## run what changed of the pipeline, JOBS=2 stages at a time, print the results and the report's path
	@$(RUN) python -m tools.repro --jobs $(JOBS) $(OPTIONS)
	@echo; cat report/summary.txt; echo; echo "report: $(CURDIR)/report/index.html"

diff: setup ## make diff BASE=origin/main: the metrics that differ from a revision and stand on the same data
	@$(RUN) python -m tools.same_data $(BASE)

prune: setup ## remove results that belong to no stage, or to other data (FORCE=1: also those that are saved nowhere)
	@$(RUN) python -m tools.prune $(if $(filter 1,$(FORCE)),--force)

test: lint ## linters, types and every test that can run here
	@$(RUN) OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: extras ## ruff and mypy
	@$(RUN) ruff check $(SOURCES)
	@$(RUN) ruff format --check $(SOURCES)
	@$(RUN) mypy

bench: setup ## time the attack engine against other libraries on the models of the last run (half an hour)
	@$(RUN) python benchmarks/attacks.py

timings: setup ## print how long each stage took when it last ran here
	@$(RUN) python -m tools.timings

experiments: setup ## compare experiments: one column per run, one row per value and metric that differs
	@$(RUN) python -m tools.experiments

lock: ## resolve both lock files anew (needs uv)
	uv pip compile --universal --python-version 3.11 --upgrade --extra s3 --extra kaggle --extra formats --extra weights --extra onnx --extra scale --extra app --extra oracles --extra dev pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --constraint requirements.lock pyproject.toml -o requirements-base.lock

preset: setup ## make preset NAME=smoke: write presets/smoke.yaml as params.yaml (FORCE=1: over unsaved edits)
	@$(RUN) python -m tools.preset $(NAME) $(if $(filter 1,$(FORCE)),--force)

weights: setup ## write timm's pretrained weights of all backbones to OUT=weights, for machines without the hub
	@$(RUN) python -m tools.weights --out $(or $(OUT),weights)

seeds: setup ## run the pipeline with SEEDS=1,2,3 and write docs/tables/seeds.csv
	@$(RUN) python -m tools.repeat seeds --seeds "$(SEEDS)" --jobs $(JOBS)

folds: setup ## run the pipeline once per fold of split.folds and write docs/tables/folds.csv
	@$(RUN) python -m tools.repeat folds --jobs $(JOBS)

classes: setup ## run the pipeline with 2, 3, ... classes on the same images and write docs/tables/classes.csv
	@$(RUN) python -m tools.repeat classes --jobs $(JOBS)

replay: setup ## make replay STUDY=lerman2024 [SIZE=cpu]: a published study, as published and as it should be
	@$(RUN) python -m tools.replay $(STUDY) --size "$(SIZE)" --jobs $(JOBS)

clean: ## remove the environment and all caches; results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache tmp
