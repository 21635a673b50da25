"""The FLOPs of the table of results: counted from the layout, and by TensorFlow's profiler from the graph."""

from __future__ import annotations

import pytest
from support.tiny_run import Classify

from tfscale.cli import groups
from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import Explain


def profiled(tf, task):
    from tfscale.measures.flops import profiled_flops

    model = task.build_model()
    shape = [2, *model.input_shape[1:]]
    return profiled_flops(
        task, model, {"image": tf.zeros(shape, tf.uint8), "label": tf.zeros([2], tf.int64), "size": tf.fill([2, 2], 9)}
    )


# Those of texts, tables and clicks take no pictures, a preset needs its folder, unet_paper masks, and diffusion predicts
# in many calls of its model: others look at them
OTHERS = ("text", "tabular", "gpt", "gpt2_124m", "bert", "bert_base", "keras_hub", "dlrm", "dlrm_criteo",
          "unet_paper", "diffusion")  # fmt: skip


@pytest.mark.parametrize("recipe", [name for name in groups()["recipe"] if name not in OTHERS])
def test_a_recipe_counts_what_tensorflow_counts(tf, policy, recipe):
    policy("float32")
    config = compose([f"+recipe={recipe}"])
    classes = {"num_classes": 10, "object_classes": 10}  # of pictures, and of boxes
    task = config.task.for_data({**classes, "image_size": 28, "channels": 1})
    assert profiled(tf, task) == pytest.approx(task.footprint().forward_flops, rel=0.02)


def test_resnet50_at_224_pixels_is_8_2_gflop_forward(tf, policy):
    task = compose(["+recipe=resnet50_imagenet"]).task
    assert task.footprint().forward_flops == pytest.approx(8.2e9, rel=0.02)
    assert profiled(tf, task) == pytest.approx(8.2e9, rel=0.02)


@pytest.mark.parametrize(("depth", "size"), [(18, 96), (50, 64), (20, 28), (110, 32)])
def test_every_family_and_size_agrees(tf, policy, depth, size):
    policy("float32")
    changes = [
        f"task.depth={depth}",
        "task.width=8",
        f"task.image_size={size}",
        "task.channels=3",
        "task.num_classes=10",
    ]
    task = compose(["+recipe=resnet", *changes]).task
    assert profiled(tf, task) == pytest.approx(task.footprint().forward_flops, rel=0.02)


def test_a_task_that_does_not_predict_has_no_count(tf, policy):
    from tfscale.measures.flops import profiled_flops

    class Silent(Classify):
        def predict(self, model, batch):
            raise NotImplementedError

    model = Classify().build_model()
    assert profiled_flops(Silent(), model, {"x": tf.zeros([2, 6])}) is None


@pytest.mark.parametrize(("depth", "size"), [(20, 28), (18, 64)])
def test_what_a_step_keeps_is_what_the_layout_says(tf, policy, depth, size):
    from tfscale.measures.flops import footprint_of

    policy("float32")
    changes = [f"task.depth={depth}", f"task.image_size={size}", "task.channels=3", "task.num_classes=10"]
    task = compose(["+recipe=resnet", *changes]).task
    model = task.build_model()
    examples = {"image": tf.zeros([2, size, size, 3], tf.uint8), "label": tf.zeros([2], tf.int64)}
    counted = footprint_of(lambda batch: task.loss(model, batch, training=True)[0], model, examples)
    assert counted.parameters == task.footprint().parameters
    assert counted.forward_flops == pytest.approx(task.footprint().forward_flops, rel=0.02)
    assert counted.activation_bytes == pytest.approx(task.footprint().activation_bytes, rel=0.05)


def test_a_run_counts_what_its_task_does_not_declare(tf, policy, tmp_path):
    from support.tiny_run import fit_tiny

    _, said, _ = fit_tiny(tmp_path, train={"until": "2st"}, plan={"explain": Explain.full})
    assert "counted from the built model" in " ".join(said.replace("│", " ").split())
