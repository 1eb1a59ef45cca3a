# make demo    train on Shakespeare and let it write          make serve   the service and one worker
# make test    all tests                                      make check   lint, types, import rules, known weaknesses
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where pip finds torch. Unset: pip's own index, which on Linux means the CUDA build, several gigabytes.
TORCH_INDEX ?=
CORPUS ?=
TRAIN_MINUTES ?= 1
DEMO_EXIT ?=
SHORT ?=
NANOGPT ?=
BENCH ?=
# As environment variables they reach the command whatever quotes and spaces they hold.
export CORPUS NANOGPT

TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
INSTALLED := $(VENV)/installed

.PHONY: install demo serve test test-compose test-faults fuzz check format bench clean

install: $(INSTALLED)

# torch first, from its own index if one is named: the second line then finds it installed.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,sample,ray]'
	touch $@

demo: install
	$(BIN)/python -m app.demo --minutes $(TRAIN_MINUTES) $(if $(CORPUS),--corpus "$$CORPUS") $(if $(filter-out 0,$(DEMO_EXIT)),--exit)

serve: install
	$(BIN)/charsmith serve

# One file's tests stay in one process: they share a running service. CHARSMITH_TEST_POSTGRES=postgresql+psycopg://... names
# a server on which those that concern the database run as well.
ON_POSTGRES := tests/store tests/api tests/worker tests/system tests/faults
test: install
	CHARSMITH_TEST_POSTGRES= $(BIN)/python -m pytest -n auto --dist loadfile
ifneq ($(CHARSMITH_TEST_POSTGRES),)
	$(BIN)/python -m pytest -n auto --dist loadfile $(ON_POSTGRES)
endif

# An engine that runs, or a script that starts one: CHARSMITH_TEST_ENGINE=path/to/engine.sh
test-compose: install
	$(BIN)/python -m pytest -m compose -s tests/compose

# Ten thousand power losses, the long forms of tests that have one, then kills everything, again and again, for hours:
# FAULTS='--seed 2' draws others, FAULTS=--write-docs writes the figures down.
FAULTS ?=
test-faults: install
	$(BIN)/python -m tests.faults.power_loss
	TEST_FORM=full $(BIN)/python -m pytest -s -m forms
	$(BIN)/python -m tests.faults.killing --size full $(FAULTS)

# 2,300 requests that Schemathesis makes up: FUZZ_SEED=2 makes up others, FUZZ_FULL=1 makes up 20,000.
FUZZ_SEED ?= 1
FUZZ_FULL ?=
fuzz: install
	$(BIN)/python -m tests.fuzz --seed $(FUZZ_SEED) $(if $(filter-out 0,$(FUZZ_FULL)),--full)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.audit

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# SHORT=1: under three minutes. NANOGPT: a checkout of nanoGPT to measure beside ours. BENCH: any other options.
bench: install
	$(BIN)/python -m benchmarks $(if $(filter-out 0,$(SHORT)),--short) $(if $(NANOGPT),--nanogpt "$$NANOGPT") $(BENCH)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
