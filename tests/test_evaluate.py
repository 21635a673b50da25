"""Evaluation of a trained run: the same numbers again, other data, and what can't be evaluated."""

from __future__ import annotations

import json
import shutil

import pytest
from support import warm
from support.tiny_pictures import Classifier, Pictures

from tfscale.config.schema import CheckpointConfig, EvalConfig, OptimizerConfig, RunConfig, RunSection, TrainConfig
from tfscale.errors import CheckpointUnusable, DataMissing, SecurityRefused, UsageError
from tfscale.evaluate import evaluate_run

EVALUATE, EXPORT = ("-m", "tfscale.evaluate"), ("-m", "tfscale.export")
OTHERS = ("data=synthetic", "data.num_classes=10", "data.image_size=32", "data.channels=1", "data.test_examples=70")


def test_the_door_reproduces_the_last_evaluation(cli, trained_run):
    result = json.loads((trained_run / "result.json").read_text())
    ended = cli(f"run.dir={trained_run}", "checkpoint=last", program=EVALUATE)
    assert ended.code == 0, ended.err
    (file,) = trained_run.glob("evaluation-*.json")
    told = json.loads(file.read_text())
    file.unlink()
    assert (told["step"], told["examples"], told["split"]) == (6, 1000, "test")
    assert told["metrics"]["accuracy"] == result["metrics"]["accuracy"]
    assert told["metrics"]["loss"] == pytest.approx(result["metrics"]["loss"], rel=1e-6)
    assert "step 6 (last)" in ended.out
    assert f"written to {file}" in ended.out


def test_other_data_take_the_place_of_the_runs(cli, trained_run):
    ended = cli(f"run.dir={trained_run}", *OTHERS, program=EVALUATE)
    assert ended.code == 0, ended.err
    (file,) = trained_run.glob("evaluation-*.json")
    told = json.loads(file.read_text())
    file.unlink()
    assert told["data"]["class"] == "tfscale.data.synthetic.Synthetic"
    assert told["examples"] == 70
    more = cli(f"run.dir={trained_run}", *OTHERS, "data.num_classes=11", program=EVALUATE)
    assert more.code == 64
    assert "11 classes, and the model has 10 outputs" in more.err


@pytest.mark.cold
def test_export_is_a_door_that_leaves_checked_files(cli, trained_run):
    ended = cli(
        "export",
        f"run.dir={trained_run}",
        "checkpoint=6",
        "fresh=true",
        "export.examples=40",
        program=("-m", "tfscale"),
    )
    assert ended.code == 0, ended.err
    about = json.loads((trained_run / "export" / "export.json").read_text())
    assert (about["step"], about["samples"]) == (6, 40)
    assert about["preprocessing"]["equal"] == 40 and "equal to the bit to those of the evaluation" in ended.out
    assert "| accuracy | " in (trained_run / "export" / "README.md").read_text()
    assert about["identity"] == json.loads((trained_run / "result.json").read_text())["identity"]
    assert max(about["differences"].values()) <= 1e-5
    assert "model.keras" in ended.out
    assert "saved_model" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 64, "run.dir"),
        (("run.dir=absent",), 66, "no run folder"),
        (("chekpoint=last", "run.dir=absent"), 64, "did you mean 'checkpoint'"),
        (("run.dir={run}", "checkpoint=bets"), 64, "names no checkpoint"),
        (("run.dir={run}", "eval.splt=train"), 64, "did you mean 'eval.split'"),
        (("run.dir={run}", "eval.split=val"), 64, "eval.split"),
        (("run.dir={run}", "data=synthetc"), 64, "did you mean 'synthetic'"),
        (("run.dir={run}", "+recipe=resnet"), 64, "keeps its recipe"),
        (("run.dir={run}", "task._target_=os.system"), 77, "task._target_"),
    ],
)
def test_bad_input_is_found_without_tensorflow(cli, trained_run, arguments, code, said):
    program = warm.LIGHT + "from tfscale.evaluate import main; sys.exit(main())"
    ended = cli(*(a.format(run=trained_run) for a in arguments), program=("-c", program), deadline=30)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1


