# One command each: `make demo` shows an explanation, `make test` proves the house.
#
# Variables: PYTHON (interpreter, 3.11 or newer), VENV (folder), TORCH (what to
# install as torch, with any pip options of your own index), JOBS (test processes),
# MUTATIONS, HEADERS and REQUESTS (damaged objects, hostile headers, and requests an
# operation of the API that `make fuzz` tries).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
TORCH ?= torch==2.13.0
JOBS ?= 2
MUTATIONS ?= 10000
HEADERS ?= 400
REQUESTS ?= 200
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
BIN := $(VENV)/bin
DEMO_READY := $(VENV)/.ready-demo
TEST_READY := $(VENV)/.ready-test
BENCH_READY := $(VENV)/.ready-bench
# What pip installed, archive by archive with its hash: the bill of materials reads it.
REPORT = --report $(VENV)/reports/$$(date +%s%N).json

# Real peers that the tests talk to.
SYSTEM_PACKAGES := redis-server orthanc orthanc-dicomweb dcmtk dicom3tools curl

# One torch thread: more only fight over the cores that the tests share.
export OMP_NUM_THREADS := 1

# Bytecode is kept: every worker that the tests start would compile the house again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up test setup system lint types walls unit conformance fuzz bench bench-trust sbom train-demo train-marker train-spheres train-views train-planted mlserver certify-demo clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: $(DEMO_READY)  ## Explain a bundled study with the bundled model, into demo-output/
	@$(BIN)/whylight demo

up: $(DEMO_READY)  ## Start Redis, gateway and worker, to stay; ctrl-C drains
	@$(BIN)/whylight up

test: $(VENV)/bin/python  ## Install and check everything
	@$(MAKE) -j2 system setup
	@$(MAKE) -j2 lint types walls unit

setup: $(TEST_READY)  ## Make the environment that the tests need

$(VENV)/bin/python:
	@py="$(PYTHON)"; \
	for each in python3 python3.11 python3.12 python3.13; do \
	    [ -n "$$py" ] && break; \
	    "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && py="$$each" || true; \
	done; \
	[ -n "$$py" ] || { echo "Python 3.11 or newer is needed; none was found. Set PYTHON=/path/to/python." >&2; exit 1; }; \
	echo "Making $(VENV) with $$($$py --version)"; \
	"$$py" -m venv $(VENV) >/dev/null 2>&1 \
	|| { "$$py" -m venv --clear --without-pip $(VENV) && "$$py" -m pip --python $(VENV)/bin/python install --quiet pip; } \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv && "$$py" -m venv --clear $(VENV); } \
	|| { echo "No virtual environment could be made: install python3-venv (or pip) and try again." >&2; exit 1; }

$(DEMO_READY): $(VENV)/bin/python pyproject.toml
	@echo "Installing torch and what gateway and worker need; the first time this takes minutes"
	@mkdir -p $(VENV)/reports
	@$(PIP) install $(REPORT) $(TORCH)
	@$(PIP) install $(REPORT) -e '.[worker,embedded]'
	@touch $@

$(TEST_READY): $(DEMO_READY)
	@echo "Installing what the tests need"
	@$(PIP) install -e '.[worker,embedded,dev]'
	@touch $@

# Without dependencies: it would bring a torchvision that replaces torch.
$(BENCH_READY): $(TEST_READY)
	@$(PIP) install -e '.[worker,embedded,dev,bench]'
	@$(PIP) install --no-deps grad-cam
	@touch $@

# Services stay down: the tests start their own, on sockets and ports of their own.
system:  ## Install the Debian packages of the tests' real peers (only as root)
	@if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	    echo "Not root on Debian: tests whose peers are missing are skipped by name"; exit 0; \
	fi; \
	missing=; \
	for each in $(SYSTEM_PACKAGES); do \
	    dpkg-query -W -f='$${Status}' "$$each" 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$each"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "Installing$$missing"; \
	if [ ! -e /usr/sbin/policy-rc.d ]; then \
	    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	apt-get install -y -qq --no-install-recommends $$missing >/dev/null

lint: $(TEST_READY)  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(TEST_READY)  ## mypy, strict
	@$(BIN)/mypy

walls: $(TEST_READY)  ## Import contracts between the packages
	@$(BIN)/lint-imports

unit: $(TEST_READY)  ## Every test: unit, contract, oracle, conformance, end to end
	@$(BIN)/pytest -n $(JOBS) --dist loadfile

