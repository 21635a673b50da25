from __future__ import annotations

import json

import numpy as np
import pytest
from tfscale.recipes.detection import Detection

from tfscale.composition.hydra_compose import compose
from tfscale.errors import UsageError
from tfscale.models import average_precision, hub
from tfscale.task import METRIC_STATE, WHOLE

SMALL = {
    "filters": (64, 64), "blocks": (1, 1), "min_level": 2, "max_level": 3, "convolutions": 0, "anchor_size": 2.0,
    "image_size": 32, "channels": 3, "num_classes": 3, "most_boxes": 3,
}  # fmt: skip
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def drawn(seed, size=(40, 60)):
    """(a picture of one or two boxes whose colour tells their class, their sides as shares, their classes)."""
    random = np.random.RandomState(seed)
    picture, boxes, labels = np.full((*size, 3), 90, np.uint8), [], []
    for half in range(random.randint(1, 3)):
        top, left = random.randint(0, 8), half * size[1] // 2 + random.randint(0, 5)
        bottom, right = top + random.randint(16, 30), left + random.randint(12, 24)
        labels.append(random.randint(3))
        picture[top:bottom, left:right] = COLOURS[labels[-1]]
        boxes.append([top / size[0], left / size[1], bottom / size[0], right / size[1]])
    return picture, np.array(boxes, np.float32), np.array(labels)


def example(tf, seed, **more):
    picture, boxes, labels = drawn(seed)
    objects = {"bbox": tf.constant(boxes), "label": tf.constant(labels, tf.int64)}
    return {"image": tf.constant(picture), "objects": objects, "seed": tf.constant([0, seed], tf.int64), **more}


def batch_of(tf, task, seeds, training=False):
    rows = [task.preprocess(example(tf, seed), training=training) for seed in seeds]
    return {**{k: tf.stack([row[k] for row in rows]) for k in rows[0]}, "weight": tf.ones([len(rows)])}


def test_boxes_stay_on_what_they_are_around(tf):
    task = Detection(**{**SMALL, "augment": "flip", "image_size": 64})
    sides = set()
    for seed in range(8):
        found = task.preprocess(example(tf, seed), training=True)
        image, sides_before = found["image"].numpy(), drawn(seed)[1][0, 1]
        assert (image.shape, found["boxes"].shape, found["labels"].shape) == ((64, 64, 3), (3, 4), (3,))
        sides.add(bool(abs(found["boxes"].numpy()[0, 1] - sides_before) < 1e-6))
        for box, label in zip(found["boxes"].numpy(), found["labels"].numpy(), strict=True):
            if label >= 0:
                top, left, bottom, right = np.round(box * 64).astype(int)
                inside = image[top + 2 : bottom - 2, left + 2 : right - 2]
                assert inside.size and (inside == COLOURS[label]).all()
                assert not (image[:, : max(left - 2, 0)] == COLOURS[label]).all(-1)[top:bottom, -2:].any()
    assert sides == {True, False}  # mirrored or not
    plain = task.preprocess({"image": tf.constant(drawn(0)[0])}, training=False)
    assert set(plain) == {"image"}


def test_a_step_in_parts_has_the_losses_of_the_whole(tf, policy):
    policy("float32")
    task = Detection(**SMALL)
    model, batch = task.build_model(), batch_of(tf, task, range(6))
    batch["weight"] = tf.constant([1.0, 1, 1, 1, 0, 1])
    losses, metrics = task.loss(model, batch, training=False)
    parts = [{k: v[rows] for k, v in batch.items()} for rows in (slice(2), slice(2, 6))]
    whole = tf.add_n([task.count(model, part) for part in parts])
    assert float(whole[1]) == 5
    found = [task.loss(model, {**part, WHOLE: whole}, training=False) for part in parts]
    assert np.concatenate([one.numpy() for one, _ in found]) == pytest.approx(losses.numpy(), rel=1e-5)
    states = [one[METRIC_STATE].numpy() for _, one in found]
    assert states[0] + states[1] == pytest.approx(metrics[METRIC_STATE].numpy(), rel=1e-5)
    told = task.metric_result(metrics[METRIC_STATE].numpy())
    counted = (losses * batch["weight"]).numpy().sum() / 5
    assert told["loss"] == pytest.approx(counted, rel=1e-5) and set(told) == {"loss", "ap", "ap50"}
    there = metrics[METRIC_STATE].numpy()[3:6]  # what the example of weight 0 shows isn't counted
    assert there.tolist() == np.bincount(np.concatenate([drawn(s)[2] for s in (0, 1, 2, 3, 5)]), minlength=3).tolist()
    training = task.loss(model, batch, training=True)[1][METRIC_STATE].numpy()
    assert len(training) == task.metric_state_size and set(task.metric_result(training)) == {"loss"}


