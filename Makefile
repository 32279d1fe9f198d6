# What a contributor can do. Everything installs into .venv; PYTHON names the interpreter to make it with.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := orthanc dcmtk dicom3tools
STAMP := $(VENV)/.installed

.PHONY: help demo test check bench lint types imports system
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(STAMP) ## the main job on this machine: modality, agent and PACS, seven body parts
	$(BIN)/pacs-agent demo

test: $(STAMP) system ## every test
	$(BIN)/pytest

check: $(STAMP) lint types imports test ## what CI runs: lint, types, import rules, tests

bench: $(STAMP) system ## the benchmarks
	$(BIN)/python benchmarks/receive.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

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
