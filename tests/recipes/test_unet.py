from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from tfscale.recipes.unet import UNet

from tfscale.errors import UsageError

SMALL = {"levels": 2, "width": 4, "image_size": 32, "channels": 3, "num_classes": 11}


def drawn(size, seed=0):
    """A picture whose colour tells the class of each pixel, and its mask, in large patches."""
    mask = np.random.RandomState(seed).randint(0, 11, (5, 5)).repeat(-(-size[0] // 5), 0).repeat(-(-size[1] // 5), 1)
    mask = mask[: size[0], : size[1], None].astype(np.uint8)
    return np.repeat(mask * 20, 3, -1), mask


@pytest.mark.parametrize("augment", ["none", "digits", "photos", ["imagenet", {"jitter": {"rotate": 0.5}}]], ids=str)
def test_whatever_moves_a_picture_moves_its_mask(tf, augment):
    task = UNet(**{**SMALL, "augment": augment})
    picture, mask = drawn((60, 45))
    moved = []
    for number in range(12):
        example = {
            "image": tf.constant(picture),
            "mask": tf.io.encode_png(mask),
            "seed": tf.constant([5, number], tf.int64),
        }
        one = task.preprocess(example, training=True)
        seen, classes = one["image"].numpy()[..., 0].astype(int), one["mask"].numpy()[..., 0].astype(int)
        assert (seen.shape, set(np.unique(classes)) <= {*range(11), 255}) == ((32, 32), True)
        inside = classes != 255
        assert inside.mean() > 0.6 and np.mean(np.abs(seen - 20 * classes)[inside] <= 10) > 0.8
        moved.append(classes.tobytes())
    assert len(set(moved)) == (1 if augment == "none" else 12)


def test_what_a_mask_cannot_follow_and_what_a_model_cannot_halve_is_refused(tf):
    example = {"image": tf.zeros([32, 32, 3], tf.uint8), "mask": tf.fill([32, 32, 1], tf.constant(11, tf.uint8))}
    example["seed"] = tf.zeros([2], tf.int64)
    with pytest.raises(UsageError, match="a mask can't follow Cutmix"):
        UNet(**{**SMALL, "augment": ["digits", "cutmix"]})
    with pytest.raises(UsageError, match=r"task.image_size.*32"):
        UNet(levels=4, image_size=30)
    with pytest.raises(UsageError, match="188 pixels 4 are answered"):
        UNet(levels=4, image_size=188, padded=False)
    with pytest.raises(UsageError, match=r"task\.num_classes=21"):
        UNet(levels=2, image_size=32).check_data({})
    with pytest.raises(tf.errors.InvalidArgumentError, match="not below task.num_classes=11"):
        UNet(**SMALL).preprocess(example, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="different sizes"):
        UNet(**SMALL).preprocess({**example, "image": tf.zeros([32, 31, 3], tf.uint8)}, training=False)


def test_loss_and_iou_are_those_of_the_pixels_that_count(tf, policy):
    policy("float32")
    task = UNet(**{**SMALL, "dice": 0.5, "num_classes": 3})
    random = np.random.RandomState(0)
    logits = random.normal(size=(4, 32, 32, 3)).astype(np.float32)
    mask = random.choice([0, 1, 255], (4, 32, 32, 1)).astype(np.uint8)  # nothing is of class 2
    mask[2] = 255

    def of(rows, weight):
        batch = {"image": tf.zeros([len(rows), 32, 32, 3], tf.uint8), "mask": mask[rows], "weight": tf.constant(weight)}
        losses, metrics = task.loss(lambda image, training: tf.constant(logits[rows]), batch, training=True)
        return losses.numpy(), metrics["_summed"].numpy()

    losses, state = of([0, 1, 2, 3], [1.0, 1.0, 1.0, 0.0])
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for row in (0, 1, 3):
        known = mask[row, ..., 0] != 255
        labels, said = mask[row, ..., 0][known], shares[row][known]
        right = said[np.arange(len(labels)), labels]
        overlap = [2 * said[labels == c, c].sum() / (said[:, c].sum() + (labels == c).sum()) for c in (0, 1)]
        assert losses[row] == pytest.approx(-np.log(right).mean() + 0.5 * (1 - np.mean(overlap)), rel=1e-4)
    assert losses[2] == 0.5  # no pixel of it counts, and nothing overlaps
    known = mask[:2, ..., 0] != 255
    truth, answers = mask[:2, ..., 0][known], logits[:2].argmax(-1)[known]
    iou = [((truth == c) & (answers == c)).sum() / ((truth == c) | (answers == c)).sum() for c in range(3)]
    found = task.metric_result(state)
    assert found == pytest.approx({"mean_iou": np.mean(iou), "pixel_accuracy": np.mean(truth == answers)})
    parts = of([0], [1.0])[1] + of([1, 3], [1.0, 0.0])[1]
    assert task.metric_result(parts) == found


def test_imported_masks_are_learnt_and_answered_at_their_own_sizes(tf, tmp_path):
    from PIL import Image

    import tfscale
    from tfscale.composition.hydra_compose import compose
    from tfscale.data.prepared import Prepared
    from tfscale.importer.dataset import import_data
    from tfscale.importer.import_request import ImportRequest
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    sizes = {"train": [(40, 50), (64, 32), (33, 33), (50, 61)], "test": [(32, 32)] * 5}
    for split, some in sizes.items():
        for number, size in enumerate(some):
            picture, mask = drawn(size, number + 10 * (split == "test"))
            mask[:4] = 255
            for kind, pixels in (("images", picture), ("masks", mask[..., 0])):
                (tmp_path / "drawn" / split / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / "drawn" / split / kind / f"{number}.png")
    data = {"name": "drawn", "dir": str(tmp_path / "data")}
    import_data(ImportRequest(path=str(tmp_path / "drawn"), processes=1, **data))
    config = compose(
        [
            "+recipe=unet", "data=prepared", "data.name=drawn", f"data.dir={data['dir']}", "task.num_classes=11",
            "task.image_size=32", "task.levels=2", "task.width=8", "task.augment=[flip,colour]", "train.until=4st",
            "train.global_batch=4", "optimizer.warmup=0st", "optimizer.learning_rate=0.01", "eval.every=4st",
            "plan.precision=float32", "tracker=none", "train.ema=0.5", "eval.beside_ema=true", f"run.dir={tmp_path / 'it'}", "export.at_end=false",
        ]
    )  # fmt: skip
    result = tfscale.fit(config, environ={})
    with RestoredRun.open(tmp_path / "it", checkpoint="last", environ={}) as run:
        assert run.evaluate("test") == result.metrics and result.metrics["raw_loss"] != result.metrics["loss"]
        predict_file(run, "test", tmp_path / "said.jsonl")  # by the averages again
    said = [json.loads(line)["mask"] for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    answers = [tf.io.decode_png(base64.urlsafe_b64decode(one)).numpy()[..., 0] for one in said]
    source, counts = Prepared(**data), np.zeros((11, 11))
    order = tf.data.Dataset.range(5).batch(5)
    for raw, answer in zip(source.read("test", order, ram_bytes=0), answers, strict=True):
        truth = tf.io.decode_png(source.parse(raw)["mask"]).numpy()[..., 0]
        np.add.at(counts, (truth[truth != 255], answer[truth != 255]), 1)
    assert result.metrics["mean_iou"] == task_iou(counts) > 0
    with RestoredRun.open(
        tmp_path / "it", checkpoint="last", unlabelled=str(tmp_path / "drawn" / "train" / "images"), environ={}
    ) as run:
        predict_file(run, "test", tmp_path / "own.jsonl")
    rows = map(json.loads, (tmp_path / "own.jsonl").read_text().splitlines())
    shapes = {one["name"]: tf.io.decode_png(base64.urlsafe_b64decode(one["mask"])).shape[:2] for one in rows}
    assert shapes == {f"{number}.png": size for number, size in enumerate(sizes["train"])}


def task_iou(counts):
    return UNet(**SMALL).metric_result(counts.reshape(-1))["mean_iou"]


def test_an_export_may_differ_where_two_classes_are_as_likely(tf):
    from tfscale.data.encoded_masks import encoded_masks
    from tfscale.errors import CheckFailed
    from tfscale.export.verify import differences

    one = np.zeros((1, 50, 40), np.int32)
    other = one.copy()
    other[0, 3, 3] = 7
    other_size = encoded_masks(tf.constant(one), tf.constant([[40, 50]]))
    texts = [{"served/mask": encoded_masks(tf.constant(m), tf.constant([[50, 40]])).numpy()} for m in (one, other)]
    assert texts[0]["served/mask"][0] != texts[1]["served/mask"][0]
    differences(*texts)
    other[0, :3] = 7
    for wrong in (encoded_masks(tf.constant(other), tf.constant([[50, 40]])), other_size, tf.constant(["no mask"])):
        with pytest.raises(CheckFailed, match="served/mask: 1 of 1 differ"):
            differences(texts[0], {"served/mask": wrong.numpy()})
