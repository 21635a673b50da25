"""Faults of checkpoints and storage, in real runs. Row C11 has a file of its own; tests/checkpoint has the finer ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support.dense_models import environ
from support.fault_rows import LIGHT, ProcessGroup, fingerprint, last_step, result_of, run_dir_of, steps_of, tiny_job
from support.numbered_table import seen

SLOWLY = "train.loop:sleep0.1"  # so that there is a middle of the training to hit
BATCH = 10  # tiny's
MODEL = "from dataclasses import dataclass\nfrom support.dense_models import Dense\n@dataclass\nclass Net(Dense):\n"


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


# -- killed while saving


@pytest.mark.long
@pytest.mark.fault(
    "C1",
    injected="SIGKILL at every phase of a save, one after the other in one run",
    expected="only whole checkpoints are seen, remains are cleaned, resumed from the one before, the same bits",
)
def test_killed_at_every_phase_of_a_save(tiny, group, alone, got):
    moments = {
        "ckpt.before_write": (5, []),
        "ckpt.mid_data": (10, [5]),
        "ckpt.before_manifest": (15, [5, 10]),
        "ckpt.before_commit": (20, [10, 15]),
        "ckpt.before_prune": (25, [15, 20, 25]),
        "ckpt.mid_prune": (30, [20, 25, 30]),
    }
    from_where = None
    for point, (step, kept) in moments.items():
        wait = f"train.loop:step={step - 1}:sleep2"  # for the save before, or this one is skipped
        run = group(tiny(every=5), faults={0: f"{wait},{point}:step={step}:kill"})
        assert run.codes(within=120) == [128 + signal.SIGKILL], run.tails()
        assert steps_of(run.run_dir) == kept, point
        if from_where is not None:
            assert f"resuming at step {from_where} of 40" in run.text(0)
        from_where = kept[-1] if kept else None
    last = group(tiny(every=5))
    assert last.codes(within=120) == [0], last.tails()
    assert "resuming at step 30 of 40" in last.text(0)
    assert names(last.run_dir) == ["step-000000035", "step-000000040"]
    assert fingerprint(last.run_dir) == alone
    got(f"{len(moments)} kills, each resumed from the last whole one; the same bits at step 40")


# -- storage


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(folder, "200k"): a file system of this size there; unmounted after the test."""
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("may not mount a tmpfs here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as stream:
        while stream.write(b"x" * 4096):
            pass
    return filler


full = pytest.mark.fault(
    "C2",
    injected="the disk is full while training saves",
    expected="trains on, warns, saves again; 74 after max_failed_saves; older ones intact",
)


@full
def test_a_disk_that_is_full_for_a_while(small_disk, tiny, group, alone, tmp_path, got):
    """Also its metrics lie there: none is lost."""
    overrides = tiny(every=5)
    disk = small_disk(run_dir_of(overrides, tmp_path), "300k")
    run = group(overrides, faults={0: SLOWLY})
    run.wait(lambda: 5 in steps_of(disk))
    filler = fill(disk)
    run.wait_for(0, "could not be written")
    older = steps_of(disk)
    filler.unlink()
    assert run.codes(within=120) == [0], run.tails()
    assert older and set(older) <= {5, 10, 15}
    assert run.text(0).count("training goes on, and the next save tries again") in (1, 2)
    assert fingerprint(disk) == alone
    assert names(disk) == ["step-000000035", "step-000000040"]
    got("one line, trains on, saves again once there is room; no row of metrics lost")


@full
def test_a_disk_that_stays_full(small_disk, tiny, group, tmp_path, got):
    overrides = tiny("checkpoint.max_failed_saves=2", every=5, steps=200)
    disk = small_disk(run_dir_of(overrides, tmp_path) / "checkpoints", "100k")
    run = group(overrides, faults={0: SLOWLY})
    run.wait(lambda: 5 in steps_of(run.run_dir))
    fill(disk)
    assert run.codes(within=120) == [74], run.tails()
    kept = steps_of(run.run_dir)
    assert len(kept) in (1, 2)
    told = run.error(0)
    assert re.search(r"the checkpoint of step \d+ could not be written, nor the 1 before it: .*No space left", told), (
        told
    )
    assert names(run.run_dir) == sorted([*(f"step-{step:09d}" for step in kept), "filler"])
    assert last_step(run.run_dir) < kept[-1] + 20  # told soon after the second one, and not at the next save
    (disk / "filler").unlink()
    again = group(tiny("checkpoint.max_failed_saves=2", every=5, steps=20))
    assert again.codes(within=120) == [0], again.tails()
    assert f"resuming at step {kept[-1]} of 20" in again.text(0)
    got("74 after the second failed save in a row; resumed once there is room")


@pytest.mark.fault("C3", injected="a read-only run.dir", expected="73 at the start, before data and TensorFlow")
def test_a_read_only_folder(small_disk, cli, tmp_path, got):
    disk = small_disk(tmp_path / "disk", "1m")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    job = tiny_job(run_dir=disk / "it")
    ended = cli(*job, environ=environ(), program=LIGHT, deadline=30)
    assert ended.code == 73, ended.err
    (line,) = ended.err.splitlines()
    assert "Read-only file system" in line and str(disk / "it") in line and "run.dir" in line
    assert list(disk.iterdir()) == []
    assert ended.seconds < 10
    got(f"73 in {ended.seconds:.1f} s without TensorFlow")


# -- damaged, foreign, other


def edited(*more: str, steps: int = 40, **options) -> list[str]:
    """tiny() with a model of the user's own, in a file that the tests edit."""
    allow = "extensions.allow=[support.dense_models.,edited.]"
    return tiny_job(allow, *more, steps=steps, task="edited.Net", **options)


def where_code(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(folder), environ()["PYTHONPATH"]])}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a run of 20 steps in it/, and the code of its model."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "edited.py").write_text(f"{MODEL}    pass\n")
    job = edited("checkpoint.keep=3", steps=20, every=5)
    slowly = {0: SLOWLY}  # else saves are skipped while one is being written
    with ProcessGroup(job, cwd=folder, logs=folder / "logs", more_environ=where_code(folder), faults=slowly) as group:
        assert group.codes(within=120) == [0], group.tails()
    assert steps_of(folder / "it") == [10, 15, 20]
    return folder