def test_boxes_that_are_left_out_are_counted(tf, policy):
    policy("float32")
    task = Detection(**{**SMALL, "most_boxes": 1})
    batch = batch_of(tf, task, range(4))
    told = task.metric_result(task.loss(task.build_model(), batch, training=True)[1][METRIC_STATE].numpy())
    assert told["boxes_left_out"] == sum(len(drawn(seed)[2]) - 1 for seed in range(4)) > 0


def test_a_step_without_objects_learns_the_background(tf, policy):
    policy("float32")
    task = Detection(**SMALL)
    objects = {"bbox": tf.zeros([0, 4]), "label": tf.zeros([0], tf.int64)}
    raw = {"image": tf.constant(drawn(0)[0]), "objects": objects, "seed": tf.constant([0, 0], tf.int64)}
    batch = {k: v[tf.newaxis] for k, v in task.preprocess(raw, training=True).items()}
    batch["weight"] = tf.ones([1])
    loss, metrics = task.loss(task.build_model(), batch, training=False)
    told = task.metric_result(metrics[METRIC_STATE].numpy())
    assert float(loss[0]) > 0 and told == {"loss": pytest.approx(float(loss[0]))}


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"augment": "flop"}, "task.augment"),
        ({"anchor_negative": 0.6}, "task.anchor_negative"),
        ({"blocks": (1,)}, "task.blocks"),
        ({"filters": (32, 64)}, "task.filters"),
        ({"max_level": 5}, "task.min_level, task.max_level"),
        ({"max_level": 2}, "task.min_level, task.max_level"),
        ({"image_size": 36}, "task.image_size"),
        ({"image_size": 0}, "task.image_size"),
        ({"filters": (), "blocks": ()}, "task.filters"),
        ({"most_boxes": 0}, "task.most_boxes"),
        ({"least_score": 2}, "task.least_score"),
        ({"most_overlap": -0.1}, "task.most_overlap"),
        ({"anchor_ratios": []}, "task.anchor_ratios, task.anchor_size"),
        ({"convolutions": -1}, "task.convolutions"),
    ],
    ids=str,
)
def test_what_makes_no_detector_is_refused(changed, where):
    with pytest.raises(UsageError) as raised:
        Detection(**{**SMALL, **changed})
    assert raised.value.where == where and raised.value.fix


def test_data_without_boxes_are_refused(tf):
    with pytest.raises(UsageError, match=r"task\.num_classes=20"):
        Detection(**{**SMALL, "num_classes": None}).check_data({})
    of_pictures_and_boxes = {"num_classes": 120, "object_classes": 7}
    assert Detection(**{**SMALL, "num_classes": None}).for_data(of_pictures_and_boxes).num_classes == 7
    with pytest.raises(UsageError, match="no classes"):
        boxes = {"bbox": tf.zeros([1, 4])}
        Detection(**SMALL).preprocess({"image": tf.zeros([32, 32, 3], tf.uint8), "objects": boxes}, training=False)
    with pytest.raises(UsageError, match="no boxes"):
        task = Detection(**SMALL)
        task.loss(task.build_model(), {"image": tf.zeros([1, 32, 32, 3])}, training=True)
    assert Detection(**{**SMALL, "preset": "x"}).ignored().keys() == {"filters", "blocks", "max_level"}


