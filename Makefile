# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15

.PHONY: train test test-slow test-faults test-container soak check bench bench-scaling bench-checkpoint clean

train: $(READY)
	$(BIN)/python -m tfscale.train +recipe=resnet

test: $(READY)
	$(PYTEST) -m "not slow and not fault and not container"

test-slow: $(READY)
	$(PYTEST) -m "slow and not fault"

test-faults: $(READY)
	$(PYTEST) -m fault tests/faults

# Of the image that .ci/image builds
test-container: $(READY)
	CONTAINERS_CONF=$(CURDIR)/build/container/containers.conf $(BIN)/python -m pytest -m container tests/container

# An hour on two cores; fewer or closer signals by SOAK="--kills 5 --seconds 30"
soak: $(READY)
	$(BIN)/python -m benchmarks.soak $(SOAK)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.overhead

bench-scaling: $(READY)
	$(BIN)/python -m benchmarks.scaling

bench-checkpoint: $(READY)
	$(BIN)/python -m benchmarks.checkpoint_stall

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[mlflow,digits,tables,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
