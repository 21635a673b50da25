"""The step on a GPU, in bfloat16: `tfscale.fit` beside Keras's fit and PyTorch compiled.

    make bench-gpu TORCH=/path/of/python      # an interpreter whose PyTorch computes on this GPU

Beside the step: the seconds that the first 20 steps take, compilation included, and the peak of the GPU's memory. The
models are those of step.py in sizes for a GPU; `--quick` trains their small sizes on whatever is there.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import step_limit
from benchmarks.asking import Asking, NotAsked
from benchmarks.input import peers_python
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.side_by_side import Contestant, Question, Work
from benchmarks.step import POLICIES, prepared_weights, unequal
from benchmarks.step_models import GPU, QUICK, STEPS, kind_of, spec
from tfscale.hardware import probe

OURS, AGAIN, WRITTEN, TORCH = "ours", "ours again", "keras as written", "torch compiled"
_BFLOAT16 = POLICIES["bfloat16"]


def ours(name: str, scratch: str) -> Work:
    from benchmarks import step_keras

    return _by_tensorflow(lambda: step_keras.ours(name, scratch, _BFLOAT16))


def keras(name: str) -> Work:
    from benchmarks import step_keras

    return _by_tensorflow(lambda: step_keras.keras_fit(name, _BFLOAT16, "written"))


def torch(name: str, weights: str) -> Work:
    """Raises RuntimeError: this PyTorch sees no GPU."""
    import torch as library

    from benchmarks import step_torch

    if not library.cuda.is_available():
        raise RuntimeError("this PyTorch sees no GPU: give --torch PYTHON, an interpreter whose PyTorch does")
    begun = time.perf_counter()
    work = step_torch.work(name, weights, "bfloat16", "compiled", "cuda")
    return _told(work, time.perf_counter() - begun, library.cuda.max_memory_allocated())


def _by_tensorflow(made: Callable[[], Work]) -> Work:
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # read at the import: contestants share the GPU's memory
    import tensorflow as tf

    begun = time.perf_counter()
    work = made()
    seconds = time.perf_counter() - begun
    gpus = tf.config.list_physical_devices("GPU")
    return _told(work, seconds, tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else None)


def _told(work: Work, seconds: float, peak: int | None) -> Work:
    """The work, which says what it needed until its first steps were done."""
    memory = f", {peak / 2**30:.1f} GiB of the GPU at most" if peak else ""
    how = f"{work.facts['how']}; {seconds:.0f} s until {STEPS} steps were done{memory}"
    facts = {**work.facts, "how": how, "begun_seconds": seconds, "peak_gpu_bytes": peak}
    return dataclasses.replace(work, facts=facts)


def question(name: str, weights: Path, python: Path | None, flops: int | None) -> Question:
    """Args: as `step.question`."""
    scratch, found = str(weights.parent), spec(name)
    here = "benchmarks.step_gpu"
    contestants = [Contestant(one, f"{here}:ours", (name, scratch)) for one in (OURS, AGAIN)]
    contestants.append(Contestant(WRITTEN, f"{here}:keras", (name,)))
    if python:
        contestants.append(Contestant(TORCH, f"{here}:torch", (name, str(weights)), python=str(python)))
    if flops:
        limit = f"{step_limit.NAME} bfloat16"
        contestants.append(Contestant(limit, "benchmarks.step_limit:work", (name, str(flops), "bfloat16")))
    sizes = ", ".join(f"{key} {value}" for key, value in found.sizes.items())
    notes = (f"Equal model ({sizes}), first weights, data in the host's memory, and {found.optimizer}; in bfloat16.",)
    title = f"{kind_of(name)} on a GPU, batch {found.batch}"
    return Question(title, "examples/s", tuple(contestants), (), (AGAIN, OURS), OURS, found.batch, notes)


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked, ContestantFailed."""
    if not asking.quick and not probe().gpus:
        raise NotAsked("it needs a GPU; --quick shows on any machine that it runs")
    name = part + (QUICK if asking.quick else GPU)
    python = None if asking.quick else asking.torch or peers_python(asking.say)
    with tempfile.TemporaryDirectory() as scratch:
        weights, flops = prepared_weights(name, Path(scratch), needed=not asking.quick)
        found = asking.measure(question(name, weights, python, flops))
    wrong = unequal(found.facts, spec(name).tolerance, flops, reference=WRITTEN)
    pairs = [(OURS, peer) for peer in (WRITTEN, TORCH)]
    limits = [one for one in found.facts if one.startswith(step_limit.NAME)]
    return [of_measured(f"gpu:{part}", found, pairs=pairs, limits=limits, unequal=wrong)]