def test_a_presets_backbone_and_scaling_are_taken(tf, policy, tmp_path):
    policy("float32")
    made = Detection(**{**SMALL, "num_classes": 9}).build_model()
    library = hub.keras_hub("task.preset")
    converter = library.layers.RetinaNetImageConverter(image_size=(32, 32), scale=0.5, offset=[1.0, 2.0, 3.0])
    made.preprocessor = library.models.RetinaNetObjectDetectorPreprocessor(image_converter=converter)
    made.save_to_preset(str(tmp_path / "saved"))
    task = Detection(**{**SMALL, "preset": str(tmp_path / "saved")})
    model = task.build_model()
    assert model.num_classes == 3
    for one, other in zip(model.backbone.weights, made.backbone.weights, strict=True):
        assert (one.numpy() == other.numpy()).all()
    image = tf.constant(drawn(0, (32, 60))[0][:, :32])
    seen = task.model_inputs(task.preprocess({"image": image}, training=False))
    assert seen.numpy() == pytest.approx(image.numpy() * 0.5 + [1.0, 2.0, 3.0])
    assert task.identity()["preset"] == hub.content_of(str(tmp_path / "saved")) and task.footprint() is None
    with pytest.raises(UsageError, match="takes pictures of"):
        Detection(**{**SMALL, "preset": str(tmp_path / "saved"), "image_size": 64}).build_model()


@pytest.mark.slow
def test_imported_boxes_are_learnt_and_answered(tf, tmp_path):
    from PIL import Image

    import tfscale
    from tfscale.data.prepared import Prepared
    from tfscale.importer.dataset import import_data
    from tfscale.importer.import_request import ImportRequest
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    (tmp_path / "drawn" / "annotations").mkdir(parents=True)
    for split, seeds in {"train": range(16), "test": range(20, 25)}.items():
        pictures, boxes = [], []
        for seed in seeds:
            picture, sides, labels = drawn(seed)
            Image.fromarray(picture).save(tmp_path / "drawn" / f"{seed}.png")
            pictures.append({"id": seed, "file_name": f"{seed}.png", "height": 40, "width": 60})
            for (top, left, bottom, right), label in zip(sides.tolist(), labels.tolist(), strict=True):
                place = [left * 60, top * 40, (right - left) * 60, (bottom - top) * 40]
                number = 10 * seed + len(boxes)
                boxes.append({"id": number, "image_id": seed, "category_id": label + 1, "bbox": place, "iscrowd": 0})
        kinds = [{"id": i + 1, "name": name} for i, name in enumerate(("red", "green", "blue"))]
        content = json.dumps({"images": pictures, "annotations": boxes, "categories": kinds})
        (tmp_path / "drawn" / "annotations" / f"instances_{split}.json").write_text(content)
    data = {"name": "drawn", "dir": str(tmp_path / "data")}
    import_data(ImportRequest(path=str(tmp_path / "drawn"), processes=1, **data))
    config = compose([
        "+recipe=detection", "data=prepared", "data.name=drawn", f"data.dir={data['dir']}", "task.image_size=32",
        "task.filters=[64,64]", "task.blocks=[1,1]", "task.max_level=3", "task.augment=flip", "train.until=60st",
        "train.global_batch=8", "optimizer.warmup=0st", "optimizer.learning_rate=0.003", "eval.every=60st",
        "plan.precision=float32", "tracker=none", f"run.dir={tmp_path / 'it'}", "export.at_end=false",
    ])  # fmt: skip
    result = tfscale.fit(config, environ={})
    with RestoredRun.open(tmp_path / "it", checkpoint="last", environ={}) as run:
        assert run.evaluate("test") == result.metrics
        predict_file(run, "test", tmp_path / "said.jsonl")
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    source, boxes, labels = Prepared(**data), np.zeros((5, 2, 4), np.float32), np.full((5, 2), -1, np.int32)
    for row, raw in enumerate(source.read("test", tf.data.Dataset.range(5).batch(5), ram_bytes=0)):
        objects = source.parse(raw)["objects"]
        boxes[row, : len(objects["label"])], labels[row, : len(objects["label"])] = objects["bbox"], objects["label"]
    answer = {k: tf.constant([row[k] for row in said]) for k in ("boxes", "classes", "scores")}
    figures = average_precision.figures(average_precision.counts(boxes, labels, answer, 3).numpy(), 3)
    assert figures == pytest.approx({name: result.metrics[name] for name in ("ap", "ap50")})
    assert result.metrics["ap50"] > 0.2
    assert all((np.array(row["classes"]) >= 0).sum() == row["number"] for row in said)
