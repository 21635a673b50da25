"""`tfscale runs` on real run folders: complete ones, one that is training in another process, one that was killed, and
what is damaged, foreign or made to hurt."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import warm
from support.dense_models import environ
from support.fault_rows import tiny_job

from tfscale.__main__ import main
from tfscale.errors import OutputError
from tfscale.run_dir.folder import RunDir
from tfscale.run_folders import clean_runs
from tfscale.run_folders.found_runs import find_runs
from tfscale.run_folders.run_record import STATES, read_record

ENDLESS = ("train.until=100000000st", "eval.every=100000000st", "checkpoint.every=1s", "train.log_every=1s")


def started(root: Path, name: str, *more: str, steps: int = 20):
    job = tiny_job("run.recipe=dense", *more, steps=steps, run_dir=root / "dense" / name)
    return warm.Popen(
        [sys.executable, "-m", "tfscale.train", *job],
        cwd=root.parent,
        env=environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def until_saved(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*/manifest.json")):
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """dense/{slow,quick}: complete; dense/now: training in another process; dense/killed."""
    root = tmp_path_factory.mktemp("many") / "runs"
    root.mkdir()
    endless = []
    try:
        for name, more in (("quick", ()), ("slow", ("optimizer.learning_rate=0.01",))):
            assert started(root, name, *more).wait(120) == 0
        endless += [started(root, name, *ENDLESS) for name in ("killed", "now")]
        for name in ("killed", "now"):
            until_saved(root / "dense" / name)
        endless[0].kill()
        endless[0].wait()
        yield root
    finally:
        for process in endless:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """Those that nobody trains, to be spoilt, beside what is no run."""
    target = tmp_path / "runs"
    for name in ("quick", "slow", "killed"):
        shutil.copytree(root / "dense" / name, target / "dense" / name)
    (target / "notes" / "deep").mkdir(parents=True)
    (target / "notes" / "deep" / "todo.md").write_text("mine")
    return target


def listed(capsys, *words: str) -> dict[str, dict]:
    assert main(["runs", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    return {run["name"]: run for run in told["runs"]} | {"others": told["others"]}


def test_each_run_says_how_far_it_is(root, capsys):
    runs = listed(capsys, f"run.root={root}")
    assert {name: run["state"] for name, run in runs.items() if name != "others"} == {
        "dense/quick": "complete",
        "dense/slow": "complete",
        "dense/now": "training",
        "dense/killed": "stopped",
    }
    quick, killed = runs["dense/quick"], runs["dense/killed"]
    assert (quick["recipe"], quick["step"], quick["total_steps"]) == ("dense", 20, 20)
    result = json.loads((root / "dense/quick/result.json").read_text())
    assert quick["best"]["value"] == result["best"]["value"] and quick["best"]["step"] == 20
    assert killed["detail"].startswith("killed; goes on at step ") and killed["total_steps"] == 100000000
    disk = subprocess.run(["du", "-s", "-B1", root / "dense/quick"], capture_output=True, text=True, check=True)
    own = (root / "dense/quick").stat().st_blocks * 512
    assert quick["bytes"] == int(disk.stdout.split()[0]) - own
    assert quick["wrote"] == (root / "dense/quick/attempts.jsonl").stat().st_mtime
    assert runs.pop("others") == {}
    wrote = [run["wrote"] for run in runs.values()]
    assert wrote == sorted(wrote, reverse=True) and len(set(wrote)) == 4


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits(root, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["runs", f"run.root={root}"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    for word in ("dense/quick", "dense/now", "training", "complete", "stopped", "20/20", "accuracy", "KiB"):
        assert word in shown, shown
    assert "4 runs (2 complete, 1 stopped, 1 training)" in " ".join(shown.split())


def test_a_hundred_runs_take_no_tensorflow(root, cli, tmp_path):
    for number in range(100):
        shutil.copytree(root / "dense" / "quick", tmp_path / "runs" / "dense" / f"r{number}")
    ended = cli(
        "runs", program=("-c", f"{warm.LIGHT}from tfscale.__main__ import main; sys.exit(main())"), cwd=tmp_path
    )
    assert ended.code == 0 and "100 runs (100 complete)" in ended.out, ended.err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["state=complete"], {"dense/quick", "dense/slow"}),
        (["state=stopped,complete"], {"dense/quick", "dense/slow", "dense/killed"}),
        (["recipe=dense"], {"dense/quick", "dense/slow", "dense/killed"}),
        (["recipe=resnet"], set()),
        (["older=1d"], {"dense/slow"}),
        (["newer=24h"], {"dense/quick", "dense/killed"}),
        (["optimizer.learning_rate=1e-2"], {"dense/slow"}),
        (["plan.deterministic=true", "run.store=null", "optimizer.name=sgd", "state=stopped"], {"dense/killed"}),
    ],
)
def test_filters(copy, capsys, words, names):
    long_ago = time.time() - 2 * 86400
    for path in copy.glob("dense/slow/**/*"):
        os.utime(path, (long_ago, long_ago))
    runs = listed(capsys, f"run.root={copy}", *words)
    assert runs.keys() - {"others"} == names and runs["others"] == {"notes": "holds no run"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["state=done"], 64, "'done' is no state"),
        (["newer=soon"], 64, "'soon' is no length of time"),
        (["optimizer.learningrate=1"], 64, "did you mean 'optimizer.learning_rate'?"),
        (["clen"], 64, "did you mean 'clean'?"),
        (["run.root=none"], 66, "can't be read: No such file"),
        (["compare", "quick"], 64, "nothing to compare"),
        (["compare", "quick", "quik"], 66, "did you mean 'quick'?"),
        (["clean"], 64, "all would be removed"),
        (["clean", "keep=-1"], 64, "'-1' is no number of runs"),
        (["clean", "state=complete", "run.root=dense/quick"], 64, "is a run itself"),
    ],
)
def test_what_is_refused(copy, capsys, monkeypatch, words, code, said):
    monkeypatch.chdir(copy.parent)
    words = [word.replace("=dense", "=runs/dense") for word in words]
    assert main(["runs", *words]) == code and said in capsys.readouterr().err


# -- compare


def test_what_sets_runs_apart(copy, capsys, monkeypatch):
    assert main(["runs", "compare", "quick", str(copy / "dense/slow"), f"run.root={copy}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differing"] == {"optimizer.learning_rate": [0.1, 0.01]}
    quick, slow = (run["results"] for run in told["runs"])
    result = json.loads((copy / "dense/quick/result.json").read_text())
    assert quick["test loss"] == result["metrics"]["loss"] != slow["test loss"]
    assert quick["verdict"].startswith("bounded by ") and quick["seconds"] > 0 and quick["step"] == 20
    for width in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["runs", "compare", *["quick", "slow", "killed"] * 2, f"run.root={copy}"]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= width and "optimizer" in shown and "0.01" in shown


def test_a_name_that_two_runs_have(copy, capsys):
    shutil.copytree(copy / "dense/quick", copy / "other/quick")
    assert main(["runs", "compare", "quick", "slow", f"run.root={copy}"]) == 64
    assert "dense/quick or other/quick" in capsys.readouterr().err
    assert main(["runs", "compare", "other/quick", "dense/quick", f"run.root={copy}"]) == 0
    assert "they were configured alike" in capsys.readouterr().out


# -- what is damaged, foreign or made to hurt

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
ODD = {"status": ["complete"], "best": {"step": 1, "value": 10**400}, "metrics": ["x"], "verdict": {"share": "x"}}


def spoilt(folder: Path, kind: str, outside: Path) -> None:
    file = folder / ("config.yaml" if kind in ("bomb", "secret", "list", "keys") else "result.json")
    if kind in ("link", "pipe", "folder", "secret"):
        file.unlink()
    if kind in ("link", "secret"):
        file.symlink_to(outside / "precious")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "lock":
        (folder / ".lock").symlink_to(outside / "precious")
    elif kind == "inside":
        (folder / "checkpoints" / "step-000000900").symlink_to(outside)
    elif kind == "log":
        (folder / "attempts.jsonl").write_bytes(b'{"kind": "ended", "attempt": 1, "wall": "x"}\n\xff\n[[[[\n')
        file.write_text("[]")
    else:
        text = {
            "torn": '{"status": "comp',
            "deep": "[" * 200 + "]" * 200,
            "bomb": BOMB,
            "list": "- 1\n",
            "keys": "a:\n- {2020-01-01: !!set {x}}\n",
        }
        file.write_text(text[kind])


@pytest.mark.parametrize(
    "kind",
    ["link", "pipe", "folder", "secret", "lock", "inside", "log", "torn", "deep", "bomb", "list", "keys"],
)
def test_damage_is_named_and_nothing_else_is_lost(copy, capsys, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("password: hunter2hunter2")
    spoilt(copy / "dense" / "quick", kind, outside)
    runs = listed(capsys, f"run.root={copy}")
    assert runs["dense/quick"]["state"] == "damaged" and runs["dense/quick"]["detail"], runs
    assert runs["dense/slow"]["state"] == "complete" and runs["dense/killed"]["state"] == "stopped"
    assert main(["runs", f"run.root={copy}"]) == 0
    shown = capsys.readouterr().out
    assert "damaged: " in shown and "hunter2" not in shown and "no run: holds no run" in shown
    assert main(["runs", "clean", "recipe=dense", f"run.root={copy}", "--yes"]) == 0
    assert "spared: damaged" in " ".join(capsys.readouterr().out.split())
    assert sorted(path.name for path in (copy / "dense").iterdir()) == ["quick"]
    assert main(["runs", "clean", "state=damaged", f"run.root={copy}", "--yes"]) == (73 if kind == "lock" else 0)
    assert (copy / "dense" / "quick").exists() == (kind == "lock")
    assert (outside / "precious").read_text() and (copy / "notes" / "deep" / "todo.md").read_text() == "mine"


def test_a_result_of_odd_values_stops_nothing(copy, capsys):
    (copy / "dense/quick/result.json").write_text(json.dumps(ODD))
    for words in ([], ["--json"], ["keep=1"]):
        assert main(["runs", *(["clean"] if "keep=1" in words else []), *words, f"run.root={copy}"]) == 0
    assert main(["runs", "clean", "keep.best=1", f"run.root={copy}"]) == 0
    assert main(["runs", "compare", "quick", "slow", f"run.root={copy}"]) == 0
    assert capsys.readouterr().err == ""


def test_names_are_shown_plain_and_links_are_not_followed(copy, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(copy / "dense/quick", tmp_path / "elsewhere" / "x")
    (copy / "away").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(copy / "dense/quick", copy / "dense" / "a\x1b[31m\nb")
    shutil.copytree(copy / "dense/quick", copy / "dense" / "https:" / "user:geheim1@host")
    assert main(["runs", f"run.root={copy}"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "a\\x1b[31m\\nb" in shown and "a link, which is not followed" in shown
    assert "elsewhere" not in shown


def test_a_run_that_ended_well_and_lost_its_result(copy):
    (copy / "dense/quick/result.json").unlink()
    run = read_record(copy / "dense/quick", "x")
    assert run.state == "damaged" and "is missing" in run.detail and run.state in STATES


@pytest.mark.parametrize(("code", "state"), [(143, "stopped"), (138, "stopped"), (130, "stopped"), (70, "failed")])
def test_the_code_says_whether_it_goes_on(copy, code, state):
    file = copy / "dense/killed/attempts.jsonl"
    line = {"kind": "ended", "attempt": 1, "wall": 1.0, "elapsed": 1.0, "code": code, "step": 7, "what": "it broke"}
    file.write_text(file.read_text().rstrip("\n") + "\n" + json.dumps(line) + "\n")
    run = read_record(copy / "dense/killed", "x")
    assert (run.state, run.step) == (state, 7) and str(code) in run.detail


def test_epochs_are_reckoned_while_nothing_says_how_long_they_are(copy):
    folder = copy / "dense/killed"
    config = (folder / "config.yaml").read_text().replace("until: 100000000st", "until: 10ep")
    (folder / "config.yaml").write_text(config)
    run = read_record(folder, "x")
    assert (run.total, run.about) == (50, True)  # 50 examples in steps of 10


# -- clean


def names(root: Path) -> list[str]:
    return sorted(str(run.name) for run in find_runs(root).runs)


def test_nothing_goes_without_yes(copy, capsys):
    before = names(copy)
    assert main(["runs", "clean", "state=complete", f"run.root={copy}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    freed = sum(run.bytes for run in find_runs(copy).runs if run.state == "complete")
    assert "would be removed: 2 runs (2 complete)" in shown and clean_runs.size(freed) in shown and "--yes" in shown
    assert names(copy) == before == ["dense/killed", "dense/quick", "dense/slow"]
    assert main(["runs", "clean", "state=complete", f"run.root={copy}", "--yes"]) == 0
    assert "removed: 2 runs" in capsys.readouterr().out
    assert names(copy) == ["dense/killed"] and os.listdir(copy / "dense") == ["killed"]
    assert (copy / "notes/deep/todo.md").exists()


def test_the_newest_and_the_best_are_spared(copy, capsys):
    result = json.loads((copy / "dense/slow/result.json").read_text())
    result["best"]["value"] = 0.01  # of accuracy, which is to be high
    (copy / "dense/slow/result.json").write_text(json.dumps(result))
    os.utime(copy / "dense/slow/result.json", (time.time() + 60,) * 2)
    assert main(["runs", "clean", "state=complete", "keep=1", "keep.best=1", f"run.root={copy}", "--yes"]) == 0
    assert names(copy) == ["dense/killed", "dense/quick", "dense/slow"]
    assert main(["runs", "clean", "state=complete", "keep.best=1", f"run.root={copy}", "--yes"]) == 0
    assert names(copy) == ["dense/killed", "dense/quick"] and "spared: keep.best=1" in capsys.readouterr().out


def test_what_trains_is_never_removed(root, capsys, monkeypatch):
    assert main(["runs", "clean", "state=training", f"run.root={root}", "--yes"]) == 0
    assert "spared: training now" in capsys.readouterr().out
    now = root / "dense" / "now"
    with pytest.raises(OutputError, match="is in use"):
        clean_runs.remove(now, root)
    monkeypatch.setattr(clean_runs, "in_use", lambda path: False)  # it began after it was asked
    with pytest.raises(OutputError, match="another run holds"):
        clean_runs.remove(now, root)
    assert (now / "attempts.jsonl").exists() and (now / ".lock").exists()


def test_a_fit_of_a_script_that_runs_is_in_use(copy):
    (copy / "dense/script.json").write_text("{}")
    with RunDir(copy / "dense").claimed():
        assert read_record(copy / "dense/quick", "x").state == "training"
        with pytest.raises(OutputError, match="is in use"):
            clean_runs.remove(copy / "dense/quick", copy)
    assert read_record(copy / "dense/quick", "x").state == "complete"


def test_a_lock_that_another_machine_left_long_ago_holds_nothing(copy):
    folder = copy / "dense/quick"
    record = {"token": "t", "host": "h", "boot_id": "other", "pid": 1, "since": "x", "renewed": 1.0, "flock": None}
    (folder / ".lock").write_text(json.dumps(record))
    assert read_record(folder, "x").state == "training"
    os.utime(folder / ".lock", (time.time() - 3600,) * 2)
    assert read_record(folder, "x").state == "complete"


def test_what_people_keep_in_a_run_spares_it(copy, capsys):
    (copy / "dense/quick/thesis").mkdir()
    assert main(["runs", "clean", "state=complete", f"run.root={copy}", "--yes"]) == 0
    assert "spared: it holds what no run writes: thesis" in " ".join(capsys.readouterr().out.split())
    assert names(copy) == ["dense/killed", "dense/quick"]


def test_a_removal_that_was_cut_short_is_found_again(copy, capsys, monkeypatch):
    real = shutil.rmtree

    def cut(path, *args, **kwargs):
        if Path(path).name == "checkpoints":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", cut)
    assert main(["runs", "clean", "optimizer.learning_rate=0.01", f"run.root={copy}", "--yes"]) == 73
    assert "1 of 1 runs were not removed" in capsys.readouterr().err
    monkeypatch.undo()
    (left,) = (name for name in names(copy) if name.endswith(".tmp"))
    assert left.startswith("dense/.slow.")
    assert main(["runs", "clean", "state=damaged", f"run.root={copy}", "--yes"]) == 0
    assert names(copy) == ["dense/killed", "dense/quick"]
