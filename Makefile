# What a contributor can do. Everything installs into .venv; PYTHON names the interpreter to make it with.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
WORK ?= demonstration-run
SYSTEM_PACKAGES := orthanc dcmtk dicom3tools
STAMP := $(VENV)/.installed
# One more than processors: much of a test's time is waiting for a daemon, a peer, a quiet time.
WORKERS ?= $(shell expr $$(nproc) + 1)

.PHONY: help demo test check bench bundle lint types imports audit sbom system
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(STAMP) ## the main job on this machine: modality, agent and PACS, seven body parts
	$(BIN)/pacs-agent demo

test: $(STAMP) system ## every test
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(STAMP) lint types imports audit test ## what CI runs: lint, types, import rules, audit, tests

bench: $(STAMP) system ## the benchmarks; fails where a figure to reach is missed
	failed=; for each in receive train_step train_input heatmap; do \
	  $(BIN)/python benchmarks/$$each.py || failed="$$failed $$each"; done; test -z "$$failed"

bundle: $(STAMP) ## the demonstration bundle again from nothing: hours on 2 cores, goes on where it was stopped
	$(BIN)/pacs-train phantoms $(WORK)/data --patients 3300 --seed 1
	$(BIN)/pacs-train fit $(WORK)/data --preset card --epochs 8 --seed 1 --out $(WORK)/run --cache $(WORK)/cache --resume
	rm -rf $(WORK)/bundle $(WORK)/evaluation
	$(BIN)/pacs-train export $(WORK)/run --out $(WORK)/bundle --name demonstration
	$(BIN)/pacs-train evaluate $(WORK)/bundle $(WORK)/data --split valid --out $(WORK)/evaluation

audit: $(STAMP) ## known vulnerabilities of the pinned versions; asks nobody unless AUDIT=online
	$(BIN)/python deploy/audit.py

sbom: $(STAMP) ## CycloneDX of what is installed here, build/sbom.cdx.json
	mkdir -p build
	$(BIN)/python -m cyclonedx_py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy docs/objects.py

imports: $(STAMP)
	$(BIN)/lint-imports

$(STAMP): pyproject.toml deploy/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[train,test]'
	touch $@

# The peers that the tests are run against. Root on Debian installs them; anybody else is told what to install.
system:
	@missing=; for package in $(SYSTEM_PACKAGES); do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  service orthanc stop >/dev/null 2>&1 || true; \
	else \
	  echo "these packages are missing:$$missing (Debian: apt-get install$$missing); tests that need them are skipped"; \
	fi
