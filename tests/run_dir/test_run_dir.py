from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfscale.config.duration import Duration
from tfscale.errors import CheckpointUnusable, OutputError, SecurityRefused, UsageError
from tfscale.run_dir.choice import candidates
from tfscale.run_dir.experiment import Experiment, digest
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.manifest import Damaged, name_of


def locate(tmp_path, **change):
    where = {"root": str(tmp_path), "recipe": "resnet", "name": None, "directory": None, "names": (digest({"a": 1}),)}
    return RunDir.locate(**{**where, **change})


def test_name_is_the_hash_of_the_experiment(tmp_path):
    assert locate(tmp_path).path == tmp_path / "resnet" / digest({"a": 1})
    assert locate(tmp_path, names=(digest({"a": 2}),)).path != locate(tmp_path).path
    assert locate(tmp_path, name="mine").path == tmp_path / "resnet" / "mine"
    assert locate(tmp_path, directory="/x/y").path.as_posix() == "/x/y"


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "."])
def test_names_that_leave_the_root(tmp_path, name):
    with pytest.raises(SecurityRefused):
        locate(tmp_path, name=name)


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "x" * 5000, "x" * 256, "\u00e4" * 128])
def test_names_that_no_file_system_takes(tmp_path, name):
    with pytest.raises(UsageError, match=r"run\.name"):
        locate(tmp_path, name=name)
    with pytest.raises(UsageError, match=r"run\.root"):
        locate(tmp_path, root=name)
    with pytest.raises(UsageError, match=r"run\.dir"):
        locate(tmp_path, directory=name)


def test_check_writable_leaves_nothing(tmp_path):
    run = RunDir(tmp_path / "a" / "b")
    run.check_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        RunDir(tmp_path / "file" / "run").check_writable()


def test_torn_json_is_no_json(tmp_path):
    run = RunDir(tmp_path)
    (tmp_path / "result.json").write_text('{"status": "comp')
    assert run.read_json("result.json") is None
    mine, other = Experiment({"a": 1}), Experiment({"a": 2})
    assert run.finished(until=Duration.parse("1ep"), experiment=mine) is None
    run.write_json("result.json", {"status": "complete", "step": 10, "steps_per_epoch": 9.5, **mine.record()})
    assert run.finished(until=Duration.parse("1ep"), experiment=mine)
    assert run.finished(until=Duration.parse("11st"), experiment=mine) is None
    with pytest.raises(CheckpointUnusable, match="a was 1, is 2"):
        run.finished(until=Duration.parse("1ep"), experiment=other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.json"]


def test_second_run_is_refused_and_a_dead_holder_frees_it(tmp_path):
    run = RunDir(tmp_path)
    with run.claimed():
        code = "import sys; from tfscale.run_dir.folder import RunDir\nwith RunDir(sys.argv[1]).claimed(): pass"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert other.returncode == 1
        assert f"process {os.getpid()}" in other.stderr
    with run.claimed():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_volume_that_may_not_be_written_is_named_with_the_user(tmp_path):
    """As a claim that belongs to root, for a pod that runs as user 65532."""
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest-" in str(folder):  # also of a process of pytest-xdist
            folder.chmod(0o755)
    code = "import os, sys; from tfscale.run_dir.folder import RunDir\nos.setgroups([]); os.setgid(65532); os.setuid(65532)\n"
    code += "RunDir(sys.argv[1] + '/resnet/it').check_writable()"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    told = ended.stderr.splitlines()[-1]
    assert f"this process is user 65532, and {tmp_path} belongs to user 0" in told and "on the volume at /" in told
    assert "let user 65532 write there" in told


@pytest.mark.parametrize(
    ("which", "evaluated", "chosen"),
    [
        ("last", 10, [30, 20, 10]),
        ("best", None, [20]),  # what the newest one that can be read remembers
        ("best", 10, [10]),  # an evaluator has looked at more than the training
        ("best", 11, [20]),  # which is gone
        (10, 20, [10]),
    ],
)
def test_which_checkpoint_is_meant(which, evaluated, chosen):
    there = [name_of(step) for step in (30, 20, 10)]

    def best_in(name: str) -> str:
        if name == there[0]:
            raise Damaged("torn")
        return there[1]

    found = candidates(which, there, best_in, where="run", evaluated_best=evaluated)
    assert found == [name_of(step) for step in chosen]


def test_a_checkpoint_that_is_not_there_is_refused_and_a_best_one_that_is_gone_said(messages):
    there = [name_of(step) for step in (30, 20)]
    with pytest.raises(CheckpointUnusable, match="no checkpoint of step 10") as caught:
        candidates(10, there, lambda name: "", where="run")
    assert "30, 20" in caught.value.fix
    assert candidates("best", there, lambda name: name_of(10), where="run") == there
    assert "of step 10, was never written or is gone" in messages.text
    assert candidates("best", there, lambda name: "", where="run") == there
    assert messages.text.count("is gone") == 1
    assert candidates(10, [], lambda name: "", where="run") == []
