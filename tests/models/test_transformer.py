"""The transformer: published sizes, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.models.transformer import Shape, build, footprint

SMALL = {"vocabulary": 37, "length": 12, "layers": 3, "width": 16, "heads": 2}


def test_gpt2_has_the_published_parameters():
    """124,439,808: of the weights that OpenAI published (Radford et al., 2019), as Hugging Face counts them for gpt2."""
    task = compose(["+recipe=gpt2_124m", "tracker=none"]).task.for_data(
        {"length": 1024, "vocabulary": 50257, "tokenizer": {}, "fields": ["text"]}
    )
    assert task.footprint().parameters == 124_439_808


@pytest.mark.parametrize("classes", [None, 5])
@pytest.mark.parametrize(("tied", "bias", "mask"), [(True, True, False), (True, False, True), (False, False, False)])
def test_the_declared_parameters_are_those_of_the_model(tf, tied, bias, mask, classes):
    shape = Shape(**SMALL, tied=tied, bias=bias, mask=mask, classes=classes)
    built = build(shape, causal=True)
    assert footprint(shape).parameters == sum(int(np.prod(v.shape)) for v in built.trainable_variables)


def test_weights_are_drawn_as_gpt2_draws_them(tf):
    model = build(Shape(**{**SMALL, "width": 128}, tied=True, deviation=0.02), causal=True)
    found = {v.path: float(np.std(v)) for v in model.trainable_variables if len(v.shape) > 1 and "bias" not in v.path}
    for path, deviation in found.items():
        ends = path.endswith(("attention/attention_output/kernel", "dense_2/kernel"))
        assert deviation == pytest.approx(0.02 / 6**0.5 if ends else 0.02, rel=0.1), path
    assert sum(path.endswith(("attention_output/kernel", "dense_2/kernel")) for path in found) == 6


def test_no_token_sees_what_comes_after_it(tf):
    model = build(Shape(**SMALL, tied=True, bias=False, deviation=0.2), causal=True)
    tokens = np.arange(12)[np.newaxis] % 7
    other = tokens.copy()
    other[0, 8:] = 30

    def logits(tokens):
        return np.asarray(model({"tokens": tokens, "segments": np.ones_like(tokens), "positions": np.arange(12)[None]}))

    a, b = logits(tokens), logits(other)
    np.testing.assert_allclose(a[0, :8], b[0, :8], rtol=1e-5)
    assert np.abs(a[0, 8:] - b[0, 8:]).max() > 1e-3
