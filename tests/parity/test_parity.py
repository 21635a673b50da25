"""The parity check: real processes in every layout, wrong answers that it must find, and its verdicts by numbers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest
from support.dense_models import ALLOW, DENSE, Dense, environ

from tfscale.console.messages import received
from tfscale.errors import SecurityRefused, UsageError
from tfscale.parity.check import check_parity
from tfscale.parity.report import TOLERANCES, Report, Run, compare
from tfscale.parity.worker import LAYOUTS, _about

TRAIN = ("+train.until=40st", "train.global_batch=16", "optimizer.learning_rate=0.02")
SGD = (
    "optimizer.name=sgd",
    "optimizer.momentum=0.9",
    "optimizer.weight_decay=0.1",
    "optimizer.nesterov=true",
    "optimizer.schedule=cosine",
    "train.ema=0.5",
)
ADAM = ("optimizer.name=adam", "optimizer.weight_decay=0.1", "train.clip_norm=0.3", "train.accumulate=2")


def held(report: Report, *, precisions=("float64", "float32"), layouts=tuple(LAYOUTS)) -> Report:
    assert report.holds, report.table()
    assert {(row.layout, row.precision) for row in report.rows} == {(x, p) for x in ("1", *layouts) for p in precisions}
    assert all(max(row.traces.values()) == row.traces["train"] == 1 for row in report.rows)
    return report


# --- processes


def test_devices_workers_and_micro_batches_agree_with_one_replica():
    """The other layouts take another minute: below, among the slow ones, with other optimizers and models."""
    said: list[str] = []
    some = ("2", "2wx2", "accumulate")
    with received(said.append):
        report = check_parity([*DENSE, *TRAIN, *SGD], steps=20, layouts=some, environ=environ())
    held(report, layouts=some)
    assert all(row.tolerance for row in report.rows if not row.is_reference)
    assert len(said) == 3  # sets of processes; one replica with and without accumulation share theirs


def test_a_wrong_task_fails_with_a_table_and_a_file(cli, tmp_path):
    wrong = (*DENSE, *TRAIN, "task._target_=support.dense_models.Wrong", "parity.layouts=accumulate", "parity.steps=3")
    ended = cli(*wrong, "parity.json=found.json", program=("-m", "tfscale.parity"), environ=environ())
    assert ended.code == 1, ended.err
    assert "FAILS" in ended.out
    (line,) = ended.err.strip().splitlines()
    assert "accumulate x 2 in float64: loss differs by" in line
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["holds"], found["steps"]) == (False, 3)
    assert [row["verdict"] for row in found["rows"]] == ["reference", "FAILS", "reference", "FAILS"]
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_a_model_with_dropout_is_not_comparable(cli):
    overrides = (*DENSE, *TRAIN, "+task.dropout=0.2", "parity.layouts=accumulate")
    ended = cli(*overrides, program=("-m", "tfscale", "parity"), environ=environ())
    assert ended.code == 1
    (line,) = ended.err.strip().splitlines()
    assert "not comparable: dropout draw random numbers" in line
    assert line.endswith("| try task.dropout=0.0")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_adam_with_clipping_and_accumulation():
    some = ("4", "2w", "accumulate")
    held(check_parity([*DENSE, *TRAIN, *ADAM], layouts=some, environ=environ()), layouts=some)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_somebodys_keras_model():
    keras = (
        "task=keras",
        "task.model=support.dense_models.compiled",
        ALLOW,
        "+data._target_=support.dense_models.Table",
        "tracker=none",
    )
    some = ("2", "2w")
    train = [word for word in TRAIN if not word.startswith("optimizer.")]  # the model is compiled
    held(check_parity([*keras, *train], layouts=some, environ=environ()), layouts=some)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_digits_resnet_with_synchronised_batch_norm(data_dir):
    overrides = ["+recipe=resnet", "task.depth=8", "task.width=4", "tracker=none"]
    layouts = ("2wx2",)  # all five, at depth 20, take a quarter of an hour
    report = check_parity(overrides, 8, layouts=layouts, environ={**environ(), "TFSCALE_DATA_DIR": str(data_dir)})
    assert report.holds, report.table()
    judged = {(row.layout, row.precision) for row in report.rows if row.tolerance}
    assert judged == {(name, "float64") for name in layouts}
    assert any("task.sync_batch_norm=true" in note and "16 examples instead of all 64" in note for note in report.notes)


# --- what is refused before a process starts


@pytest.mark.parametrize(
    ("overrides", "options", "said"),
    [
        ((), {"layouts": ["3w"]}, "unknown layout '3w'"),
        ((), {"steps": 0}, "0 steps"),
        (("train.global_batch=18",), {}, "not divisible by 4.*train.global_batch=16 or 20"),
        (("train.global_batch=18",), {"layouts": ["2wx2"]}, "not divisible by 4"),
        (("train.global_batch=20", "train.accumulate=2"), {}, "not divisible by 8.*train.global_batch=16 or 24"),
        (("plan.strategy=mirrored",), {}, "remove plan.strategy"),
        (("plan.local_devices=2",), {}, "remove plan.local_devices"),
        (("optimizer.name=adm",), {}, "did you mean 'adam'"),
    ],
)
def test_what_cannot_be_run(overrides, options, said):
    with pytest.raises(UsageError, match=said):
        check_parity([*DENSE, *TRAIN, *overrides], environ=environ(), **options)


def test_tasks_are_held_against_the_allow_list():
    with pytest.raises(SecurityRefused):
        check_parity([*DENSE[1:], *TRAIN], environ=environ())


def test_the_door_refuses_in_one_line(cli, tmp_path):
    def line(*arguments):
        ended = cli(*arguments, program=("-m", "tfscale.parity"), environ=environ())
        return ended.code, ended.err.strip()

    code, said = line(*DENSE, *TRAIN, "parity.steps=many")
    assert (code, "'many' is not a whole number | parity.steps" in said) == (64, True)
    code, said = line(*DENSE, *TRAIN, "parity.json=absent/found.json")
    assert (code, "there is no folder absent" in said) == (73, True)
    assert list(tmp_path.iterdir()) == []


# --- which models can be compared


@dataclass
class Synchronisable(Dense):
    sync_batch_norm: bool = False


def about(*layers, task=None):
    import keras

    model = keras.Sequential([keras.Input((4,)), *layers])
    found = _about(model, task or Dense())
    return found["batch_norm"], found["problem"]


def test_models_that_normalise_or_draw_by_replica(tf, policy):
    from keras import layers

    assert about(layers.Dense(2)) == ([], [])
    names, problem = about(layers.BatchNormalization(name="bn"))
    assert names == ["bn"]
    assert "bn normalise by the mean and variance of their replica's part" in problem[0]
    assert about(layers.BatchNormalization(name="bn", synchronized=True)) == (["bn"], [])
    assert about(layers.BatchNormalization(trainable=False)) == ([], [])
    _, problem = about(*(layers.GaussianNoise(0.1, name=f"n{i}") for i in range(5)))
    assert problem == [
        "n0, n1, n2 and 2 more draw random numbers, and every replica draws its own",
        "build the model without these layers for the check",
    ]


# --- the verdict


@pytest.fixture
def run():
    random = np.random.RandomState(0)
    return Run(
        losses=random.uniform(1, 2, 5),
        norms=random.uniform(1, 2, 5),
        variables=[random.normal(size=(4, 3)), np.zeros(3), np.full(2, 1e-12)],
        names=["kernel", "bias", "idle"],
        traces={"train": 1, "eval": 0},
        batch_norm=[],
        start="a",
        problem=[],
    )


def row(reference, **changes):
    tolerance = changes.pop("tolerance", TOLERANCES["float64"])
    other = dataclasses.replace(reference, **changes)
    return compare(reference, other, layout="2", title="2 replicas", precision="float64", tolerance=tolerance)


def test_equal_numbers_hold(run):
    same = row(run)
    assert (same.loss, same.norm, same.variables, same.verdict) == (0, 0, 0, "holds")
    report = Report("it", 5, 16, rows=(same,))
    assert (report.holds, report.verdict) == (True, "all 1 judged rows hold")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (lambda run: {"losses": run.losses * (1 + 2e-10)}, "loss differs by 2.0e-10, more than 1e-10"),
        (lambda run: {"losses": run.losses * np.nan}, "loss differs by"),
        (lambda run: {"norms": run.norms * np.inf}, "norm differs by"),
        (
            lambda run: {"variables": [run.variables[0] * (1 + 2e-8), *run.variables[1:]]},
            "variables differs by 2.0e-08 in kernel, more than 1e-08",
        ),
        (
            lambda run: {"variables": [run.variables[0] * np.nan, *run.variables[1:]]},
            "variables differs by inf in kernel, more than 1e-08",
        ),
        (lambda run: {"traces": {"train": 2, "eval": 0}}, "train was traced 2 times"),
        (lambda run: {"start": "b"}, "the first weights differ"),
    ],
)
def test_what_fails(run, changes, said):
    one = row(run, **changes(run))
    assert one.verdict == "FAILS"
    assert one.failures[0].startswith(said), one.failures
    report = Report("it", 5, 16, rows=(one,))
    assert not report.holds
    shown = report.table().splitlines()
    assert any("FAILS" in line for line in shown) and max(map(len, shown)) <= 80


def test_a_retrace_fails_a_row_that_is_only_shown(run):
    assert row(run, tolerance=None, traces={"train": 2}).verdict == "FAILS"
    assert row(run, tolerance=None, losses=run.losses * 2).verdict == "shown"


def test_variables_that_are_nothing_but_rounding_hold(run):
    """A bias in front of BatchNorm has no gradient, and whatever it holds is noise."""
    assert row(run, variables=[*run.variables[:2], -run.variables[2]]).verdict == "FAILS"
    assert row(run, variables=[*run.variables[:2], run.variables[2] + 1e-15]).verdict == "holds"


def test_equal_infinities_are_equal(run):
    """The norm of an overflow in float16."""
    infinite = dataclasses.replace(run, norms=np.full(5, np.inf))
    assert row(infinite).norm == 0


def test_nothing_judged_is_no_success(run):
    report = Report("it", 5, 16, rows=(row(run, tolerance=None),))
    assert (report.holds, report.verdict) == (False, "nothing could be judged")
