"""COCO's average precision, against its rules written out and what pycocotools 2.0.11 answers."""

from __future__ import annotations

import numpy as np
import pytest

from tfscale.models import average_precision

CLASSES = 4
# COCOeval's AP and AP50 of `drawn(seed, 60)` in pixels of a picture of 1000 x 1000, with maxDets 100
GOLDEN = {0: (0.6314832123, 0.7911184567), 1: (0.6086715275, 0.7597563682), 2: (0.6412020953, 0.8116823151)}


def drawn(seed, pictures):
    """[(boxes, labels, found boxes, classes, scores)]: shares of the sides. What is found is moved a little, at times of
    another class, doubled or nowhere; a better place has a better score, mostly. Nothing is of the last class, which is
    found at times."""
    random = np.random.RandomState(seed)
    rows = []
    for _ in range(pictures):
        count = random.randint(0, 6)
        corner, sides = random.uniform(0, 0.6, (count, 2)), random.uniform(0.05, 0.4, (count, 2))
        boxes, labels = np.concatenate([corner, corner + sides], 1), random.randint(0, CLASSES - 1, count)
        moved = [
            (box, label, random.uniform(0, 0.12)) for box, label in zip(boxes, labels, strict=True) for _ in range(2)
        ]
        found = [box + random.normal(0, off, 4) * np.tile(box[2:] - box[:2], 2) for box, _, off in moved]
        classes = [label if random.rand() < 0.9 else random.randint(CLASSES) for _, label, _ in moved]
        scores = [np.clip(0.9 - 5 * off + random.normal(0, 0.15), 0.05, 1) for _, _, off in moved]
        for _ in range(random.randint(0, 4)):
            at = random.uniform(0, 0.6, 2)
            found.append(np.concatenate([at, at + random.uniform(0.05, 0.4, 2)]))
            classes.append(random.randint(CLASSES))
            scores.append(random.uniform(0.05, 0.7))
        order = np.argsort(-np.array(scores, np.float64), kind="stable")
        found = np.array(found).reshape(-1, 4)[order]
        rows.append((boxes, labels, found, np.array(classes, int)[order], np.array(scores)[order].astype(np.float32)))
    return rows


def exact(rows):
    """(AP, AP50) by pycocotools' rules, from a list of all scores."""
    each = []
    for of in range(CLASSES):
        there = sum(int((labels == of).sum()) for _, labels, *_ in rows)
        if not there:
            continue
        for threshold in average_precision.THRESHOLDS:
            scores, right = [], []
            for boxes, labels, found, classes, score in rows:
                taken = np.zeros(len(labels), bool)
                for box, sure in zip(found[classes == of], score[classes == of], strict=True):
                    overlaps = [
                        iou(box, o) if k == of and not t else -1 for o, k, t in zip(boxes, labels, taken, strict=True)
                    ]
                    best = int(np.argmax(overlaps)) if overlaps else -1
                    hit = bool(overlaps) and overlaps[best] >= threshold
                    if hit:
                        taken[best] = True
                    scores.append(sure)
                    right.append(hit)
            order = np.argsort(-np.array(scores), kind="mergesort")
            hits = np.cumsum(np.array(right, float)[order])
            precision = hits / np.arange(1, len(hits) + 1)
            precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
            at = np.searchsorted(hits / there, np.linspace(0, 1, 101), side="left")
            each.append(precision[np.minimum(at, len(hits))].mean())
    each = np.array(each).reshape(-1, 10)
    return each.mean(), each[:, 0].mean()


def iou(one, other):
    height, width = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = max(height, 0) * max(width, 0)
    return both / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both)


def ours(tf, rows, size=20):
    """The counts of batches of these pictures, filled up as a batch has them, and in a graph."""
    counts, total = tf.function(average_precision.counts), 0
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        boxes, labels = np.zeros((len(batch), 6, 4), np.float32), np.full((len(batch), 6), -1, np.int32)
        found, classes = np.zeros((len(batch), 20, 4), np.float32), np.full((len(batch), 20), -1, np.int32)
        scores = np.zeros((len(batch), 20), np.float32)
        for row, (of, label, where, said, score) in enumerate(batch):
            boxes[row, : len(of)], labels[row, : len(of)] = of, label
            found[row, : len(where)], classes[row, : len(where)], scores[row, : len(where)] = where, said, score
        answer = {"boxes": tf.constant(found), "classes": tf.constant(classes), "scores": tf.constant(scores)}
        total += counts(tf.constant(boxes), tf.constant(labels), answer, CLASSES).numpy().astype(float)
    return total


@pytest.mark.parametrize("seed", sorted(GOLDEN))
def test_it_is_what_pycocotools_answers(tf, seed):
    rows = drawn(seed, 60)
    assert exact(rows) == pytest.approx(GOLDEN[seed], abs=1e-6)
    found = average_precision.figures(ours(tf, rows), CLASSES)
    assert (found["ap"], found["ap50"]) == pytest.approx(GOLDEN[seed], abs=0.005)


def test_where_no_two_scores_share_a_bin_it_is_exact(tf):
    rows = drawn(5, 16)
    every = np.concatenate([row[4] for row in rows])
    places = np.argsort(np.argsort(every))
    assert len(every) < average_precision.BINS
    scores = np.split(
        ((places + 0.5) / average_precision.BINS).astype(np.float32), np.cumsum([len(r[4]) for r in rows])
    )
    rows = [(*row[:4], one) for row, one in zip(rows, scores, strict=False)]
    found = average_precision.figures(ours(tf, rows, size=7), CLASSES)
    assert (found["ap"], found["ap50"]) == pytest.approx(exact(rows), abs=1e-6)


def test_of_one_object_one_box_is_right_and_nothing_of_another_class(tf):
    object_ = np.array([[0.1, 0.1, 0.5, 0.5]])
    found = np.array([[0.1, 0.1, 0.5, 0.41], [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.5]], np.float32)
    rows = [(object_, np.array([1]), found, np.array([1, 1, 2]), np.array([0.9, 0.8, 0.7], np.float32))]
    answer = {"boxes": tf.constant(found[None]), "classes": tf.constant([[1, 1, 2]])}
    hits = average_precision.matched(tf.constant(object_[None], tf.float32), tf.constant([[1]]), answer).numpy()[0]
    assert hits[0].tolist() == [True] * 6 + [False] * 4  # 0.775
    assert hits[1].tolist() == [False] * 6 + [True] * 4  # where the first one didn't take it
    assert not hits[2].any()
    found = average_precision.figures(ours(tf, rows), CLASSES)
    assert found == pytest.approx({"ap": 0.8, "ap50": 1.0})  # of four thresholds every second box is right
    assert average_precision.figures(np.zeros(average_precision.size(CLASSES)), CLASSES) == {}
    missed = average_precision.figures(ours(tf, [(*rows[0][:2], found_nothing(), *nothing())]), CLASSES)
    assert missed == {"ap": 0.0, "ap50": 0.0}


def found_nothing():
    return np.zeros((0, 4))


def nothing():
    return np.zeros(0, int), np.zeros(0, np.float32)