# -- in this process, on a tiny model


@pytest.fixture(scope="module")
def pictures_run(tf, tmp_path_factory):
    """A run of the tiny classifier, of 20 steps with checkpoints of several steps, the best not being the last.

    Those between are skipped while an older one is still being written: on a busy disk there are fewer.
    """
    from pathlib import Path

    from tfscale.run.api import fit

    config = RunConfig(
        task=Classifier(),
        data=Pictures(),
        train=TrainConfig(until="20st", global_batch=8, log_every="10st"),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.3, momentum=0.9),
        eval=EvalConfig(every="5st"),
        checkpoint=CheckpointConfig(every="5st", keep=3, metric="loss", mode="max"),  # the best comes early
        run=RunSection(dir=str(tmp_path_factory.mktemp("pictures") / "it")),
    )
    result = fit(config, environ={})
    folder = Path(result.run_dir)
    (folder / "config.yaml").write_text(YAML)
    return folder, result


YAML = """
task: {_target_: support.tiny_pictures.Classifier}
data: {_target_: support.tiny_pictures.Pictures}
train: {until: 20st, global_batch: 8}
extensions: {allow: [support.tiny_pictures.]}
"""
ALLOW = "extensions.allow=[support.tiny_pictures.]"


def test_best_last_and_any_step(pictures_run):
    folder, result = pictures_run
    last = evaluate_run(folder, [ALLOW], checkpoint="last")
    assert last["step"] == 20
    assert last["metrics"]["loss"] == pytest.approx(result.metrics["loss"], rel=1e-6)
    best = evaluate_run(folder, [ALLOW])
    assert best["step"] == result.best["step"] < 20
    assert best["metrics"]["loss"] == pytest.approx(result.best["value"], rel=1e-6)
    assert evaluate_run(folder, [ALLOW], checkpoint=5)["step"] == 5
    train = evaluate_run(folder, [ALLOW, "eval.split=train"])
    assert (train["examples"], train["split"]) == (40, "train")
    assert train["file"] != best["file"]
    with pytest.raises(CheckpointUnusable, match=r"no checkpoint of step 3 .*checkpoint=best"):
        evaluate_run(folder, [ALLOW], checkpoint=3)


def test_damaged_and_missing_checkpoints(pictures_run, tmp_path, messages):
    folder = tmp_path / "copy"
    shutil.copytree(pictures_run[0], folder)
    *_, before, newest = sorted((folder / "checkpoints").glob("step-*"))
    for file in newest.glob("state.data*"):
        file.write_bytes(b"torn")
    assert evaluate_run(folder, [ALLOW], checkpoint="last")["step"] == int(before.name[-9:])
    assert "damaged" in messages.text
    assert newest.is_dir()  # reading renames nothing
    with pytest.raises(CheckpointUnusable, match="does not match its checksum"):
        evaluate_run(folder, [ALLOW], checkpoint=20)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(CheckpointUnusable, match="the run has no checkpoint"):
        evaluate_run(folder, [ALLOW])


def test_a_run_folder_does_not_widen_the_allow_list_for_itself(pictures_run):
    with pytest.raises(SecurityRefused, match=r"allows support.tiny_pictures\. for itself"):
        evaluate_run(pictures_run[0])


def test_data_without_labels_or_without_the_split(pictures_run):
    with pytest.raises(UsageError, match="lack a field that Classifier takes: .*label"):
        evaluate_run(pictures_run[0], [ALLOW, "+data.labelled=false"])
    with pytest.raises(DataMissing, match="no test split"):
        evaluate_run(pictures_run[0], [ALLOW, "+data.test_examples=0"])


def test_another_model_is_refused(pictures_run):
    with pytest.raises(CheckpointUnusable, match="of another model"):
        evaluate_run(pictures_run[0], [ALLOW, "+task.width=8"])
