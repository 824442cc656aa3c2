# The two commands: `make demo` and `make test`. Each installs what it needs first.

VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
OUT    ?= run

# Tests and benchmarks on real data look here; they skip with a reason where nothing is set.
ifneq ($(wildcard ../shared/data),)
export ARCHIPEL_DATA ?= $(abspath ../shared/data)
endif

# Demo and tests start many processes: without bytecode each would compile the product anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test simulate check format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/archipel demo --out $(OUT)

# Several processes share each core: threads that spin for the others only cost.
test simulate: export OMP_NUM_THREADS = 1
test simulate: export OPENBLAS_NUM_THREADS = 1
test simulate: export POLARS_MAX_THREADS = 1

test: install
	$(BIN)/pytest -n 2 --dist worksteal

# Five times as many schedules as in `make test`; SEEDS=10000 for a night.
simulate: SEEDS ?= 2500
simulate: install
	ARCHIPEL_SEEDS=$(SEEDS) $(BIN)/pytest -n 2 --dist worksteal tests/simulation

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
