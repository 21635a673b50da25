"""XLA only where the model supports it."""

from __future__ import annotations

import dataclasses

import pytest
from support.tiny_run import plan_for

from tfscale.errors import UsageError


@pytest.fixture
def models(tf, policy):
    import keras

    from tfscale.layers.partitioned_embedding import PartitionedEmbedding

    text, ids = keras.Input((1,), dtype="string"), keras.Input((2,), dtype="int32")
    inner = keras.Model(text, keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(text))
    return {
        "nested lookup": keras.Model(text, keras.layers.Dense(1)(inner(text))),
        "partitioned": keras.Model(ids, PartitionedEmbedding(9, 2, partitions=2, name="table")(ids)),
        "zoom": keras.Sequential([keras.Input((4, 4, 3)), keras.layers.RandomZoom(0.1), keras.layers.Flatten()]),
        "dense": keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
    }


@pytest.mark.parametrize("name", ["nested lookup", "partitioned", "zoom"])
def test_layers_that_xla_cannot_compile_turn_it_off_or_refuse_it(models, name):
    from tfscale.engine.compilation import without_xla_where_needed

    planned = dataclasses.replace(plan_for(8), xla=True)
    suited = without_xla_where_needed(planned, models[name], forced=None)
    assert not suited.xla and "XLA can't compile" in suited.reasons["xla"]
    with pytest.raises(UsageError, match=r"can't compile .* plan.xla=false"):
        without_xla_where_needed(planned, models[name], forced=True)
    assert without_xla_where_needed(plan_for(8), models[name], forced=None) == plan_for(8)


def test_other_models_keep_it(models):
    from tfscale.engine.compilation import without_xla_where_needed

    planned = dataclasses.replace(plan_for(8), xla=True)
    assert without_xla_where_needed(planned, models["dense"], forced=True) is planned


def test_a_run_refuses_it_before_the_first_step(models, tmp_path):
    import numpy as np

    import tfscale

    model = models["partitioned"]
    model.compile("sgd", "mse")
    data = (np.ones((8, 2), np.int32), np.zeros((8, 2, 2), np.float32))
    with pytest.raises(UsageError, match=r"table \(PartitionedEmbedding\)"):
        tfscale.fit(model, data, global_batch=8, run_dir=tmp_path / "r", overrides=["plan.xla=true"])