@pytest.fixture
def again(trained, group, tmp_path):
    """again(*overrides): runs a copy of the trained run, which the test has done something to, on to step 40."""
    shutil.copytree(trained / "it", tmp_path / "it")
    shutil.copy(trained / "edited.py", tmp_path)

    def start(*more: str) -> ProcessGroup:
        return group(edited(*more), more_environ=where_code(tmp_path))

    return start


def checkpoint(tmp_path: Path, step: int) -> Path:
    return tmp_path / "it" / "checkpoints" / f"step-{step:09d}"


@pytest.fixture(scope="module")
def fell_back(trained, alone, tmp_path_factory) -> str:
    """What a run says whose newest checkpoint has lost its index, the one before has a flipped bit, beside which lies a
    garbage file, and whose code has another comment. It comes to the bits of one that nothing happens to."""
    folder = tmp_path_factory.mktemp("fell-back")
    shutil.copytree(trained / "it", folder / "it")
    (folder / "edited.py").write_text((trained / "edited.py").read_text() + "# a comment\n")
    (checkpoint(folder, 20) / "state.index").unlink()
    data = next(checkpoint(folder, 15).glob("state.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    (folder / "it" / "checkpoints" / "checkpoint").write_bytes(b'model_checkpoint_path: "/etc/passwd"\x00\xff')
    with ProcessGroup(edited(), cwd=folder, logs=folder / "logs", more_environ=where_code(folder)) as group:
        assert group.codes(within=120) == [0], group.tails()
        assert "resuming at step 10 of 40" in group.text(0), group.text(0)
        assert names(group.run_dir)[:3] == ["checkpoint", "damaged-step-000000015", "damaged-step-000000020"]
        assert fingerprint(group.run_dir) == alone
        return group.text(0)


def damaged(text: str, step: int, reason: str) -> None:
    assert re.search(rf"checkpoint \S*step-0000000{step} is damaged \({reason}.*trying the one before", text), text


@pytest.mark.fault("C4", injected="the newest .index deleted", expected="falls back to the one before, says so")
def test_the_newest_index_is_gone(fell_back, got):
    damaged(fell_back, 20, "No such file|.*state.index")
    got("a line that names step 20, and on to the one before; resumed at step 10, the same bits at step 40")


@pytest.mark.fault("C5", injected="a bit flipped in the newest data", expected="as C4")
def test_a_bit_of_the_newest_is_flipped(fell_back, got):
    damaged(fell_back, 15, "state.data-00000-of-00001 does not match its checksum")
    got("a line that names step 15, the newest that is left; resumed at step 10, the same bits at step 40")


@pytest.mark.fault(
    "C7", injected="a garbage `checkpoint` file beside them", expected="the list of folders is the truth"
)
def test_a_garbage_state_file(fell_back, got):
    assert "passwd" not in fell_back
    got("the newest whole folder counts: resumed at step 10, the same bits at step 40")


@pytest.mark.fault(
    "C6", injected="all checkpoints damaged", expected="76, each with its reason; zero only with resume.mode=never"
)
def test_all_are_damaged(again, tmp_path, got):
    shutil.rmtree(checkpoint(tmp_path, 15))
    (checkpoint(tmp_path, 20) / "state.index").unlink()
    (checkpoint(tmp_path, 10) / "manifest.json").write_text("{")
    run = again()
    assert run.codes(within=120) == [76], run.tails()
    told = run.error(0)
    assert re.search(r"step-000000020: .*state\.index.*step-000000010: its manifest can't be read", told), told
    assert names(run.run_dir) == ["step-000000010", "step-000000020"]
    assert last_step(run.run_dir) == 20  # nothing was cut or written
    fresh = again("resume.mode=never")
    assert fresh.codes(within=120) == [0], fresh.tails()
    assert "resuming" not in fresh.text(0) and steps_of(fresh.run_dir)[-1] == 40
    got("76 with both reasons, nothing changed; resume.mode=never begins at zero")


@pytest.mark.fault(
    "C8",
    injected="a manifest that names a file outside; a link out of the run folder",
    expected="77, nothing is read or written there",
)
@pytest.mark.parametrize("what", ["manifest", "link"])
def test_what_leads_out_of_the_run_folder(again, tmp_path, tmp_path_factory, got, what):
    from tfscale.files import digest_of

    outside, newest = tmp_path_factory.mktemp("outside"), checkpoint(tmp_path, 20)
    if what == "link":
        os.replace(newest, outside / "there")
        newest.symlink_to(outside / "there")
    else:
        told = json.loads((newest / "manifest.json").read_text())
        told.pop("digest")
        told["files"]["../../../../etc/passwd"] = {"bytes": 1, "sha256": ""}
        (newest / "manifest.json").write_text(json.dumps({**told, "digest": digest_of(told)}))
    run = again()
    assert run.codes(within=120) == [77], run.tails()
    assert str(Path("step-000000020")) in run.error(0)
    assert steps_of(run.run_dir)[0] == 10 and last_step(run.run_dir) == 20
    got(f"77 for the {what}")


@pytest.mark.fault("C9", injected="the model's code gives other variables", expected="76 with a table of what differs")
def test_the_model_has_changed(again, tmp_path, got):
    (tmp_path / "edited.py").write_text(
        f"{MODEL}    def build_model(self):\n"
        "        from keras import Input, Model, layers\n"
        "        inputs = Input((6,), name='x')\n"
        "        hidden = layers.Dense(9, 'tanh', name='hidden')(inputs)\n"
        "        return Model(inputs, layers.Dense(2, name='out')(layers.Dense(3, name='more')(hidden)))\n"
    )
    run = again()
    assert run.codes(within=120) == [76], run.tails()
    text = run.text(0)
    assert re.search(r"model/hidden/kernel +\[6, 8\] float32 +\[6, 9\] float32\n", text), text
    assert re.search(r"model/more/kernel +new +\[9, 3\] float32\n", text), text
    assert re.search(r"model/seed_generator/\S+ +\[2\] \w+ +missing\n", text), text
    assert re.search(r"of another model: \d+ variables differ, such as \S+: checkpoint", run.error(0))
    assert names(run.run_dir) == [f"step-0000000{step}" for step in (10, 15, 20)]
    got("76 with a line for each of the variables that differ, are new or missing")


other = pytest.mark.fault(
    "C10",
    injected="another learning rate; another file of the task",
    expected="76 naming the key and both values, unless resume.allow_changed; changed code warns",
)


@other
def test_a_hyper_parameter_has_changed(again, got):
    run = again("optimizer.learning_rate=0.05")
    assert run.codes(within=120) == [76], run.tails()
    assert "optimizer.learning_rate was 0.1, is 0.05" in run.error(0)
    assert "resume.allow_changed=[KEY]" in run.error(0)
    run = again("optimizer.learning_rate=0.05", "resume.allow_changed=[optimizer.learning_rate]")
    assert run.codes(within=120) == [0], run.tails()
    assert "resuming at step 20 of 40" in run.text(0)
    assert "going on although changed (resume.allow_changed): optimizer.learning_rate was 0.1, is 0.05" in run.text(0)
    assert result_of(run.run_dir)["experiment"]["optimizer.learning_rate"] == 0.05
    got("76 with both values; allowed, it goes on at step 20 and says so")


@other
def test_the_code_has_changed(fell_back, got):
    assert len(re.findall(r"the code has changed since it was saved: edited \w{10} -> \w{10}\n", fell_back)) == 1
    got("changed code: one line, and it goes on")


# -- another world size, slow storage


@pytest.mark.fault(
    "C12",
    injected="resumed in one process after two workers",
    expected="the same steps from the same examples, each once; losses within the rounding of float32",
)
def test_resumed_on_fewer_workers(group, tmp_path, got):
    def job(folder, steps):
        allow = ("extensions.allow=[support.numbered_table.]", "task.dropout=0.0")
        return tiny_job(
            *allow,
            steps=steps,
            task="support.numbered_table.Seen",
            data="support.numbered_table.Numbered",
            run_dir=folder,
        )

    whole = group(job("whole", 40))
    two = group(job("it", 20), 2)
    assert two.codes(within=120) == [0, 0], two.tails()
    one = group(job("it", 40))
    assert one.codes(within=120) == [0], one.tails()
    assert whole.codes(within=120) == [0], whole.tails()
    assert "resuming at step 20 of 40" in one.text(0)
    expected, found = seen(whole.run_dir, BATCH), seen(one.run_dir, BATCH)
    assert found == expected and set(found) == set(range(1, 41))
    for epoch in range(8):  # 50 examples are five steps
        numbers = [number for step in range(5 * epoch + 1, 5 * epoch + 6) for number in found[step]]
        assert sorted(numbers) == list(range(50))
    losses = [
        {step: float.fromhex(loss) for step, loss in fingerprint(run.run_dir).losses.items()} for run in (whole, one)
    ]
    worst = max(abs(losses[0][step] - losses[1][step]) / losses[0][step] for step in losses[0])
    assert worst < 1e-5, worst
    got(f"all 400 examples in their order, each once an epoch; losses differ by {worst:.0e} at most")


slow = pytest.mark.fault(
    "C13",
    injected="every write takes 1.5 s, three times the interval between saves",
    expected="saves never overlap and are skipped, not queued; training goes on; the stall is reported",
)


@slow
def test_storage_slower_than_the_interval(tiny, group, alone, got):
    run = group(tiny(every=5), faults={0: f"{SLOWLY},ckpt.before_commit:sleep1.5"})
    run.wait_step(38)
    log = (run.run_dir / "attempts.jsonl").read_text().splitlines()
    stalled = max(json.loads(line).get("seconds", {}).get("checkpoint", 0.0) for line in log)
    assert run.codes(within=120) == [0], run.tails()
    text = run.text(0)
    assert text.count("the checkpoint of step 10 is skipped: that of step 5 is still being written") == 1
    assert text.count("is skipped:") == 1
    assert stalled < 0.5, log  # while at least two writes took 3 s
    assert steps_of(run.run_dir)[-1] == 40 and len(names(run.run_dir)) == 2
    assert fingerprint(run.run_dir) == alone
    final = result_of(run.run_dir)["seconds"]["checkpoint"]
    assert 1.0 < final < 5.0  # the last one is waited for
    got(f"training stalled for {stalled:.2f} s before its last step; the last save took {final - stalled:.1f} s")


@slow
def test_a_save_that_one_worker_skips_is_read_by_all(tiny, group, got):
    """One of the variables is summed over the workers when it is read: all have to, or none."""
    job = tiny(
        "extensions.allow=[support.dense_models.,support.numbered_table.]",
        every=5,
        task="support.numbered_table.Summing",
    )
    run = group(job, 2, faults={0: f"{SLOWLY},ckpt.before_commit:sleep1.5"})
    assert run.codes(within=120) == [0, 0], run.tails()
    assert "is skipped:" in run.text(0)
    import tensorflow as tf

    newest = run.run_dir / "checkpoints" / "step-000000040" / "state"
    assert tf.train.load_checkpoint(str(newest)).get_tensor("model/count/variable") >= 80  # 40 steps of two workers
    got("two workers: both read what the chief skips")
