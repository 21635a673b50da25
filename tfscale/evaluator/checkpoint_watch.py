"""The evaluator: a process beside the training that evaluates each of its checkpoints.

Owns the watch over the run folder, and writes the note that run_dir/evaluated.py reads. Refuses to train. It is a
cluster of its own: it joins no other process, and training neither waits for it nor ends with it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.data.prepare import prepare_apart
from tfscale.errors import RETRYABLE, Interrupted, TfscaleError, kind_of
from tfscale.files import dumps
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.preflight import finished_result
from tfscale.run_dir.evaluated import FRESH, NOTE, best_in, comparable, improved
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.result import Result
from tfscale.runtime import global_state as runtime

_log = logging.getLogger(__name__)

METRICS = "evaluator.jsonl"
_POLL = 1.0  # seconds between two looks at the folder


def follow(config: RunConfig, plan: ExecutionPlan, run_dir: RunDir) -> Result:
    """Evaluates every checkpoint that the training writes, until the training has ended and the last one is done.

    Returns:
        The training's result, with the metrics of its last checkpoint.

    Raises:
        TfscaleError: the training gave up; the error has its exit code.
    """
    run_dir.check_writable()
    run_dir.create()
    before = run_dir.read_json("exit.json")  # of an earlier attempt
    earlier = {} if config.resume.mode == "never" else run_dir.read_json(NOTE) or {}
    watch = _Watch(config, run_dir, earlier)
    with watch.noted():
        if not config.data.is_prepared():
            prepare_apart(config.data)
        with (
            runtime.applied(plan, seed=config.train.seed),
            contextlib.ExitStack() as open_things,
        ):
            work = _Work(config, plan, run_dir, open_things)
            while True:
                finished = watch.finished()  # read first: what is written afterwards is seen in the next round
                for step in watch.waiting():
                    watch.done(step, work.evaluate(step))
                if finished is not None:
                    return watch.complete(finished)
                _raise_failure(run_dir.read_json("exit.json"), before)
                time.sleep(_POLL)


def _raise_failure(left: dict[str, Any] | None, before: dict[str, Any] | None) -> None:
    """The training's own end with its own code, where running it again won't help."""
    if left is None or left == before or left.get("exit_code") in (*RETRYABLE, Interrupted.exit_code):
        return
    code = left.get("exit_code", 0)
    kind = kind_of(code if isinstance(code, int) else 0)
    raise kind(f"the training failed: {left.get('what')}", where=left.get("where", ""), fix=left.get("fix", ""))


class _Watch:
    """What is on disk and what of it was evaluated."""

    def __init__(self, config: RunConfig, run_dir: RunDir, earlier: dict[str, Any]):
        self.config, self.run_dir = config, run_dir
        self.evaluated = [step for step in earlier.get("evaluated", ()) if isinstance(step, int)]
        self.best, last = comparable(best_in(earlier), config), earlier.get("last")
        self.last: dict[str, float] = last if isinstance(last, dict) else {}
        self._stale = run_dir.read_json("result.json") if config.resume.mode == "never" else None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keeps the note fresh from a thread, since an evaluation may take long."""
        over = threading.Event()

        def refresh() -> None:
            while not over.wait(FRESH / 6):
                with contextlib.suppress(TfscaleError):
                    self._write(ended=False)

        self._write(ended=False)
        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._write(ended=True)

    def _write(self, *, ended: bool) -> None:
        with self._lock:
            known = {"best": self.best, "last": self.last}
            self.run_dir.write_json(NOTE, {"evaluated": self.evaluated, "ended": ended, **known})

    def waiting(self) -> list[int]:
        """Steps of checkpoints that were not evaluated yet, oldest first."""
        from tfscale.checkpoint import Checkpointer

        entries = Checkpointer(self.run_dir.checkpoints).entries()
        return [entry.step for entry in entries if entry.step not in self.evaluated]

    def done(self, step: int, metrics: dict[str, float] | None) -> None:
        self.evaluated.append(step)
        if metrics is not None:
            self.last = metrics
            self._compare(step, metrics)
            self.run_dir.append(METRICS, dumps({"step": step, "kind": "evaluator", **metrics}))
        self._write(ended=False)

    def _compare(self, step: int, metrics: dict[str, float]) -> None:
        value = metrics.get(self.config.checkpoint.metric)
        if value is not None:
            self.best = improved(self.config, self.best, step, value) or self.best

    def complete(self, finished: dict[str, Any]) -> Result:
        """The training's result with what it left to us, once it writes no more."""
        if not finished.get("metrics") and self.last:
            until = time.monotonic() + FRESH
            while not self.run_dir.is_free() and time.monotonic() < until:  # it may export, and write its result again
                time.sleep(_POLL)
            finished = {**(self.run_dir.read_json("result.json") or finished), "metrics": self.last}
            finished["best"] = self.best or finished.get("best")
            self.run_dir.write_json("result.json", finished)
        return Result.read({**finished, "metrics": self.last or finished.get("metrics", {})})

    def finished(self) -> dict[str, Any] | None:
        """result.json, once the training went as far as it was to."""
        if self._stale is not None and self._stale == self.run_dir.read_json("result.json"):
            return None  # the training is about to archive it
        return finished_result(self.config, self.run_dir)


class _Work:
    """The model, restored again for each checkpoint; built at the first one."""

    def __init__(self, config: RunConfig, plan: ExecutionPlan, run_dir: RunDir, open_things: Any):
        self.config, self.plan, self.run_dir = config, plan, run_dir
        self.open_things = open_things
        self.run: Any = None
        self.tracker: Any = None

    def evaluate(self, step: int) -> dict[str, float] | None:
        """The metrics of this checkpoint, or None where it is gone or damaged."""
        from tfscale.checkpoint import Checkpointer
        from tfscale.errors import CheckpointUnusable
        from tfscale.trained.restored_run import RestoredRun

        try:
            if self.run is None:
                self.run = RestoredRun.restore(self.run_dir.path, self.config, self.plan, step)
            else:
                Checkpointer(self.run_dir.checkpoints).restore_model(self.run.state, step)
        except CheckpointUnusable as error:
            _log.info(f"step {step}: not evaluated: {error.what}")
            return None
        split = self.config.eval.split
        metrics: dict[str, float] = self.run.evaluate(split)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        _log.info(f"step {step}  {split} (evaluator): {shown}")
        self._track(metrics, step)
        return metrics

    def _track(self, metrics: dict[str, float], step: int) -> None:
        """Into the training's own MLflow run, whose id is in the run folder once the chief has made it."""
        if self.tracker is None:
            if self.config.tracker is None or not (self.run_dir.path / "mlflow_run_id").exists():
                return
            path = self.run_dir.path
            self.tracker = self.config.tracker.open(run_dir=path, root=self.config.run.beside(path), name="")
            self.open_things.callback(self.tracker.close, "FINISHED")
        self.tracker.metrics({f"evaluator/{name}": value for name, value in metrics.items()}, step)
