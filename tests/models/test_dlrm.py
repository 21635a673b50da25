"""DLRM: its parameters and FLOPs beside published ones, what it computes, and where it fits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tfscale.recipes.dlrm import Dlrm

from tfscale.composition.hydra_compose import compose
from tfscale.errors import UsageError
from tfscale.models.dlrm import Shape, footprint
from tfscale.preflight import plan_run

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
SMALL = Shape(numbers=3, tables=(5, 7, 2), dim=4, bottom=(6, 4), top=(8,))
# MLPerf's reference (github.com/mlcommons/training, recommendation/dlrm): Criteo's Terabyte, at most 40 M values each
TERABYTE = [39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10, 2208, 11938, 155, 4,
            976, 14, 39979771, 25641295, 39664984, 585935, 12972, 108, 36]  # fmt: skip


def test_the_paper_s_model_has_540_million_parameters():
    """Naumov et al. (2019, arXiv 1906.00091), section 5: Criteo's Kaggle data, 540 M parameters."""
    task = compose(["+recipe=dlrm_criteo"]).task
    cost = task.footprint()
    assert sum(task.tables) == 33_762_577
    bottom = 13 * 512 + 512 + 512 * 256 + 256 + 256 * 64 + 64 + 64 * 16 + 16
    top = (27 * 26 // 2 + 16) * 512 + 512 + 512 * 256 + 256 + 256 + 1
    assert cost.parameters == 33_762_577 * 16 + bottom + top == 540_677_217
    assert cost.table_parameters == 540_201_232
    layers = 13 * 512 + 512 * 256 + 256 * 64 + 64 * 16 + 367 * 512 + 512 * 256 + 256
    assert cost.forward_flops == 2 * (layers + 27 * 27 * 16)


def test_mlperf_s_model_has_24_billion():
    shape = Shape(13, TERABYTE, 128, (512, 256, 128), (1024, 1024, 512, 256))
    cost = footprint(shape)
    assert shape.joined == 479
    assert sum(TERABYTE) == 187_767_399
    assert cost.parameters - cost.table_parameters == 2_368_897
    assert cost.table_parameters == 187_767_399 * 128


@pytest.mark.parametrize("partitions", [1, 3])
def test_what_is_counted_is_what_tensorflow_counts(tf, policy, partitions):
    from tfscale.measures.flops import profiled_flops

    policy("float32")
    task = Dlrm(dim=8, bottom=[64, 8], top=[64, 32], numbers=13, tables=[50, 9, 4], partitions=partitions)
    model, cost = task.build_model(), task.footprint()
    assert cost.parameters == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    batch = {"numbers": tf.zeros([2, 13]), "ids": tf.zeros([2, 3], tf.int32), "label": tf.zeros([2], tf.int64)}
    assert profiled_flops(task, model, batch) == pytest.approx(cost.forward_flops, rel=0.02)


@pytest.mark.parametrize("partitions", [1, 2])
def test_it_computes_what_the_paper_says(tf, policy, partitions):
    from tfscale.models.dlrm import build

    policy("float32")
    model = build(dataclasses.replace(SMALL, partitions=partitions))
    random = np.random.RandomState(0)
    numbers = random.rand(6, 3).astype("float32")
    ids = np.stack([random.randint(0, size, 6) for size in SMALL.tables], 1)
    layers = {layer.name: layer for layer in model.layers}
    table = layers["table"].table() if partitions > 1 else layers["table"].get_weights()[0]

    def dense(x, name, *, relu=True):
        kernel, bias = layers[name].get_weights()
        return np.maximum(x @ kernel + bias, 0) if relu else x @ kernel + bias

    bottom = dense(dense(numbers, "bottom_0"), "bottom_1")
    rows = table[ids + np.array([0, 5, 12])]  # one category behind another
    vectors = np.concatenate([bottom[:, None], rows], 1)
    pairs = [(vectors[:, i] * vectors[:, j]).sum(1) for i in range(4) for j in range(i)]
    top = dense(np.concatenate([bottom, np.stack(pairs, 1)], 1), "top_0")
    said = model({"numbers": numbers, "ids": ids.astype("int32")}).numpy()
    np.testing.assert_allclose(said, dense(top, "logit", relu=False), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_step_changes_the_rows_that_it_looked_up_alone(tf, policy, partitions):
    import keras

    from tfscale.models.dlrm import build

    policy("float32")
    model = build(dataclasses.replace(SMALL, partitions=partitions))
    weights = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        logit = model({"numbers": tf.ones([2, 3]), "ids": tf.constant([[1, 6, 0], [1, 2, 1]])})
    gradients = tape.gradient(logit, weights)
    assert sum(isinstance(g, tf.IndexedSlices) for g in gradients) == partitions

    def table():
        layer = model.get_layer("table")
        return layer.table() if partitions > 1 else layer.get_weights()[0]

    before = table().copy()
    keras.optimizers.SGD(1.0).apply(gradients, model.trainable_variables)
    assert set(np.flatnonzero((table() != before).any(1))) == {1, 5 + 6, 5 + 2, 12, 13}


SERVED = {"chief": ["a:1"], "worker": ["a:2", "a:3"], "ps": ["a:4", "a:5"]}


def planned(environ, **terabyte):
    small = [f"plan.hardware={GOLDEN / 'h100x8.json'}", "train.global_batch=65536"]
    if terabyte:
        small += [f"task.tables={TERABYTE}", "task.dim=128", "task.bottom=[512,256,128]"]
    return plan_run(compose(["+recipe=dlrm_criteo", *small]), environ=environ)


def test_tables_that_fit_no_device_are_refused_and_planned_for_servers():
    assert planned({}).num_replicas == 8
    with pytest.raises(UsageError, match="24034227072 numbers among servers: tfscale launch"):
        planned({}, terabyte=True)
    cluster = {"cluster": SERVED, "task": {"type": "chief", "index": 0}}
    plan = planned({"TF_CONFIG": json.dumps(cluster)}, terabyte=True)
    assert plan.strategy == "parameter_server"
    assert plan.foreseen_memory_bytes < 4 * 2**30
    assert "which the servers hold" in plan.reasons["foreseen_memory_bytes"]
