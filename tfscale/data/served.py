"""Training batches that data workers make: tf.data service, in the very order that the trainer would read.

Owns how steps are handed out, put in order again and asked for anew. Refuses to know who runs the data workers.

Every step is a pure function of its number (order.py), so that it doesn't matter who makes it. The dispatcher hands the
numbers of steps to whichever data worker is free (dynamic sharding, which visits each number at most once). The batches
come back with their numbers and are taken up in order; what comes twice is dropped. A step that never comes, since its
data worker was lost, is noticed by the many behind it that came: then the service is asked again from that step on. So
training sees every batch once and in order, whatever becomes of data workers.

    service = DataService("host:2222", timeout=300.0)
    dataset = service.dataset(source, task, portion, plan)
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfscale.autograph import no_autograph
from tfscale.cluster.service_address import DATA_SERVICE
from tfscale.data.order import FOREVER, Portion
from tfscale.data.pipeline import batches, tuned
from tfscale.data.source import Source
from tfscale.errors import ClusterFault, UsageError, first_line
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Task

_log = logging.getLogger(__name__)

_MOST_BYTES = 2**27  # of what every data worker is sent once: the graph, and the arrays in it
_AHEAD = 16  # steps that may come before the one that is due; when twice as many have, that one counts as lost
_MOST_AHEAD = 64  # they lie in memory
_PATIENCE = 5.0  # seconds that the second half of them takes at least, for a data worker that only begins
_AT_ONCE = 2  # steps that a data worker makes beside each other, so that its threads work over their ends
_QUIET = 30.0  # seconds without a batch after which people hear of it
_PAUSE = 1.0  # seconds before the service is asked again
_STATEFUL, _PYTHON = " is stateful", "PyFuncStateless"
_WITHOUT = f"start without data workers (no --data-workers, no {DATA_SERVICE})"
_GONE = ("Unknown iteration client", "Failed to get tasks")  # of a dispatcher that was started again


class DataService:
    """The data workers of this job, as a trainer sees them.

    Args:
        address: "host:port" of their dispatcher.
        timeout: seconds that it may take them to come, or to come back.

    Attributes:
        error: what ended the batches, where something did: TensorFlow loses the kind of an error of Python's.
    """

    def __init__(self, address: str, timeout: float):
        self.address, self.timeout = address, timeout
        self.error: Exception | None = None

    def dataset(self, source: Source, task: Task, portion: Portion, plan: ExecutionPlan) -> tf.data.Dataset:
        """As `build_dataset`, of training.

        Raises:
            UsageError: as there, and for data that only this process can make.
            ClusterFault: no data worker came within `timeout` seconds.
        """
        source = source.resolved()
        if not source.by_index:
            raise UsageError(
                "the batches of these data come one after another and can't be made by data workers",
                where="data",
                fix=f"{_WITHOUT}; or make a data set of them: tfscale data import",
            )
        steps = _Steps(self, source, task, portion, plan)
        steps.check()
        self.wait()
        dataset = tf.data.Dataset.from_generator(steps.in_order, output_signature=steps.element_spec)
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return tuned(dataset.apply(endless), plan)

    def wait(self) -> None:
        """Returns when the dispatcher answers and a data worker has made something; raises ClusterFault."""
        began = time.monotonic()
        self.wait_for_dispatcher(began)
        came = _Arrivals(self.distributed(tf.data.Dataset.range(1).map(no_autograph(lambda i: (i, i)))))
        try:
            came.first(began + self.timeout - time.monotonic())
        except queue.Empty:
            raise ClusterFault(
                f"no data worker has come to the dispatcher within {self.timeout:g} s",
                where=self.address,
                fix="see why they did not start, or wait longer with cluster.start_timeout",
            ) from None
        except tf.errors.OpError as error:
            raise ClusterFault(
                f"what answers is no dispatcher of TensorFlow {tf.__version__}: {first_line(error)}",
                where=self.address,
                fix=f"set {DATA_SERVICE} to the address of one: tfscale data serve",
            ) from error
        finally:
            came.close()

    def wait_for_dispatcher(self, began: float) -> None:
        """Returns when somebody listens there; raises ClusterFault `timeout` seconds after `began`."""
        host, _, port = self.address.rpartition(":")
        while True:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
                return
            except OSError as error:
                if time.monotonic() > began + self.timeout:
                    raise ClusterFault(
                        f"the dispatcher of the data workers does not answer for {self.timeout:g} s: {error}",
                        where=self.address,
                        fix="see why it did not start, or wait longer with cluster.start_timeout",
                    ) from None
            time.sleep(0.5)

    def away(self) -> ClusterFault:
        return ClusterFault(
            f"no batch has come from the data workers for {self.timeout:g} s",
            where=self.address,
            fix="see what became of them; the same command resumes from the newest checkpoint",
        )

    def distributed(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The elements of a data set that begins with a range, each made by whichever data worker is free."""
        service = tf.data.experimental.service
        return dataset.apply(
            service.distribute(
                service.ShardingPolicy.DYNAMIC,
                f"grpc://{self.address}",
                compression=None,  # takes more time than sending pictures does
                target_workers="ANY",
            )
        )


