# `make run` and `make test` work on a fresh clone with nothing but Python 3.11 or later.
# `make check` is what CI runs, with NOTHING_SKIPPED=1: there, a tool that is missing is a failure.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
SOAK_SECONDS := 600
# Chance repeats itself, so that CI fails for what has changed; SEED= draws anew.
SEED ?= 1
SPREAD ?= -n auto --maxprocesses 8 --dist worksteal

.NOTPARALLEL: # the targets share an environment
.PHONY: help run test check format lint types coverage exhaustive pythons wheel fuzz conformance \
	bench attacks soak deploy-test browser-test network peers audit sbom install uninstall clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 — /p' Makefile

run: .venv/run ## serve on ws://127.0.0.1:8080 (ARGS="--bind ...")
	exec $(BIN)/echo-service serve $(ARGS)

test: .venv/test ## the tests, in a minute or two (ARGS=tests/test_session.py)
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

check: SOAK_SECONDS := 120
check: lint types audit sbom test coverage pythons wheel fuzz peers attacks soak browser-test network deploy-test exhaustive conformance ## all that CI runs
	@echo "make check: all passed"

format: .venv/check ## put the code in its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: .venv/check ## format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(CC) -fsyntax-only -std=c11 -Wall -Wextra -Wpedantic -Werror -DPy_LIMITED_API=0x030B0000 \
		-isystem $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') \
		echo_service/_codec.c
	$(CC) -fsyntax-only -std=gnu11 -Wall -Wextra -Werror benchmarks/load.c

types: .venv/check ## mypy, strict
	$(BIN)/mypy

audit: .venv/check ## look up what is locked in a database of known vulnerabilities
	scripts/audit $(BIN)/python

sbom: ## what the service consists of, as CycloneDX, in reports/sbom.json
	mkdir -p reports
	$(PYTHON) scripts/sbom >reports/sbom.json

coverage: .venv/check ## the tests, and what they cover
	scripts/coverage $(BIN)/python

exhaustive: .venv/check ## every close code over every transport, and what else takes minutes (SEED= for other chances)
	scripts/debian-packages libfaketime
	$(BIN)/python -m pytest -m exhaustive $(if $(SEED),--hypothesis-seed=$(SEED)) $(ARGS)

attacks: .venv/check ## what the service has to stand, and a table of how it did
	$(BIN)/python -m pytest -m attacks tests/attacks $(ARGS)

soak: .venv/check ## 15,000 connections for ten minutes, or SECONDS=..., and what is left of them
	SOAK_SECONDS=$(or $(SECONDS),$(SOAK_SECONDS)) $(BIN)/python -m pytest -m soak tests/soak $(ARGS)

pythons: .venv/check ## the tests on every other Python from 3.11 to 3.14 that is here
	scripts/pythons $(SPREAD)

wheel: .venv/check ## build the wheel, install it elsewhere, try it there
	scripts/wheel $(BIN)/python

deploy-test: .venv/check ## the deployments, for real: image, systemd, Kubernetes, proxies
	scripts/debian-packages haproxy iptables mmdebstrap netavark nginx-light podman prometheus \
		python3-dev python3-venv runc systemd-container
	$(BIN)/python -m pytest -m deploy tests/deploy $(ARGS)

browser-test: .venv/check ## the web page, in a real browser
	scripts/debian-packages chromium fonts-dejavu-core
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

peers: .venv/check ## `echo-service check` against other servers, and the table in docs/check.md
	$(BIN)/python -m pytest -m peers $(ARGS)

network: .venv/check ## connections over a cable that loses, delays and is pulled; needs root
	$(BIN)/python -m pytest -m network tests/network $(ARGS)

fuzz: .venv/check ## the codec in C under sanitizers, and the rest in Python: a minute each, or SECONDS=...
	fuzz/run $(or $(SECONDS),60) $(BIN)/python
	fuzz/run-guided $(or $(SECONDS),60) $(BIN)/python

conformance: .venv/check ## Autobahn: 301 cases, or all 517 with FULL=1
	$(BIN)/python conformance/run.py

bench: .venv/bench ## what an echo costs, here and in other servers, in a quarter of an hour
	$(BIN)/python -m benchmarks.run $(ARGS)

install: ## the command and the units, into PREFIX (/usr/local), below DESTDIR
	scripts/install $(PYTHON)

uninstall: ## what `make install` has put there, and nothing else
	scripts/install --remove

# Each of these is an environment of its own content; a stamp says that it is complete.
.venv/run .venv/test .venv/check .venv/bench: pyproject.toml setup.py echo_service/_codec.c scripts/environment
.venv/check: locks/build.txt locks/check.txt
.venv/run .venv/test .venv/check .venv/bench:
	scripts/environment $(PYTHON) .venv $(@F)

clean: ## remove what the targets made
	rm -rf .cache .venv .venv-* build dist reports *.egg-info .coverage* echo_service/*.so .hypothesis .mypy_cache .pytest_cache .ruff_cache
