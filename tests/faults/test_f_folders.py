"""Faults of what lies in a run folder: somebody else's files, lost and damaged ones, and a disk that becomes read-only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.dense_models import environ
from support.fault_rows import LIGHT, committed, exit_code_in, result_of, steps_of, tiny_job, training_rows

SECRET = "what is nobody's business"


@pytest.fixture
def run_dir(alone_dir: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of tiny(), for this test alone."""
    return Path(shutil.copytree(alone_dir, tmp_path / "it"))


@pytest.fixture
def mine(tmp_path_factory) -> Path:
    """A file of the user's, outside of the run folder."""
    file = tmp_path_factory.mktemp("mine") / "diary.jsonl"
    file.write_text(SECRET + "\n")
    return file


def longer(*more: str) -> list[str]:
    """The command that goes on with the run."""
    return tiny_job(*more, steps=50)


# -- F5: what a spool names

F5 = pytest.mark.fault(
    "F5", injected="a spool that names files outside, by .., by a link", expected="77, and MLflow gets none of it"
)


@F5
def test_a_spool_that_names_my_files(run_dir, mine, tmp_path, one_line, got):
    (run_dir / "notes").mkdir()
    (run_dir / "notes" / "link").symlink_to(mine)
    names = [str(mine), os.path.relpath(mine, run_dir), "notes/link", "notes", "", "a\0b"]
    job = [part for part in tiny_job("tracker=mlflow") if part != "tracker=none"]
    for name in names:
        events = [{"kind": "begin", "token": "' or '1'='1"}, {"kind": "artifact", "path": name}]
        (run_dir / "mlflow_spool.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        line = one_line(77, job, tell=f"{name[-12:]!r}: ")
        assert "leads out of" in line or "plain files only" in line, line
    assert SECRET not in "".join(
        p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()
    )


# -- F6: links

F6 = pytest.mark.fault(
    "F6",
    injected="links to my files, pipes, in the place of what a run reads and writes",
    expected="77, naming the file; nothing outside is read or written; the folder itself may be a link",
)
NAMES = ("metrics.jsonl", "attempts.jsonl", "result.json", "config.yaml", "mlflow_run_id", ".lock", ".lock.flock")


@F6
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_in_a_run_folder(run_dir, mine, one_line, got, kind):
    for name in (*NAMES, "mlflow_spool.jsonl", "hang.txt", "export", "checkpoints/step-000000040/state.index"):
        file = run_dir / name
        before = file.read_bytes() if file.is_file() else None
        file.unlink(missing_ok=True)
        file.symlink_to(mine) if kind == "link" else os.mkfifo(file)
        assert f"| {file.relative_to(run_dir.parent)} |" in one_line(77, longer())
        file.unlink()
        if before is not None:
            file.write_bytes(before)
    assert mine.read_text() == SECRET + "\n"


@F6
def test_a_link_is_refused_by_whoever_opens_a_run(run_dir, mine, tmp_path, got):
    (run_dir / "spec.json").unlink()
    (run_dir / "spec.json").symlink_to(mine)
    for cli in ("evaluate", "export"):
        command = [sys.executable, "-m", f"tfscale.{cli}", "run.dir=it"]
        done = subprocess.run(command, cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=60)
        got(f"{cli}: {done.returncode}")
        assert done.returncode == 77 and "spec.json is a link to" in done.stderr, done.stderr


@F6
def test_the_folder_itself_may_be_a_link(run_dir, tmp_path, cli, got):
    os.replace(run_dir, tmp_path / "elsewhere")
    run_dir.symlink_to(tmp_path / "elsewhere")
    ended = cli(*tiny_job(), environ=environ(), program=LIGHT)
    assert ended.code == 0 and "already complete at step 40" in ended.out, ended.err
    got("the folder as a link: 0")


# -- F7: sizes and depths

F7 = pytest.mark.fault(
    "F7",
    injected="JSON nested 100000 times, files of 100 MB, YAML that grows, records of other types",
    expected="77 in seconds; what is only nonsense is not believed",
)


def put(file: Path, content: str | int) -> None:
    if isinstance(content, int):
        with file.open("wb") as stream:
            stream.truncate(content)  # sparse
    else:
        file.write_text(content)


DEEP = "[" * 100_000 + "]" * 100_000
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
TOO_MUCH = [
    ("result.json", DEEP),
    ("result.json", 100 * 2**20),
    ("attempts.jsonl", '{"kind": ' + DEEP + "}\n"),
    ("attempts.jsonl", 100 * 2**20),
    ("metrics.jsonl", '{"step": 1, "kind": "train", "x": ' + DEEP + "}\n"),
    ("checkpoints/step-000000040/manifest.json", DEEP),
    ("checkpoints/step-000000040/manifest.json", 100 * 2**20),
]


@F7
@pytest.mark.parametrize(("name", "content"), TOO_MUCH, ids=lambda value: str(value)[:20])
def test_a_file_that_is_too_much(run_dir, name, content, one_line, got):
    put(run_dir / name, content)
    needs_tensorflow = name.startswith(("metrics", "checkpoints"))
    options = {"program": ("-m", "tfscale.train")} if needs_tensorflow else {}
    assert f"{run_dir.name}/{name}" in one_line(77, longer(), within=20, tell=f"{name}: ", **options)


@F7
def test_a_configuration_that_grows(run_dir, tmp_path, got):
    whole = (run_dir / "config.yaml").read_text()
    for what, text in {
        "aliases": whole + BOMB,
        "depth": f"{whole}x: {DEEP[:500]}{DEEP[-500:]}\n",
        "size": 100 * 2**20,
    }.items():
        put(run_dir / "config.yaml", text)
        began = time.monotonic()
        command = [sys.executable, "-m", "tfscale.evaluate", "run.dir=it", "--cfg", "job"]
        done = subprocess.run(command, cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=60)
        got(f"{what}: {done.returncode} in {time.monotonic() - began:.1f} s")
        assert done.returncode == 77 and "config.yaml" in done.stderr, done.stderr


@F7
def test_what_says_nonsense_is_not_believed(run_dir, tmp_path):
    """A result without numbers is none; the run goes on from its checkpoint."""
    from tfscale.run_dir.folder import RunDir

    result = {**result_of(run_dir), "step": "a lot"}
    (run_dir / "result.json").write_text(json.dumps(result))
    assert RunDir(run_dir).finished(until=None, experiment=None) is None  # type: ignore[arg-type]
    (run_dir / "result.json").write_text("[" * 90 + "]" * 90)
    assert RunDir(run_dir).read_json("result.json") is None


# -- F10, F11: what was lost and damaged

F10 = pytest.mark.fault(
    "F10",
    injected="checkpoints/ is gone or empty, and the attempt log knows a durable step",
    expected="76, no metric is lost; only resume.mode=never begins at zero",
)
F11 = pytest.mark.fault(
    "F11",
    injected="a byte that is no UTF-8, lines of another kind, in metrics.jsonl and attempts.jsonl; the newest checkpoint is gone",
    expected="it goes on from the one before; the lines are moved to *-bad.jsonl; both are reported",
)


@F10
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_the_checkpoints_are_gone(run_dir, one_line, got, how):
    before = (run_dir / "metrics.jsonl").read_bytes()
    shutil.rmtree(run_dir / "checkpoints")
    if how == "empty":
        (run_dir / "checkpoints").mkdir()
    for _ in range(2):  # also the second time
        line = one_line(76, longer())
        assert "step 40 was durable" in line and "resume.mode=never" in line
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    assert exit_code_in(run_dir) == 76


@F11
def test_damaged_lines_and_a_newest_checkpoint_that_is_gone(run_dir, group, got):
    metrics, attempts = run_dir / "metrics.jsonl", run_dir / "attempts.jsonl"
    rows = metrics.read_bytes().splitlines(keepends=True)
    rows[3:3] = [b'{"step": 4, "kind": "tr\xff\xfein"}\n', b"[1, 2]\n", b'{"step": "five"}\n', b"5\n"]
    metrics.write_bytes(b"".join(rows) + b'{"step": 41, "lo')
    lines = attempts.read_bytes().splitlines(keepends=True)
    lines[1:1] = [
        b"\x80\n",
        b'{"kind": "note", "attempt": "one", "wall": 1, "elapsed": 1, "step": 1, "committed": 1}\n',
    ]
    attempts.write_bytes(b"".join(lines))
    shutil.rmtree(committed(run_dir)[-1])
    left = steps_of(run_dir)[-1]
    run = group(longer())
    assert run.codes(within=120) == [0], run.tails()
    text = run.text(0)
    assert "4 lines of it/metrics.jsonl say nothing that can be read; moved to metrics-bad.jsonl" in text
    assert "2 lines of it/attempts.jsonl say nothing that can be read; moved to attempts-bad.jsonl" in text
    assert f"step 40 was durable once: what lies behind step {left} is trained again" in text
    assert (run_dir / "metrics-bad.jsonl").read_bytes().splitlines(keepends=True) == rows[3:7]
    assert (run_dir / "attempts-bad.jsonl").read_bytes().splitlines(keepends=True) == lines[1:3]
    assert [row["step"] for row in training_rows(run_dir)] == list(range(1, 51)) and steps_of(run_dir)[-1] == 50
    got(f"4 + 2 lines moved; resumed at step {left}, complete at step 50")
