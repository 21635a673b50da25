from __future__ import annotations

import select
import subprocess
import sys

import pytest

from tfscale.data import prepare
from tfscale.data.mnist import Mnist
from tfscale.data.prepare import prepare_apart
from tfscale.data.tfds import Tfds
from tfscale.errors import ClusterFault, DataMissing


@pytest.mark.cold
def test_a_child_prepares_the_data(tmp_path):
    source = Mnist(dir=str(tmp_path))
    assert not source.is_prepared()
    prepare_apart(source)
    assert source.is_prepared()
    assert source.num_examples("test") == 1000


def test_the_childs_error_is_the_parents(tmp_path):
    with pytest.raises(DataMissing, match="data.download=false") as error:
        prepare_apart(Tfds(dir=str(tmp_path), name="cifar10", download=False))
    assert error.value.where == "data.dir"


@pytest.mark.cold
def test_a_child_that_is_killed_is_said_to_be(tmp_path, monkeypatch):
    """A pod with too little memory; the child's last line on standard error would be TensorFlow's notice about CUDA."""
    monkeypatch.setattr(prepare, "_ENTRY", "import os, sys; print('no CUDA', file=sys.stderr); os.kill(os.getpid(), 9)")
    with pytest.raises(ClusterFault, match="was killed by SIGKILL, as the kernel does where memory runs out") as error:
        prepare_apart(Mnist(dir=str(tmp_path)))
    assert "memory" in error.value.fix


WRITER = """
import fcntl, sys, time
from pathlib import Path
def none(*_): raise OSError(38, "Function not implemented")
fcntl.flock = none
from tfscale.data.index_file import one_writer
with one_writer(Path(sys.argv[1]), "data"):
    print("in", flush=True)
    sys.stdin.readline()
    print("out", flush=True)
"""


def test_one_writer_at_a_time_also_without_locks_of_the_kernel(tmp_path):
    """As on some mounts of NFS, Lustre and FUSE."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    first, second = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(2)
    )
    ready, _, _ = select.select([first.stdout, second.stdout], [], [], 30)
    (holder,) = [one for one in (first, second) if one.stdout in ready]
    waiting = second if holder is first else first
    assert not select.select([waiting.stdout], [], [], 1.0)[0]
    assert holder.communicate("\n", timeout=30)[0].split() == ["in", "out"]
    assert "in" in waiting.communicate("\n", timeout=30)[0]
