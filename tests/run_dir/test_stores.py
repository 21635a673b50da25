"""Stores: what is copied when, what counts, and what is refused; on a real S3 server and on a folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.s3_server import BUCKET, S3

from tfscale.errors import CheckpointUnusable, DataMissing, IOFailure, OutputError, SecurityRefused, UsageError
from tfscale.files import digest_of
from tfscale.run_dir.manifest import is_whole
from tfscale.run_dir.store import Store
from tfscale.run_dir.store_access import Access, check_url
from tfscale.run_dir.store_copy import run_folder

RUN = "dense/a1b2"


@pytest.fixture(params=["s3", "file"])
def url(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/durable"
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/runs"


def write(run: Path, step: int, *, best: int | None = None, text: str = "") -> Path:
    """A complete checkpoint, as far as a store knows one."""
    folder = run / "checkpoints" / f"step-{step:09d}"
    folder.mkdir(parents=True)
    for name, data in (("state.index", b"index"), ("state.data-00000-of-00001", f"{text} {step} ".encode() * 1000)):
        (folder / name).write_bytes(data)
    files = {
        f.name: {"bytes": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()}
        for f in folder.iterdir()
    }
    memory = {} if best is None else {"best": {"step": best}}
    manifest = {"step": step, "memory": memory, "files": files}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "digest": digest_of(manifest)}))
    return folder


def remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def step(number: int) -> str:
    return f"step-{number:09d}"


def steps_in(server: S3) -> list[str]:
    """The checkpoints that lie there, complete or not."""
    return sorted({key.split("/")[4] for key in server.keys(f"runs/{RUN}/checkpoints")})


def data_of(number: int) -> str:
    return f"runs/{RUN}/checkpoints/{step(number)}/state.data-00000-of-00001"


def test_a_fresh_machine_gets_the_newest_checkpoint_and_no_more(url, tmp_path):
    here, fresh = tmp_path / "here", tmp_path / "fresh"
    store = Store(url, RUN)
    for number in (10, 20):
        store.committed(write(here, number))
    assert Store(url, RUN).pull(fresh) == step(20)
    assert names(fresh / "checkpoints") == [step(20)] and is_whole(fresh / "checkpoints" / step(20))
    for file in (here / "checkpoints" / step(20)).iterdir():
        assert file.read_bytes() == (fresh / "checkpoints" / step(20) / file.name).read_bytes()
    assert Store(url, RUN).pull(fresh) is None  # it is here now
    assert Store(url, "dense/other").pull(tmp_path / "other") is None
    assert not (tmp_path / "other").exists()


def test_a_newer_one_here_is_kept_and_copied_when_the_store_is_back(url, tmp_path):
    here, store = tmp_path / "here", Store(url, RUN)
    store.committed(write(here, 10))
    write(here, 20)  # its copy was never made
    assert Store(url, RUN).pull(here) is None
    store.push(here)
    assert Store(url, RUN).pull(tmp_path / "fresh") == step(20)


def test_a_checkpoint_counts_from_its_manifest_on(s3, tmp_path):
    """Killed before the manifest is written: the one before is what a fresh machine gets, and the rest is cleaned."""
    here = tmp_path / "here"
    Store(f"s3://{BUCKET}/runs", RUN).committed(write(here, 10))
    write(here, 20)
    code = "import sys; from pathlib import Path; from tfscale.run_dir.store import Store\n"
    code += "Store(sys.argv[1], sys.argv[2]).committed(Path(sys.argv[3]))"
    ended = subprocess.run(
        [sys.executable, "-c", code, f"s3://{BUCKET}/runs", RUN, str(here / "checkpoints" / step(20))],
        env={**os.environ, "TFSCALE_FAULT": "store.before_manifest:step=20:kill"},
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL
    assert data_of(20) in s3.keys()  # noqa: SIM118
    fresh = tmp_path / "fresh"
    assert Store(f"s3://{BUCKET}/runs", RUN).pull(fresh) == step(10)
    Store(f"s3://{BUCKET}/runs", RUN).committed(write(fresh, 30))
    assert steps_in(s3) == [step(10), step(30)]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest"])
def test_a_damaged_one_is_passed_over_and_written_anew(s3, tmp_path, damage, messages):
    url, here, fresh = f"s3://{BUCKET}/runs", tmp_path / "here", tmp_path / "fresh"
    store = Store(url, RUN)
    for number in (10, 20):
        store.committed(write(here, number))
    if damage == "flip":
        s3.flip(data_of(20))
    elif damage == "cut":
        s3.write(data_of(20), s3.read(data_of(20))[:-1])
    elif damage == "gone":
        s3.client.delete_object(Bucket=BUCKET, Key=data_of(20))
    else:
        s3.write(f"runs/{RUN}/checkpoints/{step(20)}/manifest.json", b"{torn")
    again = Store(url, RUN)
    assert again.pull(fresh) == step(10)
    assert names(fresh / "checkpoints") == [step(10)]
    assert f"{step(20)} is damaged" in messages.text
    write(fresh, 20, text="anew")  # training has come to that step once more
    again.push(fresh)
    assert Store(url, RUN).pull(tmp_path / "third") == step(20)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_at_zero(s3, tmp_path):
    store = Store(f"s3://{BUCKET}/runs", RUN)
    for number in (10, 20):
        store.committed(write(tmp_path / "here", number))
        s3.flip(data_of(number))
    with pytest.raises(CheckpointUnusable, match=f"{step(20)}.*{step(10)}"):
        Store(f"s3://{BUCKET}/runs", RUN).pull(tmp_path / "fresh")
    assert not names(tmp_path / "fresh" / "checkpoints")  # nothing half fetched is left


def test_a_damaged_one_that_was_passed_over_counts_for_nobody(s3, tmp_path):
    """Or another worker, which has a good copy of it, would begin elsewhere than the chief."""
    url, other = f"s3://{BUCKET}/runs", tmp_path / "other"
    store = Store(url, RUN)
    for number in (10, 20):
        store.committed(write(tmp_path / "first", number))
    assert Store(url, RUN).pull(other) == step(20)
    s3.flip(data_of(20))
    chief = Store(url, RUN)
    assert chief.pull(tmp_path / "chief") == step(10)
    chief.push(tmp_path / "chief")
    assert Store(url, RUN).follow(other) == step(10)
    assert names(other / "checkpoints") == [f"damaged-{step(20)}", step(10)]
    assert Store(url, RUN).follow(other) is None


def test_a_worker_follows_a_run_that_began_anew(url, tmp_path):
    other, chief = tmp_path / "other", Store(url, RUN)
    chief.committed(write(tmp_path / "first", 10))
    assert Store(url, RUN).follow(other) == step(10)
    chief.archive()
    assert Store(url, RUN).follow(other) is None
    assert names(other / "checkpoints") == [f"damaged-{step(10)}"]


def test_one_that_is_damaged_here_is_replaced(url, tmp_path):
    here, store = tmp_path / "here", Store(url, RUN)
    for number in (10, 20):
        store.committed(write(here, number))
    (here / "checkpoints" / step(20) / "state.index").write_bytes(b"INDEX")
    assert Store(url, RUN).pull(here) == step(20)
    assert is_whole(here / "checkpoints" / step(20)) and f"damaged-{step(20)}" in names(here / "checkpoints")


def test_a_damaged_one_here_is_not_copied(url, tmp_path):
    write(tmp_path / "here", 10)
    (tmp_path / "here" / "checkpoints" / step(10) / "state.index").write_bytes(b"INDEX")
    Store(url, RUN).push(tmp_path / "here")
    assert Store(url, RUN).pull(tmp_path / "fresh") is None


@pytest.mark.parametrize("pruned_first", [True, False])
def test_the_newest_and_the_best_are_kept_there(s3, tmp_path, pruned_first):
    """Whether or not the older ones are gone here already."""
    here, store = tmp_path / "here", Store(f"s3://{BUCKET}/runs", RUN, keep=2)
    for number in (10, 20, 30, 40):
        folder = write(here, number, best=10)
        if pruned_first and number > 20:
            remove(
                here / "checkpoints" / step(number - 20)
            )  # the best one among them: as on a machine that never had it
        store.committed(folder)
    assert steps_in(s3) == [step(10), step(30), step(40)]
    store.push(here)
    assert steps_in(s3) == [step(10), step(30), step(40)]


def test_what_is_good_there_is_kept_while_what_is_newer_here_is_not(s3, tmp_path):
    here, store = tmp_path / "here", Store(f"s3://{BUCKET}/runs", RUN, keep=1)
    store.committed(write(here, 10))
    write(here, 20)
    (here / "checkpoints" / step(20) / "state.index").write_bytes(b"INDEX")
    store.push(here)
    assert steps_in(s3) == [step(10)]


def test_the_small_files_follow(url, tmp_path):
    run, fresh = tmp_path / "run", tmp_path / "fresh"
    (run / "export" / "saved_model").mkdir(parents=True)
    (run / "shown").mkdir()
    for name in (
        "shown/samples.png",
        "result.json",
        "metrics.jsonl",
        "exit.json",
        "other.txt",
        "export/export.json",
        "export/saved_model/x",
    ):
        (run / name).write_text(name)
    store = Store(url, RUN)
    store.push(run)
    (run / "metrics.jsonl").write_text("more")
    (run / "exit.json").unlink()
    store.push_files(run, soon=True)
    fresh.mkdir()
    (fresh / "result.json").write_text("mine")
    again = Store(url, RUN)
    again.pull_files(fresh)
    assert {path.name: path.read_text() for path in fresh.iterdir()} == {"result.json": "mine", "metrics.jsonl": "more"}
    assert (
        again.holds("shown/samples.png")
        and again.holds("export/export.json")
        and again.holds("export/saved_model/x")
        and not again.holds("other.txt")
    )


def test_archive(url, tmp_path):
    store = Store(url, RUN)
    store.committed(write(tmp_path / "here", 10))
    (tmp_path / "result.json").write_text("{}")
    store.push(tmp_path)
    store.archive()
    assert not store.holds("result.json") and store.holds("previous-001/result.json")
    assert Store(url, RUN).pull(tmp_path / "fresh") is None
    store.committed(write(tmp_path / "second", 5))
    store.archive()
    assert store.holds(f"previous-002/checkpoints/{step(5)}/manifest.json")
    assert store.holds(f"previous-001/checkpoints/{step(10)}/manifest.json")


# -- a run to look at


def trained(url: str, here: Path, *numbers: int, best: int) -> str:
    """The URL of a run that holds these steps."""
    for number in numbers:
        write(here, number, best=best, text=here.name)
        (here / "config.yaml").write_text(f"# {here.name}\n")
        Store(url, RUN).committed(here / "checkpoints" / step(number))
    return f"{url}/{RUN}"


@pytest.mark.parametrize(("which", "brought"), [("last", [30]), ("best", [10]), (20, [20]), (None, [])], ids=str)
def test_of_a_run_to_look_at_no_more_is_brought_than_is_looked_at(url, tmp_path, which, brought):
    stored = trained(url, tmp_path / "here", 10, 20, 30, best=10)
    if which == 20:  # which is neither new nor good, and so isn't kept
        Store(url, RUN, keep=3).committed(tmp_path / "here" / "checkpoints" / step(20))
    folder = run_folder(stored, which, root=tmp_path / "runs")
    assert folder.is_relative_to(tmp_path / "runs" / "stored") and folder.parts[-2:] == tuple(RUN.split("/"))
    assert (folder / "config.yaml").read_text() == "# here\n"
    checkpoints = folder / "checkpoints"
    assert (names(checkpoints) if checkpoints.exists() else []) == [step(number) for number in brought]
    assert all(is_whole(checkpoints / step(number)) for number in brought)
    before = {file: file.stat().st_mtime_ns for file in checkpoints.rglob("*")}
    assert run_folder(stored + "/", which, root=tmp_path / "runs") == folder
    assert before == {file: file.stat().st_mtime_ns for file in checkpoints.rglob("*")}  # not fetched again


def test_what_is_looked_at_is_what_the_store_holds_now(url, tmp_path):
    stored = trained(url, tmp_path / "first", 10, 30, best=30)
    folder = run_folder(stored, "last", root=tmp_path / "runs")
    assert names(folder / "checkpoints") == [step(30)]
    Store(url, RUN).archive()  # it was told to start at zero
    assert trained(url, tmp_path / "second", 10, best=10) == stored
    with pytest.raises(CheckpointUnusable, match="no checkpoint of step 30"):
        run_folder(stored, 30, root=tmp_path / "runs")
    run_folder(stored, "last", root=tmp_path / "runs")
    assert names(folder / "checkpoints") == [step(10)]
    assert (folder / "config.yaml").read_text() == "# second\n"
    Store(url, RUN).archive()
    trained(url, tmp_path / "third", 10, best=10)  # of the same step, and another
    run_folder(stored, "best", root=tmp_path / "runs")
    data = folder / "checkpoints" / step(10) / "state.data-00000-of-00001"
    assert data.read_bytes().startswith(b"third 10 ")


def test_runs_of_one_name_in_two_places_are_two(tmp_path):
    one, other = (trained(f"file://{tmp_path}/{name}", tmp_path / name, 10, best=10) for name in ("one", "other"))
    folders = {run_folder(stored, "last", root=tmp_path / "runs") for stored in (one, other)}
    assert len(folders) == 2


def test_a_step_that_a_store_does_not_hold(url, tmp_path):
    with pytest.raises(CheckpointUnusable, match="no checkpoint of step 11") as caught:
        run_folder(trained(url, tmp_path / "here", 10, 20, best=10), 11, root=tmp_path / "runs")
    assert "20, 10" in caught.value.fix


def test_a_damaged_step_is_refused_and_a_damaged_best_one_passed_over(s3, tmp_path, messages):
    stored = trained(f"s3://{BUCKET}/runs", tmp_path / "here", 10, 20, best=10)
    s3.flip(data_of(10))
    with pytest.raises(CheckpointUnusable, match="checksum") as caught:
        run_folder(stored, 10, root=tmp_path / "runs")
    assert "resume" not in caught.value.fix
    folder = run_folder(stored, "best", root=tmp_path / "runs")
    assert names(folder / "checkpoints") == [step(20)]
    assert f"{step(10)} can't be used" in messages.text


def test_a_run_that_a_store_does_not_hold(url, tmp_path):
    with pytest.raises(DataMissing, match="no run at") as caught:
        run_folder(f"{url}/dense/absent", "best", root=tmp_path / "runs")
    assert caught.value.where == f"{url}/dense/absent" and "run.store" in caught.value.fix
    assert not (tmp_path / "runs").exists()


def test_a_store_that_refuses_and_one_that_is_away_are_not_taken_for_a_missing_run(s3, tmp_path, monkeypatch):
    stored = trained(f"s3://{BUCKET}/runs", tmp_path / "here", 10, best=10)
    s3.post("/moto-api/reset-auth", b"0")
    try:
        with pytest.raises(OutputError, match="refused"):
            run_folder(stored, "best", root=tmp_path / "runs")
    finally:
        s3.post("/moto-api/reset-auth", b"1000000")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(IOFailure):
            run_folder(stored, "best", root=tmp_path / "runs")


def test_a_full_disk_here_is_not_told_as_a_store_that_is_away(tmp_path):
    place, full = Access(f"file://{tmp_path}", "run"), Path("/dev/full")
    with (
        pytest.raises(IOFailure, match="can't be copied here: No space left") as caught,
        place.reaching("can't be read"),
    ):
        full.write_bytes(b"x")
    assert caught.value.fix == "free space, then run the same command again"
    with (
        pytest.raises(IOFailure, match="the store can't be written: .*No space left"),
        place.reaching("can't be written"),
    ):
        full.write_bytes(b"x")


def test_a_folder_that_cannot_be_written_is_told_as_such(s3, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OutputError, match="can't be written") as caught:
        run_folder(f"s3://{BUCKET}/runs/{RUN}", "best", root=tmp_path / "runs")
    assert caught.value.where == "run.dir"


@pytest.mark.parametrize("run", ["s3://bucket/run", "s3://bucket", "memory://run", "s3://key:hush@bucket"])
def test_an_url_that_names_no_run(run):
    with pytest.raises(UsageError) as caught:
        run_folder(run, "best")
    assert caught.value.where == "run.dir" and "hush" not in caught.value.line()


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert run_folder(str(tmp_path), "best") == run_folder(tmp_path, "best") == tmp_path


def test_a_manifest_that_names_files_elsewhere_is_refused(s3, tmp_path):
    Store(f"s3://{BUCKET}/runs", RUN).committed(write(tmp_path / "here", 10))
    manifest = {"step": 10, "memory": {}, "files": {"../../evil": {"bytes": 4, "sha256": "0"}}}
    s3.write(f"runs/{RUN}/checkpoints/{step(10)}/manifest.json", json.dumps(manifest).encode())
    s3.write(f"runs/{RUN}/evil", b"evil")
    with pytest.raises(SecurityRefused, match="evil"):
        Store(f"s3://{BUCKET}/runs", RUN).pull(tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists()


# -- what is refused at the start


@pytest.mark.parametrize(
    ("url", "error", "told"),
    [
        ("bucket/prefix", UsageError, "no URL"),
        ("s3://", UsageError, "no bucket"),
        ("s3:///prefix", UsageError, "no bucket"),
        ("gcs://bucket", UsageError, "unknown protocol 'gcs'.*did you mean 'gs'"),
        ("s3://bucket/a b", UsageError, "no URL"),
        ("s3://bucket/a?token=hush", UsageError, "no URL"),
        ("filecache::s3://bucket/a", UsageError, "no URL"),
        ("file://folder", UsageError, "not absolute"),
        ("s3://bucket/../other", SecurityRefused, "'..'"),
        ("file:///tmp/../etc", SecurityRefused, "'..'"),
        ("s3://bucket//a", SecurityRefused, "''"),
    ],
)
def test_bad_urls(url, error, told):
    with pytest.raises(error, match=told) as caught:
        check_url(url)
    assert caught.value.where == "run.store" and caught.value.fix


def test_credentials_in_the_url_are_refused_and_not_shown():
    with pytest.raises(UsageError) as caught:
        check_url("s3://AKIA123:hush/hush@bucket/prefix")
    assert "hush" not in caught.value.line() and "AKIA" not in caught.value.line()


@pytest.mark.parametrize("name", ["../other", "dense/../other", "dense//x", "dense/.."])
def test_names_that_wander_are_refused(name):
    with pytest.raises(SecurityRefused):
        Store("memory://x", name)


@pytest.mark.parametrize(("protocol", "extra"), [("s3", "tfscale[s3]"), ("gs", "tfscale[gcs]")])
def test_a_missing_package_names_the_extra(protocol, extra):
    code = "import sys; sys.modules['s3fs'] = sys.modules['gcsfs'] = None\n"
    code += "import importlib.util as u; found = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name in ('s3fs', 'gcsfs') else found(name, *a)\n"
    code += f"from tfscale.run_dir.store_access import check_url\ntry: check_url('{protocol}://bucket/x')\n"
    code += "except Exception as e: print(e.exit_code, e.line()); assert 'fsspec' not in sys.modules"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.startswith("64 ") and extra in told


def test_a_missing_bucket(s3, tmp_path):
    with pytest.raises(OutputError, match="not found") as caught:
        Store("s3://absent/runs", RUN).check()
    assert "s3://absent/runs" in caught.value.where
    Store(f"s3://{BUCKET}/runs", RUN).check()
    assert not s3.keys()  # nothing is left behind


def test_refused_credentials(s3):
    s3.post("/moto-api/reset-auth", b"0")
    try:
        with pytest.raises(OutputError, match="refused"):
            Store(f"s3://{BUCKET}/runs", RUN).check()
    finally:
        s3.post("/moto-api/reset-auth", b"1000000")


def test_no_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(OutputError, match="redentials"):
        Store(f"s3://{BUCKET}/runs", RUN).check()


@pytest.mark.parametrize(("call", "listens"), [("check", False), ("pull_files", True)], ids=["refuses", "is silent"])
def test_a_store_that_does_not_answer_is_told_soon(s3, monkeypatch, tmp_path, call, listens):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        if listens:
            mute.listen()  # the kernel takes connections; nobody answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        store, began = Store(f"s3://{BUCKET}/runs", RUN), time.monotonic()
        with pytest.raises(IOFailure) as caught:
            store.check() if call == "check" else store.pull_files(tmp_path)
        assert store.url in caught.value.where
        assert time.monotonic() - began < 10  # what the contract says


def test_a_store_that_goes_away_and_comes_back(s3, tmp_path):
    here, store = tmp_path / "here", Store(f"s3://{BUCKET}/runs", RUN)
    store.committed(write(here, 10))
    s3.stop()
    try:
        with pytest.raises(IOFailure, match="can't be written"):
            store.committed(write(here, 20))
    finally:
        s3.start()
    store.committed(write(here, 30))
    assert steps_in(s3) == [step(20), step(30)]
