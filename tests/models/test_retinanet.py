from __future__ import annotations

import math

import numpy as np
import pytest

from tfscale.models import retinanet

ANCHORS = retinanet.Anchors(2.0, 2, (1.0, 2.0), 0.5, 0.4)
SHAPE = retinanet.Shape((64, 72), (2, 1), (2, 4), 1, 64, 3, 5)


@pytest.fixture
def made(tf, policy):
    policy("float32")
    return retinanet.build(SHAPE, ANCHORS)


def test_footprint_is_the_built_model(tf, made):
    from tfscale.measures.flops import footprint_of

    foreseen = retinanet.footprint(SHAPE, ANCHORS)
    assert foreseen.parameters == sum(math.prod(v.shape) for v in made.trainable_variables)

    def losses(batch):
        answers = made(batch["image"], training=True)
        return retinanet.summed_losses(made, answers, retinanet.targets(made, *batch.values()))[0]

    batch = {"image": tf.zeros([2, 64, 64, 3]), "boxes": tf.ones([2, 4, 4]), "labels": tf.zeros([2, 4])}
    counted = footprint_of(losses, made, batch)
    assert foreseen.forward_flops == counted.forward_flops
    assert foreseen.activation_bytes == pytest.approx(counted.activation_bytes, rel=0.05)


def test_it_begins_as_the_paper_has_it(tf, made):
    answers = made(tf.constant(np.random.RandomState(0).uniform(-1, 1, (2, 64, 64, 3)), tf.float32))
    places = 16**2 + 8**2 + 4**2
    assert answers["bbox_regression"].shape == (2, places * 4, 4) and answers["cls_logits"].shape == (2, places * 4, 5)
    assert made.classification_head.prediction_layer.bias.numpy() == pytest.approx(math.log(0.01 / 0.99))
    assert not made.box_head.prediction_layer.bias.numpy().any()
    assert 0.009 < made.box_head.prediction_layer.kernel.numpy().std() < 0.011


def drawn(tf):
    """(pictures, boxes in pixels, labels): of three pictures one has no box."""
    random = np.random.RandomState(1)
    corner, sides = random.uniform(0, 36, (3, 4, 2)), random.uniform(8, 26, (3, 4, 2))
    labels = random.randint(0, 5, (3, 4))
    labels[0, 3], labels[1] = -1, -1
    boxes = np.concatenate([corner, corner + sides], -1) * (labels >= 0)[..., np.newaxis]
    return tf.zeros([3, 64, 64, 3]), tf.constant(boxes, tf.float32), tf.constant(labels)


def test_the_mean_loss_and_its_gradient_are_kerashubs(tf, made):
    images, boxes, labels = drawn(tf)
    images += tf.random.stateless_uniform(images.shape, [0, 1], -1.0, 1.0)
    made.compile(optimizer="sgd")
    variables = [v.value for v in made.trainable_variables]

    @tf.function
    def both():
        with tf.GradientTape(persistent=True) as tape:
            answers = made(images, training=False)
            theirs = made.compute_loss(images, {"boxes": boxes, "labels": tf.cast(labels, tf.float32)}, answers, None)
            sums, positives = retinanet.summed_losses(made, answers, retinanet.targets(made, images, boxes, labels))
            ours = tf.reduce_mean(sums * 3 / tf.reduce_sum(positives))
        return (ours, theirs), [tape.gradient(loss, variables) for loss in (ours, theirs)], positives

    losses, gradients, positives = both()
    assert positives.numpy().min() == positives.numpy()[1] == 0 < positives.numpy()[2]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)
    for one, other in zip(*gradients, strict=True):
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def test_what_anchors_stand_for_is_found_again(tf, made):
    """Answers that are the targets give the boxes back, each once, clipped at the edges, the best score first."""
    images, boxes, labels = drawn(tf)
    deltas, classes = retinanet.targets(made, images, boxes, labels)
    assert set(np.unique(classes)) <= {-2, -1, *np.unique(labels)}
    logits = np.where(tf.one_hot(tf.cast(classes, tf.int32), 5) > 0, 4.0 + np.arange(5), -8.0)
    answers = {"bbox_regression": deltas, "cls_logits": tf.constant(logits, tf.float32)}
    answer = tf.function(lambda: retinanet.found(made, answers, images, retinanet.Limits(6, 0.05, 0.5)))()
    assert answer["number"].numpy()[1] == 0 and (answer["classes"].numpy()[1] == -1).all()
    seen = 0
    for row in (0, 2):
        number = int(answer["number"][row])
        scores, of = answer["scores"].numpy()[row, :number], answer["classes"].numpy()[row, :number]
        assert (np.diff(scores) <= 0).all() and scores == pytest.approx(1 / (1 + np.exp(-4.0 - of)), abs=1e-5)
        assert (answer["classes"].numpy()[row, number:] == -1).all() and not answer["scores"].numpy()[
            row, number:
        ].any()
        for box, label in zip(answer["boxes"].numpy()[row, :number], of, strict=True):
            whole = np.clip(boxes.numpy()[row] / 64, 0, 1)
            assert any(
                label == k and np.abs(box - b).max() < 1e-4 for b, k in zip(whole, labels.numpy()[row], strict=True)
            )
            seen += 1
    assert 5 <= seen <= 7  # that of no anchor's size isn't learnt


def test_targets_keep_their_precision_in_bfloat16(tf, policy, made):
    images, boxes, labels = drawn(tf)
    wanted = retinanet.targets(made, images, boxes, labels)
    policy("mixed_bfloat16")
    half = retinanet.build(SHAPE, ANCHORS)
    assert half.compute_dtype == "bfloat16"
    for one, other in zip(retinanet.targets(half, images, boxes, labels), wanted, strict=True):
        assert one.dtype == tf.float32 and (one.numpy() == other.numpy()).all()


def test_answers_keep_their_precision_in_bfloat16(tf, policy):
    policy("mixed_bfloat16")
    shape = retinanet.Shape((64,), (1,), (2, 2), 1, 16, 3, 2)
    answers = retinanet.build(shape, retinanet.Anchors())(tf.random.stateless_normal([1, 16, 16, 3], [0, 1]))
    logits = answers["cls_logits"].numpy()
    assert {answer.dtype for answer in answers.values()} == {tf.float32}
    assert (tf.cast(tf.cast(logits, tf.bfloat16), tf.float32).numpy() != logits).any()
