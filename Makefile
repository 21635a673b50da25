# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest --durations 15
# For tests that wait more than they compute: more at once than there are cores, the long ones first (tests/conftest.py).
WAITING := --dist loadgroup --no-loadscope-reorder

.PHONY: train test test-slow test-faults test-container test-versions test-tfdv test-beam test-serving-clients test-serving-peers coverage soak test-keras programs-keras check types bench bench-gpu bench-peers bench-loop bench-scaling bench-input bench-checkpoint reference clean

train: $(READY)
	$(BIN)/python -m tfscale.train +recipe=resnet

test: $(READY)
	$(PYTEST) --numprocesses 3 --dist loadfile -m "not slow and not fault and not container"

# Of these files alone, since reading all of them takes half a minute
test-slow: $(READY)
	$(PYTEST) --numprocesses 3 $(WAITING) -m "slow and not fault" \
		$(shell grep -rl --include 'test_*.py' 'mark\.slow' tests)

test-faults: $(READY)
	$(PYTEST) --numprocesses 4 $(WAITING) -m fault tests/faults

# An import by Apache Beam beside one without, in an environment of its own, which is kept; by hand
test-beam: build/beam/.ready
	build/beam/bin/python -m pytest -p no:cacheprovider tests/importer/test_beam.py

build/beam/.ready: requirements-beam.txt pyproject.toml
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --disable-pip-version-check -q -r requirements-beam.txt
	$(@D)/bin/pip install --disable-pip-version-check -q --no-deps -e .
	touch $@

# Of the image that .ci/image builds
test-container: $(READY)
	CONTAINERS_CONF=$(CURDIR)/build/container/containers.conf $(BIN)/python -m pytest -m container tests/container

# The lowest and the newest versions that pyproject.toml allows, each in an environment of its own, which is kept: minutes
# each, and as long to install. Of another Python: make test-versions PYTHON=python3.13 VERSIONS=newest
VERSIONS ?= lowest newest
TRIED := tests/hooks tests/engine/test_step.py tests/optimizers/test_optim.py tests/run/test_session.py \
	tests/keras_task/test_parts.py tests/text tests/engine/test_graphs.py::test_a_users_task_and_source_may_branch_in_python \
	tests/test_train.py::test_result_and_mlflow_hold_everything
test-versions: $(VERSIONS:%=build/versions/$(notdir $(PYTHON))-%/.ready)
	for ready in $^; do echo "== $$ready" && $$(dirname $$ready)/bin/python -m pytest -p no:cacheprovider $(TRIED) || exit 1; done

build/versions/$(notdir $(PYTHON))-%/.ready: pyproject.toml tests/lowest.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --disable-pip-version-check -q $(if $(filter lowest,$*),-c tests/lowest.txt) \
		-e ".[mlflow,digits,tables,text]" pytest pytest-timeout
	touch $@

# What TensorFlow Data Validation says of an import, beside what tests/golden/tfdv.json has of it: in an environment of its own,
# since it needs TensorFlow 2.16 and protobuf 4. RECORD=--record writes that file anew
test-tfdv: $(READY) build/tfdv/.ready
	rm -rf build/tfdv/data
	$(BIN)/python -m tests.tfdv.data build/tfdv/data
	build/tfdv/bin/python tests/tfdv/answers.py build/tfdv/data/looked/1.0.0 tests/golden/tfdv.json $(RECORD)

build/tfdv/.ready: tests/tfdv/requirements.txt
	rm -rf $(@D)
	python3.11 -m venv $(@D)
	$(@D)/bin/pip install --disable-pip-version-check -q --no-deps -r tests/tfdv/requirements.txt
	touch $@

# tritonclient, MLServer's codecs and KServe's clients against `tfscale serve`, in environments of their own, which are kept; by hand
test-serving-clients: $(READY)
	$(BIN)/python -m tests.serving_clients

# What KServe's server and MLServer answer, beside what tests/golden/serving_peers.json has of it: each in an environment of its own,
# which is kept; by hand. RECORD=--record writes that file anew
test-serving-peers: $(READY)
	$(BIN)/python -m tests.serving_clients.peers $(RECORD)

# Which lines of tfscale/ the tests run, also in the processes that they start (those that are killed tell nothing). No number is
# an aim. Of some tests alone: make coverage COVERED="tests/engine tests/checkpoint"
COVERED ?= tests
coverage: $(READY)
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile --timeout 900 -m "not slow and not fault and not container" $(COVERED)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --sort cover

# An hour on two cores; fewer or closer signals by SOAK="--kills 5 --seconds 30"
soak: $(READY)
	$(BIN)/python -m benchmarks.soak $(SOAK)

# Keras's own tests with our fit in the place of Keras's, and the programs below. Some tests alone, by words of their names:
# make test-keras KERAS_TESTS="early_stopping"
test-keras: $(READY)
	$(BIN)/python -m tests.keras_suite $(KERAS_TESTS)
	$(if $(KERAS_TESTS),,$(MAKE) --no-print-directory programs-keras)

# Keras programs as people write them, by Keras's own fit and by ours. Some alone, or over two logical devices:
# make programs-keras PROGRAMS="--devices 2 vae gan"
programs-keras: $(READY)
	$(BIN)/python tests/keras_programs/compare.py $(PROGRAMS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types

# Of tfscale/, of a user's program, and of the examples in docstrings
types: $(READY)
	rm -rf build/examples
	$(BIN)/python tests/docstrings.py build/examples
	$(BIN)/mypy tfscale tests/user_program.py build/examples

# Every question, in less than ninety minutes; some alone by BENCH="step:vit loop", and any other of its options
BENCH ?= --all --photos ../shared/data/clothing10-256px.tar --text ../shared/data/tinyshakespeare.txt
bench: $(READY)
	mkdir -p build/bench
	$(BIN)/python -m benchmarks $(BENCH) --json build/bench/results.json --page build/bench/results.html

# On a machine with a GPU, in less than nine minutes; TORCH is an interpreter whose PyTorch computes on it
TORCH ?= build/input-peers/bin/python
bench-gpu: $(READY)
	mkdir -p build/bench
	$(BIN)/python -m benchmarks gpu --torch $(TORCH) --blocks 5 --seconds 1 --json build/bench/gpu.json --page build/bench/gpu.html

# The environments of the peers: PyTorch twice, Orbax, Grain and what decodes photos
bench-peers: $(READY)
	$(BIN)/python -m benchmarks.peers

bench-loop: $(READY)
	$(BIN)/python -m benchmarks.overhead

bench-scaling: $(READY)
	$(BIN)/python -m benchmarks.scaling

bench-input: $(READY)
	$(BIN)/python -m benchmarks.input ../shared/data/clothing10-256px.tar

bench-checkpoint: $(READY)
	$(BIN)/python -m benchmarks.checkpoint_stall

# Every key of the configuration, as the code has it; a test compares it
reference: $(READY)
	$(BIN)/python -m tfscale.configuration --markdown > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[mlflow,digits,flights,tables,images,text,hub,inspect,validate,report,serve,workflow,sweep,litert,onnx,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
