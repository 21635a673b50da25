"""RestoredRun: a trained run opened again, to evaluate, predict and export.

Owns how a run folder becomes configuration, data, task and model again, on this machine and with other data where
asked. Refuses to train, and changes nothing in the run's checkpoints.

    with RestoredRun.open("runs/resnet/563a34baa8", checkpoint="best") as run:
        run.evaluate("test")     # {"loss": ..., "accuracy": ...}
        run.batches("test")      # a dataset of what task.predict takes
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.composition.hydra_compose import compose_run
from tfscale.config.schema import RunConfig, Strategy, validate
from tfscale.config.unused_settings import refuse_training
from tfscale.console.messages import shown
from tfscale.data.as_recorded import SPEC, read_as, recorded_reading
from tfscale.data.prepare import prepare_apart
from tfscale.data.source import READING, Source
from tfscale.errors import DataMissing, TfscaleError, UsageError, first_line
from tfscale.files import read_json
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.preflight import plan_run, refuse_what_cannot_run
from tfscale.run_dir.evaluated import best_step
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.store_copy import run_folder
from tfscale.runtime import global_state as runtime
from tfscale.task import Task
from tfscale.tracking.model_address import is_address

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.checkpoint import Entry
    from tfscale.state.train_state import TrainState

_log = logging.getLogger(__name__)

_CLASSES = "classes.json"  # what a run wrote, besides SPEC, about the data that it was trained on


@dataclass
class RestoredRun:
    """The parts of a trained run.

    Attributes:
        folder: of the run, here.
        config: as composed again; its data are those to look at now.
        task: with the fields that the training data filled in.
        state: the restored model, step and memory; its optimizer is a stand-in that was never built.
        checkpoint: the one restored, with the identity of the experiment.
        class_names: in order of the label, as the run was trained, where known.
    """

    folder: Path
    config: RunConfig
    plan: ExecutionPlan
    strategy: tf.distribute.Strategy
    task: Task
    state: TrainState
    checkpoint: Entry
    class_names: tuple[str, ...] | None

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        run_dir: str | Path,
        overrides: Sequence[str] = (),
        *,
        checkpoint: str | int = "best",
        data: Any = None,
        unlabelled: str | Callable[[RunConfig], Source] | None = None,
        config_dir: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Iterator[RestoredRun]:
        """Composes, plans, restores; TensorFlow's policy is the run's while the context is open.

        Args:
            run_dir: its folder, its URL in a store, or models:/NAME@ALIAS, see `store_copy.run_folder`.
            overrides: as for training; data=... replaces the run's data as a whole.
            checkpoint: "best", "last" or a step.
            data: in place of the run's data: a tfscale.Source, arrays or a tf.data.Dataset as for `tfscale.fit`, also
                (x,) without labels to predict. They are both splits.
            unlabelled: a path whose examples take the place of the data, or what makes a source of the configuration,
                whose task knows already what the training's data told.
            config_dir: a folder of the user's own groups.

        Raises:
            DataMissing: the run, the data or the path is missing.
            CheckpointUnusable: no checkpoint, or not this one.
            UsageError, SecurityRefused: bad overrides.
            OutputError, IOFailure: the store can't be reached.
        """
        folder = run_folder(run_dir, checkpoint)
        checkpoint = "last" if is_address(run_dir) and checkpoint == "best" else checkpoint  # its only one
        config = _configure(folder, overrides, unlabelled, config_dir, _source(data))
        if not config.data.is_prepared():
            prepare_apart(config.data)
        plan = plan_run(config, environ=environ)
        refuse_what_cannot_run(config, plan)
        with shown(config.log.format), runtime.applied(plan, seed=config.train.seed):
            if config.settings.sets:  # seldom: the folder says all else
                config.settings.report(_log)
            yield cls.restore(folder, config, plan, checkpoint)

    @classmethod
    def restore(cls, run_dir: Path, config: RunConfig, plan: ExecutionPlan, which: str | int) -> RestoredRun:
        """Builds the model and restores it; call it inside `runtime.applied`.

        Raises:
            CheckpointUnusable: no checkpoint, or not this one.
        """
        from tfscale.assembly.assembled import assemble_to_look_at
        from tfscale.checkpoint import Checkpointer

        strategy = runtime.build_strategy(plan)
        config.data.prepare()
        split = "train" if config.data.num_examples("train") else "test"
        task, state = assemble_to_look_at(config, strategy, split=split)
        best = best_step(RunDir(run_dir), config)
        entry = Checkpointer(run_dir / "checkpoints").restore_model(state, which, evaluated_best=best)
        names = _class_names(run_dir) or config.data.class_names()
        return cls(run_dir, config, plan, strategy, task, state, entry, tuple(names) if names else None)

    @property
    def source(self) -> Source:
        return self.config.data

    @property
    def global_batch(self) -> int:
        """How many examples are evaluated or predicted at once: as many on each replica."""
        batch = self.config.eval.global_batch or self.config.train.global_batch
        return batch + -batch % self.plan.num_replicas

    def num_examples(self, split: str) -> int:
        """Raises DataMissing for an empty split."""
        count = self.source.count_examples(split)
        if not count:
            raise DataMissing(
                f"the data have no {split} split",
                where="data",
                fix="choose another split, or other data with data=",
            )
        return count

    def batches(self, split: str, *, start_step: int = 0) -> tf.data.Dataset:
        """Every example of a split once, in order, from a step on; the last step is filled up with weight 0."""
        from tfscale.data.order import Portion, Shard
        from tfscale.data.pipeline import build_dataset

        seed, shard = self.config.train.seed, Shard(self.global_batch)
        portion = Portion(split, shard, training=False, seed=seed, start_step=start_step)
        return build_dataset(self.source, self.task, portion, self.plan)

    def evaluate(self, split: str | None = None) -> dict[str, float]:
        """Loss and metrics over a split, eval.split where none is named; with eval.beside_ema those of the weights
        themselves beside those of their averages.

        Raises:
            UsageError: the data lack a field that the task's loss takes, or no averages were kept.
        """
        if not self.config.eval.beside_ema:
            return self._evaluated(split)
        if self.config.train.ema is None:
            raise UsageError(
                "the run kept no averages of its weights beside which to evaluate them",
                where="eval.beside_ema",
                fix="leave it away, or train with train.ema=0.999",
            )
        from tfscale.checkpoint import Checkpointer

        averaged, checkpoints = self._evaluated(split), Checkpointer(self.folder / "checkpoints")
        checkpoints.restore_model(self.state, self.state.step, averaged=False)
        try:
            return self.state.beside(averaged, self._evaluated(split))
        finally:
            checkpoints.restore_model(self.state, self.state.step)

    def _evaluated(self, split: str | None) -> dict[str, float]:
        from tfscale.assembly.assembled import evaluates_as_fit, evaluation_steps
        from tfscale.data.order import Portion, Shard
        from tfscale.data.pipeline import build_dataset

        split = split or self.config.eval.split
        self.num_examples(split)
        batch = self.config.eval.global_batch or self.config.train.global_batch
        batch, steps = evaluation_steps(self.source, self.task, split, batch, self.plan.num_replicas)
        as_fit = evaluates_as_fit(self.source, self.task)
        portion = Portion(split, Shard(batch), training=False, seed=self.config.train.seed, as_fit=as_fit)

        def build(_: Any) -> tf.data.Dataset:
            return build_dataset(self.source, self.task, portion, self.plan)

        with self.data_errors_named():
            batches = self.strategy.distribute_datasets_from_function(build)
            return self._evaluator.evaluate(batches, steps)

    @functools.cached_property
    def _evaluator(self) -> Any:
        from tfscale.engine.evaluation import Evaluator

        return Evaluator(self.task, self.state, self.strategy, self.plan)

    @contextlib.contextmanager
    def data_errors_named(self) -> Iterator[None]:
        """What goes wrong inside because of the data, said as such: UsageError for a missing field, DataCorrupt,
        DataMissing."""
        from tfscale.data.culprit import as_data_fault

        try:
            yield
        except TfscaleError:
            raise
        except Exception as error:
            if isinstance(error, OSError):  # of Python that reads them
                what = f"the data can't be read: {error.strerror or error}"
                raise DataMissing(what, where=str(error.filename or "data"), fix="mend or put it back") from error
            told = first_line(error)  # TensorFlow wraps a KeyError inside a graph and leaves its text
            if isinstance(error, KeyError) or told.startswith("KeyError"):
                raise UsageError(
                    f"the data lack a field that {type(self.task).__name__} takes: {told.removeprefix('KeyError: ')}",
                    where="data",
                    fix="use data with this field; python -m tfscale.predict needs no labels",
                ) from error
            raise (as_data_fault(error) or error) from error.__cause__


def _source(data: Any) -> Source | None:
    """What people gave as the data to look at; both splits, since none is trained on."""
    if data is None or isinstance(data, Source):
        return data
    from tfscale.data.given import as_source

    return as_source(data, data, steps_per_epoch=None)


def _configure(
    run_dir: Path,
    overrides: Sequence[str],
    unlabelled: str | Callable[[RunConfig], Source] | None,
    config_dir: str | None,
    data: Source | None,
) -> RunConfig:
    """The run's configuration with the data to look at now, the task filled in from the data of the training."""
    config = compose_run(run_dir, overrides, config_dir=config_dir, data=data)
    validate(config)
    refuse_training(config.overridden)
    _keep_labels(config.data, run_dir)
    others = [o for o in overrides if not o.lstrip("+~").startswith(("data=", "data."))]
    own = data is None and len(others) == len(overrides)
    reading = recorded_reading(RunDir(run_dir)) or READING
    config.data = read_as(config.data, config.task, reading, only_task=not own)
    spec = read_json(run_dir / SPEC)
    if not isinstance(spec, dict):
        trained_on = config.data if own else _trained_on(run_dir, others, config_dir)
        _keep_labels(trained_on, run_dir)
        spec = trained_on.spec()
    config.task = config.task.for_data(spec)
    if unlabelled is not None:
        config.data = unlabelled_at(config, unlabelled) if isinstance(unlabelled, str) else unlabelled(config)
    config.task.check()
    config.data.check()
    if not any(o.lstrip("+").startswith("plan.strategy=") for o in overrides):
        config.plan.strategy = Strategy.one_device
    return config


