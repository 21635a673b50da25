"""BERT: the published sizes, and what is learnt of it."""

from __future__ import annotations

import numpy as np
import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.models.bert import build, footprint
from tfscale.models.transformer import Shape

SMALL = {"vocabulary": 37, "length": 12, "layers": 2, "width": 16, "heads": 2, "mask": True}


def test_bert_base_has_the_published_parameters_and_flops():
    """109,482,240 with the pooler and without a head (Devlin et al., 2019, "110M"; transformers' BertModel of
    bert-base-uncased counts it), 109,514,298 as BertForMaskedLM, and 22.5 GFLOP for 128 tokens (Jiao et al., 2020,
    "TinyBERT", table 1: 22.5B)."""
    data = {"vocabulary": 30521, "tokenizer": {}, "fields": ["text"]}  # and the mask
    masked = compose(["+recipe=bert_base", "tracker=none"]).task.for_data({**data, "length": 512})
    assert masked.footprint().parameters == 109_514_298
    two = compose(["+recipe=bert_base", "task.objective=classification", "tracker=none"]).task
    assert two.for_data({**data, "length": 512, "num_classes": 2}).footprint().parameters == 109_482_240 + 2 * 769
    flops = two.for_data({**data, "length": 128, "num_classes": 2}).footprint().forward_flops
    assert flops == pytest.approx(22.5e9, rel=0.01)


@pytest.mark.parametrize("classes", [None, 5])
def test_the_declared_parameters_are_those_of_the_model(tf, classes):
    shape = Shape(**SMALL, classes=classes)
    model = build(shape)
    assert footprint(shape).parameters == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    kernels = [np.asarray(v) for v in model.trainable_variables if v.path.endswith("kernel")]
    assert np.std(np.concatenate([kernel.ravel() for kernel in kernels])) == pytest.approx(0.02, rel=0.15)
    tokens = np.random.default_rng(0).integers(0, 38, [1, 12])
    first = {
        "tokens": tokens,
        "segments": np.repeat([[1, 2, 0]], [5, 4, 3], 1),
        "positions": [[*range(5), *range(4), 0, 0, 0]],
    }
    second = {**first, "tokens": np.where(np.arange(12) < 5, tokens, (tokens + 1) % 38)}
    answers = [np.asarray(model({k: np.asarray(v, np.int32) for k, v in one.items()})) for one in (first, second)]
    np.testing.assert_array_equal(*(answers if classes else [one[0, :5] for one in answers]))  # its own text alone
