"""One attempt of a run: from a typed configuration to a trained model. The file to read first, top to bottom.

facts -> plan -> parts -> engine, and the run folder that remembers it all. A run is these steps, and nothing else:

1. what was given is checked, as far as that needs no TensorFlow: `fit_config`, `_fit`
2. facts: which processes take part, what this machine is; from them the plan: `_fit`
3. a dry run, an evaluator and a run that is complete already go no further: `_fit`
4. the run folder, and the store, are held against all others: `_fit`
5. whatever happens now stands in the attempt log and in exit.json: `_attempt`
6. data are prepared, and what an earlier attempt left is looked at: `_train`, `_look_back`
7. all processes meet, and compare their plans: `_train`
8. TensorFlow starts, and the strategy is built: session.py, `run_session`
9. task, state, trainer and checkpointer are built, and the state is restored: `Session.build`, `Session.restore`
10. the compiled loop, with actions in between: `Session.train`
11. the last state is saved, exported, and its result written: finish.py
12. processes leave together, and what is held is let go
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config.schema import Explain, RunConfig, validate
from tfscale.config.unused_settings import refuse_ignored
from tfscale.console import lenient, written
from tfscale.console.messages import RESULT, at_least, bare, of_process, shown
from tfscale.data.as_recorded import go_on_as_recorded
from tfscale.data.contents import check_contents
from tfscale.data.found import refuse_too_few, with_found
from tfscale.data.prepare import prepare_apart
from tfscale.errors import ClusterFault, Interrupted, OutputError, Preempted, TfscaleError, foreseen
from tfscale.keras_fit.callbacks import Callbacks
from tfscale.measures.counted import counted_plan
from tfscale.peers.of_run import joined
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.preflight import (
    finished_result,
    import_code,
    locate,
    named_as_before,
    open_store,
    plan_run,
    refuse_early,
    refuse_moved,
    refuse_what_cannot_run,
    rehearse,
    whereabouts,
)
from tfscale.process import fault_points as faults
from tfscale.process.maintenance import watched
from tfscale.process.stopping import Stopping
from tfscale.run.context import RunContext
from tfscale.run_dir.attempts import Attempts
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.result import Result
from tfscale.run_dir.store import Store, hold
from tfscale.tracking.train_job import NoStatus, open_status
from tfscale.trained.warm_start import check_place

_log = logging.getLogger(__name__)


def fit_config(
    config: RunConfig,
    *,
    environ: Mapping[str, str] | None = None,
    stopping: Stopping | None = None,
    callbacks: Callbacks | None = None,
) -> Result:
    """`fit` from a configuration, see api.py.

    Args:
        stopping: hears signals already; None hears them meanwhile.
        callbacks: Keras's, of a fit in Python.
    """
    began = time.monotonic()
    environ = os.environ if environ is None else environ
    if stopping is None:
        with Stopping().listening() as stopping:
            return fit_config(config, environ=environ, stopping=stopping, callbacks=callbacks)
    with lenient(), shown(config.log.format), _left_if_refused(config, environ):
        validate(config)
        go_on_as_recorded(config, locate)
        stopping.grace = config.cluster.grace
        with watched(config.cluster.maintenance, on_notice=stopping.take_notice, environ=environ):
            return _fit(config, stopping, callbacks, environ=environ, began=began)


def _fit(
    config: RunConfig, stopping: Stopping, callbacks: Callbacks | None, *, environ: Mapping[str, str], began: float
) -> Result:
    # 1. What was given
    store = open_store(config)
    config.data.check()
    config.task.check()
    refuse_ignored(config)  # behind what is refused for security
    if config.init_from:
        check_place(config.init_from)
    # 2. Facts and the plan
    cluster = Cluster.resolve(environ)
    _introduce(config, cluster)
    plan, run_dir = plan_run(config, environ=environ), locate(config)
    refuse_moved(config, run_dir)
    run_dir.refuse_links()
    if store is None:
        run_dir.check_lasting(environ)
    # 3. Who goes no further
    if config.plan.dry_run:
        rehearse(config, plan, run_dir)
        with written():  # a plan is what a dry run is for
            _report_plan(config, counted_plan(config, plan, environ=environ), level=RESULT)
        return Result(status="planned", run_dir="")
    refuse_what_cannot_run(config, plan)
    if cluster.role == "evaluator":
        from tfscale.evaluator.checkpoint_watch import follow

        with stopping.as_request():
            return follow(config, plan, run_dir)
    if config.resume.mode == "auto":
        if store is not None:
            store = named_as_before(config, store)
            store.pull_files(run_dir.path)
            go_on_as_recorded(config, lambda _: run_dir)
        if finished := finished_result(config, run_dir):
            _report_finished(config, finished, run_dir, store, cluster)
            return Result.read(finished)
    if config.run.quiet:
        at_least(RESULT if callbacks is None else logging.WARNING)  # Keras's verbose=0
    if not cluster.is_chief:
        _log.info(whereabouts(cluster, run_dir))
        at_least(logging.WARNING)  # what the chief reports once
        run_dir = run_dir.for_reading()
    elif store is not None:
        store.check()
    # 4. The run folder is held
    run_dir.check_writable()
    import_code(config, plan, cluster)
    run_dir.create()
    owner = store if cluster.is_chief else None
    with run_dir.claimed(job=cluster.job) as claim, hold(owner, run_dir.path, cluster) as waited:
        if waited and (finished := _finished_meanwhile(config, run_dir, store)):
            _report_complete(finished, run_dir)
            return Result.read(finished)
        _clear(config, run_dir, store)
        attempts = Attempts(run_dir, began=began)
        around = (store, claim, attempts, stopping, environ, began, callbacks)
        return _attempt(RunContext(config, plan, cluster, run_dir, *around))


def _introduce(config: RunConfig, cluster: Cluster) -> None:
    """Whose messages follow, and what of the configuration is from settings files."""
    label = f"{cluster.role}:{cluster.index}"
    rank = cluster.index if cluster.role == "ps" else cluster.worker_index  # parameter servers count by themselves
    of_process(label, max(0, rank), is_one_of_many=bool(cluster.addresses))
    if not config.run.quiet:
        config.settings.report(_log)


def _report_plan(config: RunConfig, plan: ExecutionPlan, *, level: int) -> None:
    told = plan.explain() if config.plan.dry_run or config.plan.explain is Explain.full else plan.brief()
    _log.log(level, with_found(told, config.data), extra=bare("execution plan", plan=plan.to_dict()))
    if config.plan.dry_run and (config.plan.calibrate or config.plan.micro_batch):
        _log.info("what the plan is to measure is measured when the training begins")


def _clear(config: RunConfig, run_dir: RunDir, store: Store | None) -> None:
    """Takes away what an earlier attempt recorded of its end, and with resume.mode=never all that it left."""
    run_dir.remove("exit.json")
    if config.resume.mode == "never":
        run_dir.archive()
        if store is not None and run_dir.writes:
            store.archive()


def _finished_meanwhile(config: RunConfig, run_dir: RunDir, store: Store | None) -> dict[str, Any] | None:
    """The result of a run that another machine has gone on with until its hold on the store ended."""
    if store is None or config.resume.mode != "auto":
        return None
    store.pull_files(run_dir.path)
    return finished_result(config, run_dir)


def _report_complete(finished: Mapping[str, Any], run_dir: RunDir) -> None:
    _log.log(RESULT, f"already {finished['status']} at step {finished['step']}: {run_dir.path}")


def _report_finished(
    config: RunConfig,
    finished: Mapping[str, Any],
    run_dir: RunDir,
    store: Store | None,
    cluster: Cluster,
) -> None:
    """Reports it, and makes good what the end of the run may have owed."""
    _report_complete(finished, run_dir)
    if config.train.profile is not None:
        _log.info(f"train.profile={config.train.profile}: nothing is profiled, since no step is made")
    if config.tracker is not None and cluster.is_chief:
        config.tracker.deliver(run_dir=run_dir.path, root=config.run.beside(run_dir.path))
    if store is not None and cluster.is_chief:
        try:
            with hold(store, run_dir.path, cluster, patient=False):
                store.push(run_dir.path)
        except (OutputError, ClusterFault) as error:
            _log.info(f"{error.what}: what it lacks is not copied")
    exported = run_dir.read_json("export/export.json") is not None
    if config.export.at_end and not exported and not (store is not None and store.holds("export/export.json")):
        _log.info(f"its export is missing: tfscale export run.dir={run_dir.path} checkpoint=last")


def _attempt(context: RunContext) -> Result:
    """5. What stands in the log of the run's attempts, and what in exit.json."""
    attempts, run_dir, store = context.attempts, context.run_dir, context.store
    if last := attempts.last_end():
        _log.info(last)
    attempts.start()
    context.stopping.before_exit.append(context.leave)
    try:
        attempts.refuse_without_progress()
        if store is None:
            attempts.refuse_without_checkpoints()
        result = _train(context)
        attempts.ended(0)
        if store is not None and run_dir.writes:
            store.push(run_dir.path)
    except BaseException as error:
        context.leave(foreseen(error))
        if store is not None and run_dir.writes:
            with contextlib.suppress(TfscaleError):  # it must not hide the cause
                store.push_files(run_dir.path, soon=True)
        raise
    return result


