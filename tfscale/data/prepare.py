"""Preparing data in a process of its own.

Writing a data set starts TensorFlow, whose threads and devices can then not be changed any more; the plan, which
decides them, wants to know the prepared data first. So the writer is a child, and the trainer starts afterwards.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys

from tfscale import errors
from tfscale.data.source import Source
from tfscale.process.startup import begin_program

_ENTRY = "import sys; from tfscale.data.prepare import child; sys.exit(child())"


def prepare_apart(source: Source) -> None:
    """Runs source.prepare() in a child process.

    Raises:
        TfscaleError: what the child raised.
    """
    if type(source).__module__ == "__main__":
        source.prepare()  # a class of a script or notebook can't be found by a child
        return
    done = subprocess.run(
        [sys.executable, "-c", _ENTRY],
        input=pickle.dumps(source),
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},  # looking for GPUs takes time, and the trainer wants them
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        kind = getattr(errors, told.pop("class"))
    except (IndexError, ValueError, AttributeError, KeyError):
        if killed := errors.killed_by(done.returncode):
            raise errors.ClusterFault(
                f"the process that prepares the data was {killed}",
                where="data",
                fix="give it more memory (job.memory in a cluster), then run the same command again",
            ) from None
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise errors.InternalError(f"preparing the data failed: {tail[0][:300]}", where="data") from None
    raise kind(told["what"], where=told["where"], fix=told["fix"])


def child() -> int:
    """The child's whole work: a source on standard input, an error as JSON on standard output."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])  # blocked in our parent
    begin_program()
    source = pickle.load(sys.stdin.buffer)  # from our own parent, over our own pipe
    try:
        source.prepare()
    except errors.TfscaleError as error:
        print()
        print(json.dumps({"class": type(error).__name__, **error.as_dict()}))
        return error.exit_code
    return 0
