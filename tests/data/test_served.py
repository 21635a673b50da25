"""tf.data service: the batches of data workers are the trainer's own, in its order, whatever becomes of data workers."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, fit_tiny, plan_for

from tfscale.cluster.service_address import DATA_SERVICE
from tfscale.data.source import StreamedSource
from tfscale.errors import ClusterConfigError, ClusterFault, DataCorrupt, UsageError


class Servers:
    """A dispatcher and data workers in this process."""

    def __init__(self, tf, workers: int):
        self._service = tf.data.experimental.service
        self.port = _free_port()
        self.begin()
        self.workers = [self.worker() for _ in range(workers)]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def begin(self) -> None:
        self.dispatcher = self._service.DispatchServer(self._service.DispatcherConfig(port=self.port))

    def worker(self):
        config = self._service.WorkerConfig(self.address, heartbeat_interval_ms=200)
        return self._service.WorkerServer(config)

    def close(self) -> None:
        for server in (*self.workers, self.dispatcher):
            server._stop()


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture(scope="module")
def servers(tf):
    found = Servers(tf, 2)
    yield found
    found.close()


@dataclass
class Noisy(Classify):
    def preprocess(self, example, *, training):
        import tensorflow as tf

        return {**example, "x": example["x"] + tf.random.stateless_normal([6], example["seed"])}


@dataclass
class WholeEpochs(Vectors):
    whole_epochs = True


@pytest.mark.parametrize(
    ("source", "replicas", "worker", "changed"),
    [
        (Vectors(), 1, (0, 1), {}),
        (Vectors(), 2, (1, 2), {"start_step": 5}),
        (Vectors(), 1, (0, 1), {"start_step": 2, "skip": (4, 7)}),
        (WholeEpochs(), 2, (0, 1), {"start_step": 3}),
    ],
)
def test_the_batches_are_the_trainers_own_in_its_order(tf, servers, source, replicas, worker, changed):
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.data.served import DataService

    portion = Portion("train", Shard(16, *worker), True, 3, **changed)
    plan = plan_for(16, replicas=replicas)
    own = list(build_dataset(source, Noisy(), portion, plan).take(24))
    served = DataService(servers.address, 30.0).dataset(source, Noisy(), portion, plan)
    assert served.cardinality() == tf.data.INFINITE_CARDINALITY
    for one, other in zip(own, served.take(24), strict=True):
        tf.nest.map_structure(lambda a, b: np.testing.assert_array_equal(a, b), one, other)


class Losing:
    """A data service of which one step of the first answer is lost, and the rest comes in disorder."""

    def __new__(cls, address: str, lost: int):
        from tfscale.data.served import DataService

        class Service(DataService):
            answers = 0

            def distributed(self, dataset):
                found = super().distributed(dataset)
                if not isinstance(dataset.element_spec[1], dict):
                    return found  # the look whether anybody is there
                self.answers += 1
                if self.answers > 1:
                    return found
                return found.filter(lambda tag, part: tag[1] != lost).shuffle(6, seed=1)

        return Service(address, 30.0)


def test_a_step_that_is_lost_is_asked_for_again_and_comes_once(servers, caplog, monkeypatch):
    monkeypatch.setattr("tfscale.data.served._PATIENCE", 1.5)  # a busy machine answers late
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset

    portion, plan = Portion("train", Shard(8), True), plan_for(8)
    service = Losing(servers.address, 9)
    with caplog.at_level("WARNING"):
        came = [
            batch["index"].numpy().tolist() for batch in service.dataset(Vectors(), Noisy(), portion, plan).take(60)
        ]
    own = build_dataset(Vectors(), Noisy(), portion, plan)
    assert came == [batch["index"].numpy().tolist() for batch in own.take(60)]
    assert service.answers == 2 and "data service: step 9 did not come; asked for again" in caplog.text


@dataclass
class InPython(Classify):
    def preprocess(self, example, *, training):
        import tensorflow as tf

        x = tf.numpy_function(lambda x: 2 * x, [example["x"]], tf.float32)
        return {**example, "x": tf.ensure_shape(x, [6])}


@dataclass
class Unseeded(Classify):
    def preprocess(self, example, *, training):
        import tensorflow as tf

        return {**example, "x": example["x"] + tf.random.uniform([6])}


@dataclass
class Streamed(StreamedSource):
    def num_examples(self, split):
        return 50


@pytest.mark.filterwarnings("ignore:Seed .* from outer graph")  # which another test in this process may have set
@pytest.mark.parametrize(
    ("source", "task", "why"),
    [
        (Vectors(), InPython(), "bound to this process, .*: PyFunc is stateful"),
        (Vectors(), Unseeded(), "RandomUniform is stateful"),
        (Vectors(), Classify(), "held in memory, and each data worker would be sent"),
        (Streamed(), Classify(), "come one after another"),
    ],
)
def test_what_data_workers_can_not_make_is_refused(servers, source, task, why, monkeypatch):
    monkeypatch.setattr("tfscale.data.served._MOST_BYTES", 1000)
    from tfscale.data.order import Portion, Shard
    from tfscale.data.served import DataService

    with pytest.raises(UsageError, match=why) as error:
        DataService(servers.address, 5.0).dataset(source, task, Portion("train", Shard(8), True), plan_for(8))
    assert "--data-workers" in error.value.fix


def test_a_dispatcher_or_data_worker_that_does_not_come_is_said_in_time(tf):
    from tfscale.data.served import DataService

    address = f"127.0.0.1:{_free_port()}"
    with pytest.raises(ClusterFault, match=r"does not answer for 0.2 s.*refused") as error:
        DataService(address, 0.2).wait()
    assert error.value.where == address and "cluster.start_timeout" in error.value.fix
    alone = Servers(tf, 0)
    try:
        with pytest.raises(ClusterFault, match="no data worker has come to the dispatcher within 1 s"):
            DataService(alone.address, 1.0).wait()
    finally:
        alone.workers.append(alone.worker())  # which ends the look that waits
        alone.close()


@dataclass
class Torn(Classify):
    def preprocess(self, example, *, training):
        import tensorflow as tf

        text = tf.where(example["index"] == 7, "no number", "1.5")
        return {**example, "x": example["x"] * tf.strings.to_number(text)}


@dataclass
class Named(Vectors):
    def locate(self, split, place):
        return f"{split}.csv: row {place}"


def test_a_run_with_data_workers_ends_as_one_without(servers, tmp_path):
    losses = []
    for environ, name in (({}, "own"), ({DATA_SERVICE: servers.address}, "served")):
        _, said, folder = fit_tiny(tmp_path / name, environ=environ)
        assert (f"data workers behind {servers.address} make the training batches" in said) == bool(environ)
        losses.append(
            [line.get("loss") for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]
        )
    assert losses[0] == losses[1] and len(losses[0]) > 6
    served = {DATA_SERVICE: servers.address}
    with pytest.raises(DataCorrupt, match="StringToNumber") as error:
        fit_tiny(tmp_path / "torn", task=Torn(), data=Named(), environ=served)
    assert error.value.where == "train.csv: row 7"
    with pytest.raises(ClusterConfigError, match="has no port"):
        fit_tiny(tmp_path / "wrong", environ={DATA_SERVICE: "nowhere"})
    away = {DATA_SERVICE: f"127.0.0.1:{_free_port()}"}
    with pytest.raises(ClusterFault, match="does not answer for 0.3 s"):
        fit_tiny(tmp_path / "away", cluster={"start_timeout": 0.3}, environ=away)
