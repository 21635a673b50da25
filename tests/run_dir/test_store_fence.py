"""Two machines with one store: who may write there, who is refused, and who follows a dead holder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.s3_server import BUCKET
from support.tiny_run import fit_tiny

from tfscale.console.messages import received
from tfscale.errors import ClusterFault, OutputError
from tfscale.run_dir.manifest import MANIFEST
from tfscale.run_dir.store_access import Access
from tfscale.run_dir.store_fence import OBJECT, fenced

RUN = "dense/it"
QUICK = (1.0, 0.2)  # seconds of a lease, and between two renewals


@pytest.fixture
def host(s3, tmp_path):
    """Opens the store's fence as from a machine of this name, whose run folder is its own."""

    def host(name: str, *, job: str = "", folder: Path | None = None, **options):
        folder = folder or tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        options = {"times": QUICK, **options}
        return fenced(Access(f"s3://{BUCKET}/runs", RUN), folder, job=job or name, **options)

    return host


def killed(fence) -> None:
    """Ends the holder as a kill does: it renews no more, and releases nothing."""
    fence._over.set()
    fence._thread.join()
    fence.release = lambda: None


def test_another_run_is_refused_while_the_first_lives(host, s3):
    with host("one") as first:
        with pytest.raises(OutputError, match="another run holds s3://bucket/runs/dense/it") as caught, host("two"):
            pass
        assert caught.value.exit_code == 73
        first.check()
        with pytest.raises(OutputError), host("two", patient=False):
            pass
    with host("two") as second:  # which was released
        assert not second.waited


def test_an_attempt_of_the_same_job_is_not_refused_as_a_stranger(host):
    """Its earlier attempt, on a machine that is cut off, may live on: the code is one that is tried again."""
    with (
        host("one", job="a"),
        pytest.raises(ClusterFault, match="an earlier attempt of this job"),
        host("two", job="a"),
    ):
        pass


def test_a_dead_holder_is_followed_and_what_it_still_does_is_refused(host, s3):
    said: list[str] = []
    with host("one") as first:
        killed(first)
        began = time.monotonic()
        with received(said.append), host("two") as second:
            assert second.waited and QUICK[0] < time.monotonic() - began < 10
            assert len(said) == 1 and "waiting for s3://" in said[0]
            with pytest.raises(ClusterFault, match="has taken over"):
                first.check()
            second.check()


def test_the_next_attempt_in_the_same_folder_waits_for_nobody(host, tmp_path):
    with host("one") as first:
        killed(first)
        with host("again", folder=tmp_path / "one", times=(60.0, 20.0)) as second:
            assert not second.waited
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "one", copy)
    with host("one"), pytest.raises(OutputError), host("copy", folder=copy):
        pass


def test_of_many_that_follow_exactly_one_wins(host, s3):
    won: list[str] = []
    hold = threading.Event()

    def follow(name: str) -> None:
        try:
            with host(name, times=(2.0, 2.0)) as fence:
                won.append(name)
                hold.wait(20)
                fence.check()
        except OutputError:
            pass

    with host("dead") as dead:
        killed(dead)
        threads = [threading.Thread(target=follow, args=(f"host{i}",)) for i in range(3)]
        for thread in threads:
            thread.start()
        while sum(thread.is_alive() for thread in threads) > 1:  # until all others have given up
            time.sleep(0.1)
        hold.set()
        for thread in threads:
            thread.join()
    assert len(won) == 1 and not s3.keys(f"runs/{RUN}/{OBJECT}")


def test_a_process_of_this_machine_that_is_gone_is_followed_at_once(host, s3, tmp_path):
    program = "import os, sys\nfrom pathlib import Path\nfrom tfscale.run_dir.store_access import Access\n"
    program += "from tfscale.run_dir.store_fence import fenced\n"
    program += "with fenced(Access(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), job='dead'):\n    os._exit(0)"
    (tmp_path / "dead").mkdir()
    subprocess.run([sys.executable, "-c", program, f"s3://{BUCKET}/runs", RUN, str(tmp_path / "dead")], check=True)
    assert s3.keys(f"runs/{RUN}/{OBJECT}")
    with host("one", times=(60.0, 20.0)) as fence:
        assert not fence.waited


def test_an_object_that_somebody_removed_is_made_anew(host, s3):
    with host("one") as first:
        s3.client.delete_object(Bucket=BUCKET, Key=f"runs/{RUN}/{OBJECT}")
        first.check()
        assert json.loads(s3.read(f"runs/{RUN}/{OBJECT}"))["job"] == "one"
        s3.write(f"runs/{RUN}/{OBJECT}", b"torn")
        with pytest.raises(ClusterFault):
            first.check()


def test_a_store_that_knows_no_conditions(tmp_path):
    """The last writer wins, and whoever took it looks again."""
    for index in range(2):
        with fenced(Access("memory://any", RUN), tmp_path, job="one", times=QUICK) as fence:
            fence.check()
            with (
                pytest.raises(OutputError),
                fenced(Access("memory://any", RUN), tmp_path / str(index), job="two", times=QUICK),
            ):
                pass
        assert not fence.waited
    (tmp_path / "x").mkdir()
    with fenced(Access("memory://any", RUN), tmp_path, job="one", times=QUICK) as first:
        killed(first)
        with fenced(Access("memory://any", RUN), tmp_path / "x", job="two", times=QUICK) as second:
            second.check()
            with pytest.raises(ClusterFault):
                first.check()


# -- runs


def store_of(url: str) -> dict:
    return {"run": {"store": url, "name": "it"}}


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_a_run_that_lost_its_store_changes_nothing_there(tf, kind, tmp_path, request, monkeypatch):
    """It was stopped for longer than its lease: its next checkpoint isn't copied, and the run ends with 138."""
    if kind == "s3":
        request.getfixturevalue("s3")
    url = f"s3://{BUCKET}/runs" if kind == "s3" else f"file://{tmp_path}/store"
    from tfscale.run_dir.store import Store

    committed, taken = Store.committed, []

    def stopped(store, checkpoint):
        """Another run takes the store at the second checkpoint."""
        if checkpoint.name.endswith("20"):
            path = f"{store._root}/{OBJECT if kind == 's3' else '.lock'}"
            store._fs.pipe_file(path, json.dumps({"token": "another's"}).encode())
            taken.append(sorted(store._fs.find(store._root)))
        return committed(store, checkpoint)

    monkeypatch.setattr(Store, "committed", stopped)
    with pytest.raises(ClusterFault) as caught:
        fit_tiny(tmp_path, **store_of(url))
    assert caught.value.exit_code == 138
    found = sorted(Access(url, "tiny/it").fs.find(Access(url, "tiny/it").root))
    assert found == taken[0] and sum(MANIFEST in path for path in found) == 1
