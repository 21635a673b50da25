"""Prediction files: their rows, both formats, and a kill in the middle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support import warm
from support.tiny_pictures import Classifier, Pictures, encoded, pictures
from support.tiny_run import Classify, Vectors

from tfscale.config.schema import EvalConfig, OptimizerConfig, RunConfig, RunSection, TrainConfig
from tfscale.console.messages import received
from tfscale.errors import DataMissing, IOFailure, OutputError, UsageError
from tfscale.evaluate import evaluate_run

PREDICT = ("-m", "tfscale.predict")
HARDWARE = Path(__file__).parent / "golden" / "hardware"


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def parts_in(folder) -> list[str]:
    return sorted(p.name[: len("part-000000")] for p in folder.glob("part-*"))


def test_killed_it_goes_on_and_the_file_is_the_same(cli, trained_run, tmp_path):
    command = (f"run.dir={trained_run}", "output=killed.jsonl", "predict.part=200")
    killed = cli(*command, program=PREDICT, environ={"TFSCALE_FAULT": "predict.part:step=2:kill"})
    assert killed.code == -signal.SIGKILL
    assert parts_in(tmp_path / "killed.jsonl.parts") == ["part-000000", "part-000001"]
    assert not (tmp_path / "killed.jsonl").exists()
    again = cli(*command, program=PREDICT)
    assert again.code == 0, again.err
    assert "2 of 4 parts are there already: going on at row 512" in again.out  # 200 rows are four steps of 64
    whole = cli(f"run.dir={trained_run}", "output=whole.jsonl", "predict.part=200", program=PREDICT, cold=True)
    assert whole.code == 0, whole.err
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "killed.jsonl.parts").exists()

    told = rows(tmp_path / "whole.jsonl")
    assert [row["name"] for row in told] == [str(i) for i in range(1000)]
    right = np.mean([row["class"] == row["label"] for row in told])
    assert right == json.loads((trained_run / "result.json").read_text())["metrics"]["accuracy"]
    assert all(int(np.argmax(row["probabilities"])) == row["class"] for row in told)


def test_several_workers_of_which_one_is_killed_write_the_same_file(cli, trained_run, tmp_path):
    command = (f"run.dir={trained_run}", "predict.part=200", "split=test")
    killed = {"TFSCALE_FAULT": "predict.part:step=3:kill"}
    ended = cli(*command, "output=n.jsonl", "predict.workers=2", program=PREDICT, environ=killed)
    assert ended.code == 137 and "worker:1 ended with 137" in ended.err, ended.out + ended.err
    assert "goes on with the parts that are there" in ended.err
    assert "part-000002" in parts_in(tmp_path / "n.jsonl.parts") and not (tmp_path / "n.jsonl").exists()
    again = cli(*command, "output=n.jsonl", "predict.workers=2", program=PREDICT)
    assert again.code == 0, again.out + again.err
    assert (
        "worker:1 | " in again.out and "worker 1 of 2: 1 of 2 parts are there already: going on at row 768" in again.out
    )
    assert again.out.count("1000 predictions of step 6: n.jsonl") == 1
    alone = cli(*command, "output=one.jsonl", program=PREDICT)
    assert alone.code == 0, alone.err
    assert (tmp_path / "n.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.glob("*.jsonl*")) == ["n.jsonl", "one.jsonl"]


def test_a_number_of_workers_that_can_not_be(trained_run, tmp_path, monkeypatch, capsys):
    from tfscale.hardware import Hardware
    from tfscale.launch import predict_workers
    from tfscale.predict import main

    command = [f"run.dir={trained_run}", f"output={tmp_path / 'p.jsonl'}"]
    assert main([*command, "predict.workers=0"]) == 64 and "predict.workers" in capsys.readouterr().err
    one = next(path for path in HARDWARE.glob("*.json") if len(Hardware.load(path).gpus) == 1)
    with monkeypatch.context() as patched:
        patched.setattr(predict_workers, "probe", lambda **_: Hardware.load(one))
        assert main([*command, "predict.workers=2"]) == 64
        assert "this machine has 1 GPU" in capsys.readouterr().err
    monkeypatch.setenv("TFSCALE_CLUSTER", "worker=a-{0..1}:2222")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert main([*command, "predict.workers=3"]) == 64
    assert "worker 1 of 2 that TFSCALE_CLUSTER tells of" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_pictures_of_a_folder_need_no_labels(cli, trained_run, tmp_path):
    folder = tmp_path / "some pictures"
    (folder / "deeper").mkdir(parents=True)
    pixels, _ = pictures(3, 4)
    for name, one, kind in (
        ("b.png", pixels[0], "PNG"),
        ("a.jpg", pixels[1], "JPEG"),
        ("deeper/c.png", pixels[2], "PNG"),
    ):
        (folder / name).write_bytes(encoded(one, kind))
    ended = cli(f"run.dir={trained_run}", f"input={folder}", "output=p.parquet", program=PREDICT)
    assert ended.code == 0, ended.err
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert sorted(table["name"]) == ["a.jpg", "b.png", "deeper/c.png"]
    assert "label" not in table
    assert {len(p) for p in table["probabilities"]} == {10}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run.dir={run}",), 64, "output"),
        (("run.dir={run}", "output=p.csv"), 64, ".jsonl or .parquet"),
        (("run.dir={run}", "output=/proc/nothing/p.jsonl"), 73, "output"),
        (("run.dir={run}", "output=p.jsonl", "input=absent"), 66, "nothing at absent"),
        (("run.dir=absent", "output=p.jsonl"), 66, "no run folder"),
        (("run.dir={run}", "output=p.jsonl", "inptu=x"), 64, "did you mean 'input'"),
        (("run.dir={run}", "output=p.jsonl", "split=val"), 64, "split"),
        (("run.dir={run}", "output=p.jsonl", "predict.part=0"), 64, "predict.part"),
        (("run.dir=absent", "output=p.jsonl", "predict.workers=2"), 66, "no run folder"),
    ],
)
def test_bad_input_is_found_without_tensorflow(cli, trained_run, arguments, code, said):
    program = warm.LIGHT + "from tfscale.predict import main; sys.exit(main())"
    ended = cli(*(a.format(run=trained_run) for a in arguments), program=("-c", program), deadline=30)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1


# -- in this process, on a tiny model

ALLOW = "extensions.allow=[support.tiny_pictures.,support.tiny_run.]"
YAML = """
task: {{_target_: {task}}}
data: {{_target_: {data}}}
train: {{until: 20st, global_batch: 8}}
extensions: {{allow: [support.tiny_pictures., support.tiny_run.]}}
"""


@pytest.fixture(scope="module")
def small_run(tf, tmp_path_factory):
    from tfscale.run.api import fit

    def small_run(task, data):
        config = RunConfig(
            task=task,
            data=data,
            train=TrainConfig(until="20st", global_batch=8, log_every="10st"),
            optimizer=OptimizerConfig(name="sgd", learning_rate=0.3, momentum=0.9),
            eval=EvalConfig(every="10st"),
            run=RunSection(dir=str(tmp_path_factory.mktemp("small") / "it")),
        )
        folder = Path(fit(config, environ={}).run_dir)
        names = {kind: f"{type(v).__module__}.{type(v).__qualname__}" for kind, v in (("task", task), ("data", data))}
        (folder / "config.yaml").write_text(YAML.format(**names))
        return folder

    return small_run


@pytest.fixture(scope="module")
def classifier(small_run):
    return small_run(Classifier(), Pictures())


def predict(folder, output, *overrides, split="test", unlabelled=None, data=None, **kind) -> list[str]:
    from tfscale.trained.predictions import check_output, predict_file
    from tfscale.trained.restored_run import RestoredRun

    said: list[str] = []
    check_output(output)
    opened = RestoredRun.open(folder, [ALLOW, *overrides], unlabelled=unlabelled, data=data)
    with opened as run, received(said.append):
        predict_file(run, split, output, **{"now": lambda: 0.0, **kind})  # no line of how far it is, however slow
    return said


def test_both_formats_hold_the_same_and_agree_with_evaluation(classifier, tmp_path):
    import pyarrow.parquet

    predict(classifier, tmp_path / "p.jsonl", "+data.named=true", part_rows=8)
    predict(classifier, tmp_path / "p.parquet", "+data.named=true", part_rows=8)
    lines = rows(tmp_path / "p.jsonl")
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    assert table.to_pylist() == lines
    assert table.num_rows == 23
    predict(classifier, f"{tmp_path}/folder.parquet/", "+data.named=true", part_rows=8)
    assert len(list((tmp_path / "folder.parquet").glob("part-*"))) == 3
    assert pyarrow.parquet.read_table(tmp_path / "folder.parquet").to_pylist() == lines
    assert list(lines[0]) == ["name", "label", "label_name", "class", "class_name", "probabilities"]
    assert [row["name"] for row in lines] == [f"test/{i}.png" for i in range(23)]
    assert [row["label"] for row in lines] == pictures(23, 2)[1].tolist()
    assert all(row["label_name"] == ("dark", "grey", "bright")[row["label"]] for row in lines)
    assert all(row["class_name"] == ("dark", "grey", "bright")[row["class"]] for row in lines)
    accuracy = evaluate_run(classifier, [ALLOW])["metrics"]["accuracy"]
    assert np.mean([row["class"] == row["label"] for row in lines]) == pytest.approx(accuracy, abs=1e-7)


def test_parts_of_any_size_give_the_same_rows(classifier, tmp_path):
    for part in (1, 8, 16, 17, 23, 1000):
        predict(classifier, tmp_path / f"{part}.jsonl", part_rows=part)
    texts = {(tmp_path / f"{part}.jsonl").read_text() for part in (1, 8, 16, 17, 23, 1000)}
    assert len(texts) == 1


@pytest.fixture
def broken_at(monkeypatch):
    from tfscale.process import fault_points as faults

    def broken_at(number):
        def point(name, *, step=None):
            if name == "predict.part" and step == number:
                raise RuntimeError("broken")

        monkeypatch.setattr(faults, "point", point)

    return broken_at


def test_pictures_that_were_replaced_under_their_names_are_another_input(classifier, tmp_path, monkeypatch, broken_at):
    monkeypatch.chdir(tmp_path)  # where data/ is
    folder, output = tmp_path / "photos", tmp_path / "p.jsonl"
    folder.mkdir()
    for number, one in enumerate(pictures(23, 4)[0]):
        (folder / f"{number:02d}.png").write_bytes(encoded(one, "PNG"))
    broken_at(2)
    with pytest.raises(RuntimeError, match="broken"):
        predict(classifier, output, part_rows=8, unlabelled=str(folder))
    (folder / "00.png").write_bytes((folder / "22.png").read_bytes())
    broken_at(None)
    said = predict(classifier, output, part_rows=8, unlabelled=str(folder))
    assert [line for line in said if "starting afresh" in line]
    told = rows(output)
    assert told[0]["probabilities"] == pytest.approx(told[22]["probabilities"], abs=1e-6)


def test_data_that_say_that_they_are_others_are_another_input(classifier, tmp_path, broken_at):
    class Versioned(Pictures):
        content = "as it was"

        def identity(self):
            return {**super().identity(), "content": self.content}

    data = Versioned()
    broken_at(2)
    with pytest.raises(RuntimeError, match="broken"):
        predict(classifier, tmp_path / "p.jsonl", part_rows=8, data=data)
    broken_at(None)
    data.content = "replaced"
    (said,) = predict(classifier, tmp_path / "p.jsonl", part_rows=8, data=data)
    assert "starting afresh" in said


def test_why_it_cannot_be_written_or_read_is_told(classifier, tmp_path, monkeypatch):
    from tfscale.process import fault_points as faults
    from tfscale.trained.restored_run import RestoredRun

    output = tmp_path / "p.jsonl"
    monkeypatch.setattr(faults, "point", lambda *_, **__: shutil.rmtree(f"{output}.parts"))
    with pytest.raises(IOFailure, match="No such file") as caught:
        predict(classifier, output, part_rows=8)
    assert "somebody has removed it" in caught.value.fix and "p.jsonl.parts" in caught.value.where
    with RestoredRun.open(classifier, [ALLOW]) as run:
        with pytest.raises(DataMissing, match="can't be read: No such file") as missing, run.data_errors_named():
            (tmp_path / "absent.png").read_bytes()
        assert missing.value.where == str(tmp_path / "absent.png")


def test_a_full_disk_leaves_nothing_that_is_taken_for_whole(classifier, tmp_path, monkeypatch):
    from tfscale.process import fault_points as faults

    disk, output = tmp_path / "disk", tmp_path / "disk" / "p.jsonl"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")

    def fill_up(*_, **__):
        with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)

    def full(**kind):
        with pytest.raises(IOFailure, match="No space left") as caught:
            predict(classifier, output, part_rows=8, **kind)
        assert caught.value.fix == "free space, then run the same command again"
        (disk / "filler").unlink()

    try:
        fill_up()
        full()  # nothing can be locked
        with monkeypatch.context() as patched:
            for point in ("predict.part", "predict.join"):
                patched.setattr(faults, "point", lambda name, point=point, **_: fill_up() if name == point else None)
                full()
        assert not output.exists() and not list(disk.rglob("*.tmp")) and not list(disk.rglob(".lock.*-*"))
        assert predict(classifier, output, part_rows=8) == ["3 of 3 parts are there already: going on at row 23"]
        assert len(rows(output)) == 23 and list(disk.iterdir()) == [output]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_parts_of_another_checkpoint_or_input_are_not_taken(classifier, tmp_path, broken_at):
    output = tmp_path / "p.jsonl"
    output.write_text("older\n")
    broken_at(2)
    with pytest.raises(RuntimeError, match="broken"):
        predict(classifier, output, part_rows=8)
    assert output.read_text() == "older\n"  # replaced only by a whole one
    broken_at(None)
    assert predict(classifier, output, part_rows=8) == ["2 of 3 parts are there already: going on at row 16"]
    good = output.read_text()
    for change in ({"split": "train"}, {"part_rows": 16}):
        broken_at(1)
        with pytest.raises(RuntimeError, match="broken"):
            predict(classifier, output, part_rows=8)
        broken_at(None)
        (said,) = predict(classifier, output, **{"part_rows": 8, **change})
        assert "starting afresh" in said
    broken_at(1)
    with pytest.raises(RuntimeError, match="broken"):
        predict(classifier, output, part_rows=8)
    broken_at(None)
    (said,) = predict(classifier, output, "+data.test_examples=22", part_rows=8)
    assert "starting afresh" in said
    assert len(rows(output)) == 22
    predict(classifier, output, part_rows=8)
    assert output.read_text() == good


def test_finished_parts_are_joined_again_after_a_kill_at_the_end(classifier, tmp_path, monkeypatch):
    output = tmp_path / "p.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        predict(classifier, output, part_rows=8)
    before = output.read_text()
    output.unlink()
    assert predict(classifier, output, part_rows=8) == ["3 of 3 parts are there already: going on at row 23"]
    assert output.read_text() == before


def test_without_labels_there_are_no_label_columns(classifier, tmp_path):
    (classifier / "classes.json").write_text('["dark", "grey", "bright"]')
    predict(classifier, tmp_path / "p.jsonl", "+data.labelled=false")
    assert list(rows(tmp_path / "p.jsonl")[0]) == ["name", "class", "class_name", "probabilities"]


def test_a_task_that_does_not_predict_says_so(small_run, tmp_path):
    folder = small_run(Classify(), Vectors())
    with pytest.raises(UsageError, match="Classify doesn't say what it predicts"):
        predict(folder, tmp_path / "p.jsonl")


def test_outputs_that_can_not_be_written(tmp_path, monkeypatch):
    import sys

    from tfscale.trained.predictions import check_output

    (tmp_path / "f.jsonl").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "f.jsonl")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"tfscale\[tables\]"):
        check_output(tmp_path / "p.parquet")


def test_another_process_that_writes_the_same_output_is_refused(classifier, tmp_path):
    from tfscale.run_dir.folder import RunDir

    folder = tmp_path / "p.jsonl.parts" / "worker-0-of-1"
    folder.mkdir(parents=True)
    with RunDir(folder).claimed(), pytest.raises(OutputError, match="choose another output"):
        predict(classifier, tmp_path / "p.jsonl")


def test_columns_of_any_rank_and_text(tmp_path):
    import pyarrow.parquet

    from tfscale.data.table_files import table_kind

    columns = {
        "name": ["a", "b"],
        "box": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
        "text": np.array([b"x", "ü".encode()], object),
    }
    for file in ("t.jsonl", "t.parquet"):
        kind = table_kind(file)
        kind.write(columns, tmp_path / f"part-{file}")
        kind.join([tmp_path / f"part-{file}"] * 2, tmp_path / file)
    lines = rows(tmp_path / "t.jsonl")
    assert lines[1] == {"name": "b", "box": [[6.0, 7.0], [8.0, 9.0], [10.0, 11.0]], "text": "ü"}
    assert pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist() == lines
    assert len(lines) == 4
