"""What is refused of a script: settings before it begins, and on several workers what none of them could do together.

Owns the lines to write instead. Refuses to run anything.
"""

from __future__ import annotations

import builtins
import inspect
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tfscale.cluster import Cluster
from tfscale.config.schema import ClusterSection, PlanConfig
from tfscale.config.settings_files import has_settings
from tfscale.errors import UsageError
from tfscale.hardware import probe
from tfscale.hooks.script_hooks import train_alone
from tfscale.keras_fit.arguments import ARGUMENTS
from tfscale.keras_fit.from_python import config_before_a_fit
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.runtime import global_state

_SILENCE = 600.0  # seconds
_log = logging.getLogger(__name__)


def first_plan(overrides: Sequence[str], cluster: Cluster) -> ExecutionPlan:
    """What can be planned before there is a model: devices and threads.

    Raises:
        UsageError: overrides that there aren't, or that the script itself decides.
    """
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0]
        if name in ARGUMENTS:
            fix = "use --run-dir DIR" if name == "run.dir" else "change it in the script"
            raise UsageError(f"{override!r} is an argument of fit, which the script gives", where="--override", fix=fix)
    forced = config_before_a_fit(overrides).plan if overrides or has_settings() else PlanConfig()
    if forced.dry_run:
        raise UsageError(
            "a script can't go on behind a fit that trains nothing", where="plan.dry_run", fix="leave it away"
        )
    return make_plan(probe(), cluster, PlanRequest(global_batch=32, forced=forced, uneven=True))


def cluster_settings(overrides: Sequence[str]) -> ClusterSection:
    """How long the workers of a script wait for each other.

    Between fits a script may hold Python's lock for a while, in which it sends no heartbeat: it counts as silent late,
    unless an override says otherwise. A killed one is noticed at once.
    """
    if not (overrides or has_settings()):
        return ClusterSection(silence=_SILENCE)
    return config_before_a_fit([f"cluster.silence={_SILENCE}", *overrides]).cluster


def refuse_alone(is_ours: Callable[[], bool]) -> None:
    """From here on what would train on each of several workers for itself, or ask a person, is refused where the script
    does it; what it tells TensorFlow about devices, which are at work, is passed by and said.

    Args:
        is_ours: whether a fit of ours is at work.
    """
    import tensorflow as tf

    def typed(*_: Any) -> NoReturn:
        raise UsageError(
            "input() waits for a person, and this script runs on several workers",
            where="input",
            fix="take it from the command line (sys.argv), or run the script on one worker",
        )

    builtins.input = typed

    def refuse(call: Callable[..., Any], what: str, instead: str) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if is_ours():
                return call(*args, **kwargs)
            raise UsageError(
                f"{what} would train on each worker for itself, and not together", where="script", fix=instead
            )

        return guarded

    train_alone(refuse)
    kinds = ("MirroredStrategy", "MultiWorkerMirroredStrategy", "OneDeviceStrategy", "TPUStrategy")
    for kind in (*kinds, "ParameterServerStrategy"):
        cls = getattr(tf.distribute, kind)
        cls.__init__ = _refused_strategy(kind, cls.__init__)
    config = tf.config
    for owner, name in (
        (config.threading, "set_intra_op_parallelism_threads"),
        (config.threading, "set_inter_op_parallelism_threads"),
        (config, "set_visible_devices"),
        (config, "set_logical_device_configuration"),
        (config.experimental, "set_memory_growth"),
    ):
        setattr(owner, name, _passed_by(getattr(owner, name), name))


def refuse_backend() -> None:
    """Raises UsageError where the script asks for another backend than the one that it has got."""
    asked = os.environ.get("KERAS_BACKEND", "tensorflow")
    if asked != "tensorflow":
        raise UsageError(
            f"the script sets KERAS_BACKEND={asked}, and several workers train on TensorFlow",
            where="KERAS_BACKEND",
            fix="delete that line",
        )


def without_fits(program: str) -> UsageError:
    """What a script that has trained nothing together ends with."""
    return UsageError(
        f"no fit of {program} was tfscale's, so that its workers have done the same, each for itself",
        where="script",
        fix="train by model.fit of Keras on TensorFlow, or run the script on one worker",
    )


def _refused_strategy(kind: str, own: Callable[..., None]) -> Callable[..., None]:
    def refuse(*args: Any, **kwargs: Any) -> None:
        caller = inspect.currentframe()
        assert caller is not None and caller.f_back is not None
        if caller.f_back.f_code.co_filename == global_state.__file__:
            return own(*args, **kwargs)
        raise UsageError(
            f"the script makes a {kind} of its own, and its workers have joined under one already",
            where="script",
            fix="delete the strategy and its scope(): fit places the model on all workers",
        )

    return refuse


def _passed_by(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except (RuntimeError, ValueError):
            _log.warning(f"{name} is passed by: TensorFlow is at work, with the threads and devices of the plan")

    return guarded
