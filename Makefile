# `make demo` shows it, `make test` tries it; `make help` lists the rest.
PYTHON ?= python3
SECONDS_EACH ?= 60
START := $(shell date +%s.%N)
BIN := .venv/bin
PREPARE := $(PYTHON) tools/prepare.py
CHECKED := streamgate edge benchmarks tools tests
PYTEST := $(BIN)/python -m pytest --durations=20
# What only computes shares the cores; the others start servers and players, and mind the clock.
COMPUTE := tests/unit tests/native tests/property tests/oracles
ON_ALL_CORES := -n auto --maxprocesses 4 --dist worksteal
# $(call pytest,MARK,FOLDERS): the tests of MARK, those in FOLDERS on all cores before the others. Where ARGS narrow them,
# one of the two may have none to run (status 5).
define pytest
@failed=0; none=1; \
for part in "$(ON_ALL_CORES) $(2)" "$(2:%=--ignore=%)"; do \
    $(PYTEST) -m $(1) $$part $(ARGS); \
    case $$? in 0) none=0;; 5) ;; *) none=0; failed=1;; esac; \
done; \
exit $$((failed + none))
endef

export PORT VIDEO
# Servers are started by the hundred: their modules are compiled once, and not by each of them.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo setup native test test-slow micro slow lint sanitize fuzz bench lock clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

demo: ## serve the demo clip, or VIDEO=path, on PORT (8080)
	@$(PREPARE) --web
	@exec $(BIN)/python tools/demo.py $(START)

setup: ## all that tests and checks need
	@$(PYTHON) tools/apt.py test slow fuzz bench
	@$(PREPARE) --web test lint fuzz bench

native: ## rebuild the kernels in place
	@$(PREPARE) native
	@$(BIN)/python setup.py --quiet build_ext --inplace

test: ## the everyday tests
	@$(PYTHON) tools/apt.py test
	@$(PREPARE) --web test
	$(call pytest,"not slow",$(COMPUTE))

test-slow: ## the tests that take long, the smallest run of every benchmark among them, the sanitizers and the fuzzers
	@$(PYTHON) tools/apt.py test slow fuzz bench
	@$(PREPARE) --web test fuzz bench
	@status=0; for part in sanitize fuzz micro slow; do $(MAKE) --no-print-directory $$part || status=1; done; exit $$status

micro: ## the micro-benchmarks, once each
	@$(BIN)/python -m pytest -q --timeout 300 benchmarks/micro

slow: ## of the slow tests those that pytest runs
	$(call pytest,slow,$(filter-out tests/unit,$(COMPUTE))) # benchmarks have the cores for themselves

lint: ## ruff, mypy, the floors, stubs against kernels
	@$(PREPARE) lint
	$(BIN)/ruff check .
	$(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports
	$(BIN)/stubtest streamgate.native --ignore-missing-stub

sanitize: ## the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(PREPARE) test
	@$(BIN)/python tools/variant.py asan -m pytest tests/native -q -m "not slow" -p no:cacheprovider $(ON_ALL_CORES) $(ARGS)

fuzz: ## every parser for SECONDS_EACH (60)
	@$(PYTHON) tools/apt.py fuzz
	@$(PREPARE) fuzz
	@$(BIN)/python tools/variant.py fuzz -m tests.fuzz.run --seconds $(SECONDS_EACH)

bench: ## the project's benchmarks
	@$(PYTHON) tools/apt.py bench
	@$(PREPARE) --web bench
	$(BIN)/python -m benchmarks packaging $(ARGS)
	$(BIN)/python -m benchmarks delivery $(ARGS)
	$(BIN)/python -m benchmarks tokens $(ARGS)
	$(BIN)/python -m benchmarks origin $(ARGS)
	$(BIN)/python -m benchmarks sessions $(ARGS)
	$(BIN)/python -m pytest --benchmark-enable --benchmark-only -q --timeout 300 $(MICRO) benchmarks/micro

lock: ## renew constraints.txt
	@$(PREPARE)
	@$(BIN)/python tools/lock.py

clean: ## remove what was built, except .venv
	rm -rf build dist var streamgate/web web/node_modules *.egg-info native/*.c streamgate/native/*.so
