"""The launcher as people call it, from Python and by its cli. test_evaluator.py has a real training."""

from __future__ import annotations

import json
import os
import sys

import pytest
from support.stand_ins import HEAD, of

from tfscale import errors
from tfscale.launch.workers import launch_workers


@pytest.fixture
def environ(tmp_path):
    return {**os.environ, "PLACE": str(tmp_path)}


STAND_IN = (
    HEAD
    + """
if me == "worker:0":
    folder = pathlib.Path(next(a for a in sys.argv if a.startswith("run.dir=")).partition("=")[2])
    folder.mkdir()
    folder.joinpath("result.json").write_text(json.dumps({"status": "complete", "run_dir": str(folder), "step": 6}))
print(*sys.argv[1:])
"""
)
FAILS = (
    HEAD
    + """
if me == "worker:1":
    print("tfscale: error[E-0065] a row | is torn | rows.csv:7 | -", file=sys.stderr)
sys.exit(138 if me == "worker:0" else 65)
"""
)


def test_the_function_returns_the_result_in_the_run_folder(environ, tmp_path):
    lines: list[str] = []
    overrides = ["+recipe=resnet", "tracker=none", f"run.dir={tmp_path / 'it'}"]
    with pytest.warns(DeprecationWarning, match="write="):
        result = launch_workers(
            overrides, devices_per_worker=2, environ=environ, say=lines.append, program=[sys.executable, "-c", STAND_IN]
        )
    assert (result.status, result.step, result.run_dir) == ("complete", 6, str(tmp_path / "it"))
    assert of("worker:1", lines) == [" ".join([*overrides, "plan.local_devices=2"])]


SPEAKS_JSON = (
    HEAD
    + """
import json
print("of TensorFlow")
if me == "worker:1":
    told = {"level": "ERROR", "process": me, "message": "a row", "where": "rows.csv:7", "fix": "", "exit_code": 65}
    print(json.dumps(told), file=sys.stderr)
sys.exit(138 if me == "worker:0" else 65)
"""
)


def test_a_collector_gets_json_lines_alone_and_the_error_is_known(environ, tmp_path):
    lines: list[str] = []
    overrides = ["+recipe=resnet", "tracker=none", f"run.dir={tmp_path / 'it'}", "log.format=json"]
    with pytest.raises(errors.DataCorrupt, match="worker:1: a row") as error:
        launch_workers(overrides, environ=environ, write=lines.append, program=[sys.executable, "-c", SPEAKS_JSON])
    assert error.value.where == "rows.csv:7" and error.value.fix == ""
    told = [json.loads(line) for line in lines]
    assert {one["process"] for one in told} == {"worker:0", "worker:1", "launch"}
    assert sum(one["message"] == "of TensorFlow" for one in told) == 2


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (["plan.strategy=multi_worker"], ["plan.local_devices=3"]),
        (["plan.local_devices=1"], ["plan.strategy=parameter_server"]),
    ],
)
def test_what_people_gave_is_not_overridden(environ, tmp_path, given, added):
    lines: list[str] = []
    overrides = ["+recipe=resnet", "tracker=none", f"run.dir={tmp_path / 'it'}", *given]
    code = STAND_IN.replace('"worker:0"', '"chief:0"')
    launch_workers(
        overrides, 1, ps=1, devices_per_worker=3, environ=environ, write=lines.append, program=[sys.executable, "-c", code]
    )  # fmt: skip
    assert of("worker:0", lines) == [" ".join([*overrides, *added])]


def test_the_function_raises_the_error_that_belongs_to_the_code(environ, tmp_path):
    overrides = ["+recipe=resnet", f"run.dir={tmp_path / 'it'}"]

    lines: list[str] = []

    def error(code: str, *more: str) -> errors.TfscaleError:
        with pytest.raises(errors.TfscaleError) as raised:
            launch_workers(
                [*overrides, *more], environ=environ, write=lines.append, program=[sys.executable, "-c", HEAD + code]
            )
        return raised.value

    corrupt = error(FAILS, "run.quiet=true")
    assert not of("launch", lines) and len(of("worker:1", lines)) == 1  # the error's line is no matter of quiet
    assert isinstance(corrupt, errors.DataCorrupt)
    assert corrupt.line() == "tfscale: error[E-0065] worker:1: a row | is torn | rows.csv:7 | -"
    killed = error("if me == 'worker:1': os.kill(os.getpid(), 9)")
    assert isinstance(killed, errors.ClusterFault)
    assert killed.exit_code == 137
    assert "worker:1 ended with 137" in killed.line()
    assert isinstance(error("sys.exit(3 * (me == 'worker:0'))"), errors.InternalError)
    assert isinstance(error("pass"), errors.InternalError)  # nobody wrote a result


NO_TENSORFLOW = (
    "import sys; sys.modules['tensorflow'] = None; from tfscale.launch.__main__ import main; sys.exit(main())"
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "2", "--", "+recipe=resnt"), "did you mean 'resnet'"),
        (("--workers", "2", "--", "+recipe=resnet", "train.untl=5ep"), "did you mean 'train.until'"),
        (("--workers", "2", "--", "+recipe=resnet", "train.until=5weeks"), "train.until"),
        (("--workers", "0", "--", "+recipe=resnet"), "--workers"),
        (("--workers", "two", "--", "+recipe=resnet"), "--workers"),
        (("--wrkers", "2", "--", "+recipe=resnet"), "--wrkers"),
        (("--devices-per-worker", "0", "+recipe=resnet"), "--devices-per-worker"),
        (("--max-restarts", "-1", "+recipe=resnet"), "--max-restarts"),
        ((), "no recipe"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(cli, tmp_path, arguments, said):
    ended = cli(*arguments, program=("-c", NO_TENSORFLOW), deadline=20)
    assert (ended.code, ended.out) == (64, ""), ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert ended.err.startswith("tfscale: error[E-0064]")
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


def test_help_is_the_doors_own(cli):
    ended = cli("launch", "--help", program=("-m", "tfscale"))
    assert ended.code == 0
    assert "--max-restarts" in ended.out


def test_the_door_starts_the_program_train(cli):
    ended = cli("--", "+recipe=resnet", "plan.dry_run=true", "tracker=none", program=("-m", "tfscale.launch"))
    assert ended.code == 0, ended.err
    assert any("multi_worker" in line for line in of("worker:0", ended.out.splitlines()))
    assert any("multi_worker" in line for line in of("worker:1", ended.out.splitlines()))