def _trained_on(run_dir: Path, overrides: Sequence[str], config_dir: str | None) -> Source:
    return compose_run(run_dir, overrides, config_dir=config_dir).data


def _keep_labels(source: Source, run_dir: Path) -> None:
    """Classes found anew in other data could be numbered otherwise than those that the model knows."""
    names = _class_names(run_dir)
    if names and getattr(source, "classes", ()) is None:
        source.classes = names  # type: ignore[attr-defined]
    if names and hasattr(source, "known_classes"):
        source.known_classes = tuple(names)


def _class_names(run_dir: Path) -> list[str] | None:
    names = read_json(run_dir / _CLASSES)
    return [str(name) for name in names] if isinstance(names, list) else None


def unlabelled_at(config: RunConfig, path: str) -> Source:
    """What reads the examples at a path: pictures in a folder, or whatever the run's own kind of data makes of it."""
    if not Path(path).exists():
        raise DataMissing(f"there is nothing at {path}", where="input", fix="give input=PATH of what to predict")
    if Path(path).is_dir():
        from tfscale.data.image_folder import ImageFolder

        if isinstance(config.data, ImageFolder):
            return config.data.unlabelled(path)
        channels = getattr(config.task, "channels", None) or ImageFolder.channels
        return ImageFolder(dir=getattr(config.data, "dir", ImageFolder.dir), channels=channels).unlabelled(path)
    return config.data.unlabelled(path)