conformance: $(TEST_READY)  ## The DICOM conformance tests with every file of the corpus, and their tables
	@[ -d "$$WHYLIGHT_CORPUS" ] || { echo "WHYLIGHT_CORPUS must name the folder of real DICOM files." >&2; exit 1; }
	@CI=true WHYLIGHT_CONFORMANCE_EVERY=1 $(BIN)/pytest -n $(JOBS) --dist load --timeout 1800 \
	    --junitxml build/conformance.xml --ignore tests/conformance/test_mutations.py tests/conformance
	@$(BIN)/python -m tests.conformance.statement build/conformance.xml

fuzz: $(TEST_READY)  ## Try MUTATIONS damaged DICOM objects, objects of HEADERS hostile headers, and REQUESTS
	@WHYLIGHT_MUTATIONS=$(MUTATIONS) $(BIN)/pytest -n $(JOBS) --dist load --timeout 1800 \
	    --junitxml build/fuzz.xml tests/conformance/test_mutations.py
	@$(BIN)/python -m tests.conformance.statement build/fuzz.xml
	@WHYLIGHT_HEADERS=$(HEADERS) $(BIN)/pytest -n $(JOBS) --dist load --timeout 1800 -k header \
	    tests/workers/formats/test_hostile_headers.py tests/conformance/test_derived_objects.py
	@WHYLIGHT_REQUESTS=$(REQUESTS) $(BIN)/pytest -n $(JOBS) --dist load --timeout 1800 -k generated \
	    tests/api/test_openapi.py

mlserver: $(TEST_READY)  ## Ask a real MLServer, in an environment of its own, for models on servers
	@[ -x build/mlserver/bin/mlserver ] || { $(VENV)/bin/python -m venv build/mlserver && build/mlserver/bin/pip install -q "mlserver>=1.7,<2" onnxruntime; }
	WHYLIGHT_TEST_MLSERVER=$(CURDIR)/build/mlserver/bin/mlserver $(VENV)/bin/pytest -q -k mlserver tests/workers/runtimes/test_remote.py

bench: $(BENCH_READY)  ## Measure speed beside other libraries, in about 25 quiet minutes
	@$(call measured,grad_cam cams integrated smooth occlusion rise scheduler datapath decoding volumes windows http_job)

bench-trust: $(BENCH_READY)  ## Measure what trust reports are worth; takes much longer
	@$(call measured,trust curves shortcut padding)

define measured
export LOAD_BEFORE=$$(cut -d ' ' -f 1 /proc/loadavg) BENCH_BEGAN=$$(date +%s); missed=; failed=; \
for each in $(1); do \
    echo "== $$each"; status=0; $(BIN)/python -m benchmarks.$$each || status=$$?; \
    case $$status in 0) ;; 3) missed="$$missed $$each";; *) failed="$$failed $$each";; esac; \
done; \
[ -z "$$missed" ] || echo "Valid, with bars missed (named above):$$missed"; \
[ -z "$$failed" ] || echo "Failed, or a case is not valid:$$failed"; \
[ -z "$$missed$$failed" ]
endef

sbom: $(DEMO_READY)  ## List what the product is made of, as CycloneDX, in sbom.json
	@$(BIN)/python -m deploy.sbom sbom.json

train-demo: $(TEST_READY)  ## Train all demo models again, from their seeds
	@$(BIN)/python -m examples.phantom.train
	@$(BIN)/python -m examples.phantom.shortcut

train-marker: $(TEST_READY)  ## Train only the two marker models, from the clean weights
	@$(BIN)/python -m examples.phantom.shortcut

train-spheres: $(TEST_READY)  ## Train the models of spheres, of volumes, bags and boxes, again, from their seeds
	@$(BIN)/python -m examples.spheres.train
	@$(BIN)/python -m examples.spheres.unet
	@$(BIN)/python -m examples.spheres.bag
	@$(BIN)/python -m examples.spheres.detector

train-views: $(TEST_READY)  ## Train the model of four views again, from its seed
	@$(BIN)/python -m examples.breasts.train

train-planted: $(TEST_READY)  ## Train the bone age, shape and detector models again, from their seeds
	@$(BIN)/python -m examples.planted.train

certify-demo: $(TEST_READY)  ## Measure every method on the bundled models, into their packages
	@$(BIN)/python -m examples.phantom.certify

clean:  ## Remove the environment, caches and the demo's output
	rm -rf $(VENV) demo-output build dist *.egg-info sbom.json
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