@contextlib.contextmanager
def _left_if_refused(config: RunConfig, environ: Mapping[str, str]) -> Iterator[None]:
    """Leaves exit.json of an error that came before the folder was held: only where there is one that nobody holds."""
    try:
        yield
    except BaseException as error:
        known = foreseen(error)
        with contextlib.suppress(Exception):  # whatever is wrong may be wrong here, too
            run_dir = locate(config)
            writes = Cluster.resolve(environ).is_chief and not config.plan.dry_run
            if writes and run_dir.is_free() and run_dir.read_json("exit.json") != known.as_dict():
                run_dir.leave(known)
        raise


def _look_back(context: RunContext) -> None:
    """The newest checkpoint to this machine, and what this one has to the store, where the others find it; and whether
    the data are still those that it was trained on."""
    store, run_dir = context.store, context.run_dir
    if store is not None and (brought := store.pull(run_dir.path)):
        _log.info(f"{brought} was brought from {store.url}")
    if store is not None:
        context.attempts.refuse_without_checkpoints()
    check_contents(context.config, run_dir)
    context.config.data.keep_baseline(run_dir.path)
    if store is not None:
        store.push(run_dir.path)


def _train(context: RunContext) -> Result:
    """What needs the run folder, which the chief holds."""
    config, plan, cluster, stopping = context.config, context.plan, context.cluster, context.stopping
    environ, store = context.environ, context.store
    # 6. Data, and what an earlier attempt left
    if not config.data.is_prepared() and cluster.role != "ps":
        _log.info(f"preparing the data in {getattr(config.data, 'dir', '')}")
        prepare_apart(config.data)
        plan = plan_run(config, environ=environ)  # the prepared data tell more
    if cluster.role != "ps":
        refuse_early(config)
        refuse_too_few(config)
    context.run_dir.write_text("config.yaml", config.yaml)
    if cluster.is_chief:
        _look_back(context)
    faults.point("start.meet")
    if cluster.role != "ps":
        plan = counted_plan(config, plan, environ=environ)  # may start TensorFlow: after all that is refused without
    _report_plan(config, plan, level=logging.INFO)
    context = dataclasses.replace(context, plan=plan)
    # 7. All processes meet
    serves = plan.strategy == "parameter_server" and cluster.role != "chief"  # until the chief has stopped
    on_stop = (lambda error: None) if serves else stopping.request_stop
    with joined(config, plan, cluster, on_exit=context.leave, on_stop=on_stop) as peers, stopping.as_request():
        stopping.before_exit.append(lambda error: peers.meeting.end(error.as_dict()))
        if serves:
            from tfscale.parameter_server.member_process import serve_until_done

            return serve_until_done(config, plan, cluster, peers, stopping)
        if store is not None and not cluster.is_chief:
            store.follow(context.run_dir.path)
        from tfscale.run.session import run_session  # the first import of TensorFlow

        status = open_status(environ) if cluster.is_chief else NoStatus()
        try:
            result = run_session(context, peers, status)
        except (Preempted, Interrupted):
            peers.outlast_chief(config.cluster.grace)
            raise
        peers.wait_for_chief()
        return result