class _Steps:
    """The steps of a portion, numbered, and how they come back. Its numbers are those of parts: one for each device."""

    def __init__(self, service: DataService, source: Source, task: Task, portion: Portion, plan: ExecutionPlan):
        self.service, self.source, self.task, self.portion = service, source, task, portion
        self.devices = plan.local_devices
        # A data worker has threads as it has cores, and reads what it needs: it holds no split.
        self.plan = dataclasses.replace(plan, input_threads=tf.data.AUTOTUNE, input_ram_bytes=0)
        self.token = secrets.randbits(62)  # a dispatcher that is started again gives the same names to others
        self.first = self.numbered(portion.start_step)
        self.element_spec = self.first.element_spec[1]

    def numbered(self, first: int) -> tf.data.Dataset:
        """([token, number], part) of all steps from `first` on; what data workers are sent."""
        steps = tf.data.Dataset.range(first, FOREVER)
        if self.portion.skip:
            left_out = tf.constant(self.portion.skip, tf.int64)
            steps = steps.filter(no_autograph(lambda step: tf.reduce_all(step != left_out)))

        @no_autograph
        def parts(step: tf.Tensor) -> tf.data.Dataset:
            portion = dataclasses.replace(self.portion, start_step=step, skip=(), steps=1)
            mark = no_autograph(lambda number, part: (tf.stack([tf.constant(self.token, tf.int64), number]), part))
            return batches(self.source, self.task, portion, self.plan).enumerate(step * self.devices).map(mark)

        dataset = steps.interleave(
            parts,
            cycle_length=_AT_ONCE,
            block_length=self.devices,
            num_parallel_calls=_AT_ONCE,
            deterministic=True,
        )
        options = tf.data.Options()
        options.autotune.enabled = False  # else a data worker holds ever more steps
        return dataset.with_options(options)

    def check(self) -> None:
        """Raises UsageError for what can't be sent, or is too large to be."""
        try:
            variant = tf.data.experimental.to_variant(self.first)
            text = tf.raw_ops.DatasetToGraphV2(input_dataset=variant, external_state_policy=2).numpy()
        except tf.errors.OpError as error:
            if _STATEFUL in str(error):
                raise _bound(first_line(error).partition("graph: ")[2]) from error
            raise UsageError(
                f"data workers can't be sent what makes the batches: {first_line(error)}", where="task", fix=_WITHOUT
            ) from error
        if len(text) > _MOST_BYTES:
            raise UsageError(
                f"the data are held in memory, and each data worker would be sent {len(text) / 2**20:.0f} MiB",
                where="data",
                fix=f"make a data set of files of them: tfscale data import; or {_WITHOUT}",
            )
        graph = tf.compat.v1.GraphDef.FromString(text)
        nodes = itertools.chain(graph.node, *(function.node_def for function in graph.library.function))
        if any(node.op == _PYTHON for node in nodes):
            raise _bound(f"{_PYTHON} is Python")

    def numbers(self) -> Iterator[int]:
        """Those of the parts that training takes, in order."""
        for step in itertools.count(self.portion.start_step):
            if step not in self.portion.skip:
                yield from range(step * self.devices, (step + 1) * self.devices)

    def in_order(self) -> Iterator[Any]:
        """The parts, as training takes them."""
        try:
            yield from self._in_order()
        except Exception as error:
            self.service.error = error
            raise

    def _in_order(self) -> Iterator[Any]:
        numbers, held = self.numbers(), dict[int, Any]()
        due, ahead, failed, steps = next(numbers), _AHEAD * self.devices, 0.0, self.first
        while True:
            arrivals = _Arrivals(self.service.distributed(steps))
            try:
                for (token, number), part in arrivals.each(self.service):
                    if token != self.token:
                        raise tf.errors.UnavailableError(None, None, f"{_GONE[0]}: another reader's batch came")
                    if number >= due:
                        held[number] = part
                    while due in held:
                        failed = 0.0
                        yield held.pop(due)
                        due = next(numbers)
                    if len(held) > ahead:
                        time.sleep(_PATIENCE / ahead)
                    if len(held) > 2 * ahead:
                        ahead = min(2 * ahead, _MOST_AHEAD * self.devices)  # rather a slow one, where this comes often
                        _log.warning(f"data service: step {due // self.devices} did not come; asked for again")
                        held.clear()  # they come again, behind it
                        break
            except tf.errors.OpError as error:
                lost = isinstance(error, tf.errors.UnavailableError) or any(text in str(error) for text in _GONE)
                if failed and not lost:
                    raise  # the same step again: it is the data's
                if failed and time.monotonic() > failed + self.service.timeout:
                    raise self.service.away() from error
                if not failed:
                    step = due // self.devices
                    _log.warning(f"data service: {first_line(error)}; asked again from step {step} on")
                failed = failed or time.monotonic()
            finally:
                arrivals.close(5.0)  # first: a dispatcher gives its name to the next
            time.sleep(_PAUSE)
            self.service.wait_for_dispatcher(failed or time.monotonic())
            steps = self.numbered(due // self.devices)


def _bound(why: str) -> UsageError:
    return UsageError(
        f"what makes the batches is bound to this process, and data workers don't have it: {why}",
        where="task, data",
        fix="write it with TensorFlow's operations alone: no tf.py_function, no tf.Variable, and in the place of"
        f" tf.random.uniform tf.random.stateless_uniform with the example's seed; or {_WITHOUT}",
    )


class _Arrivals:
    """The elements of a data set as they come, read by a thread, so that a wait can be said and left."""

    def __init__(self, dataset: tf.data.Dataset):
        self._queue: queue.Queue[Any] = queue.Queue(1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(dataset,), daemon=True)
        self._thread.start()

    def _read(self, dataset: tf.data.Dataset) -> None:
        try:
            for element in dataset:
                self._put(element)
                if self._closed.is_set():
                    return
        except Exception as error:
            self._put(error)

    def _put(self, thing: Any) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(thing, timeout=0.5)
                return
            except queue.Full:
                pass

    def first(self, seconds: float) -> Any:
        """The next element; raises queue.Empty, or what ended the reading."""
        found = self._queue.get(timeout=max(0.1, seconds))
        if isinstance(found, Exception):
            raise found
        return found

    def each(self, service: DataService) -> Iterator[tuple[tuple[int, int], Any]]:
        """((token, number), part), saying it where none comes for long; raises ClusterFault in the end."""
        quiet = 0.0
        while True:
            try:
                tag, part = self.first(_QUIET)
            except queue.Empty:
                quiet += _QUIET
                if quiet >= service.timeout:
                    raise service.away() from None
                _log.warning(f"data service: no batch has come from {service.address} for {quiet:g} s")
                continue
            quiet = 0.0
            token, number = tag.numpy().tolist()
            yield (token, number), part

    def close(self, seconds: float = 0.0) -> None:
        """Lets go of the data set, and waits so long for that; a thread that waits for a service that is away ends when
        that answers."""
        self._closed.set()
        self._thread.join(seconds)
