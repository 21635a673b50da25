"""Small SavedModels to serve, and a real server around them in a thread of the test's process.

write_double(folder, version=1)                       # x: float32 [n, 3] -> y: float32 [n, 3], 2 x
with served({"double": folder}) as server:
    server.post("/v1/models/double:predict", {"instances": [[1, 2, 3]]})
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def write_double(folder: Path, *, factor: float = 2.0, step: int | None = None, gaps: list[str] | None = None) -> Path:
    """A model of numbers; with a step it is an export, with export.json beside saved_model/."""
    import tensorflow as tf

    def answer(x):
        return {"y": factor * x}

    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    return _saved(folder, tf.function(answer), {"x": spec}, step, {"gaps": gaps})


def write_texts(folder: Path) -> Path:
    """texts: string [n, 2], and count: int32 [n] -> joined_bytes: string [n], more: int32 [n]."""
    import tensorflow as tf

    def answer(texts, count):
        return {"joined_bytes": tf.strings.reduce_join(texts, 1), "more": count + 1}

    specs = {"texts": tf.TensorSpec([None, 2], tf.string), "count": tf.TensorSpec([None], tf.int32)}
    return _saved(folder, tf.function(answer), specs, None, {})


def write_classes(folder: Path) -> Path:
    """x: float32 [n, 3] -> class and probabilities of "red", "green" and "blue": the numbers' softmax."""
    import tensorflow as tf

    def answer(x):
        return {"class": tf.argmax(x, 1, tf.int32), "probabilities": tf.nn.softmax(x)}

    spec = tf.TensorSpec([None, 3], tf.float32)
    return _saved(folder, tf.function(answer), {"x": spec}, 7, {"gaps": [], "classes": ["red", "green", "blue"]})


def write_whole(folder: Path) -> Path:
    """x: float32 [n, ?] and scale: float32, a single value -> mean: float32, a single one, and y: float32 [n, ?]."""
    import tensorflow as tf

    def answer(x, scale):
        return {"mean": tf.reduce_mean(x), "y": x * scale}

    specs = {"x": tf.TensorSpec([None, None], tf.float32), "scale": tf.TensorSpec([], tf.float32)}
    return _saved(folder, tf.function(answer), specs, None, {})


def write_pictures(folder: Path, examples: list[bytes]) -> Path:
    """image: string [n], encoded pictures -> class and probabilities of "dark" and "light", mask: string [n], the light
    pixels' PNG in base64, and boxes, classes and scores of their frame; with examples for whoever tries it."""
    import tensorflow as tf

    def one(encoded):
        grey = tf.image.rgb_to_grayscale(tf.io.decode_image(encoded, channels=3, expand_animations=False))[..., 0]
        light = tf.reduce_mean(tf.cast(grey, tf.float32)) / 255
        is_light = grey > 127
        mask = tf.io.encode_base64(tf.io.encode_png(tf.cast(is_light, tf.uint8)[..., tf.newaxis]), pad=True)
        places = tf.cast(tf.where(is_light), tf.float32) / tf.cast(tf.shape(grey), tf.float32)
        box = tf.concat([tf.reduce_min(places, 0), tf.reduce_max(places, 0)], 0)
        return {
            "class": tf.cast(light > 0.5, tf.int32), "probabilities": tf.stack([1 - light, light]), "mask": mask,
            "boxes": tf.stack([box, tf.zeros(4)]), "classes": tf.constant([1, -1]), "scores": tf.stack([light, 0.0]),
        }  # fmt: skip

    def answer(image):
        specs = {"class": tf.int32, "probabilities": tf.float32, "mask": tf.string, "boxes": tf.float32}
        return tf.map_fn(one, image, fn_output_signature={**specs, "classes": tf.int32, "scores": tf.float32})

    about = {"gaps": [], "classes": ["dark", "light"]}
    _saved(folder, tf.function(answer), {"image": tf.TensorSpec([None], tf.string)}, 30, about)
    return _with_examples(folder, {"image": examples}, {"image": tf.string})


def write_table(folder: Path) -> Path:
    """age: float32 [n] with gaps, town: string [n], Weight_kg: float32 [n], for the column "Weight (kg)" ->
    probabilities of "no" and "yes", and class; with an example."""
    import tensorflow as tf

    def answer(age, town, Weight_kg):
        known = tf.where(tf.math.is_nan(age), 40.0, age)
        yes = tf.sigmoid(0.1 * (known - 40) + 0.01 * (Weight_kg - 70) + tf.cast(town == "Ulm", tf.float32))
        return {"class": tf.cast(yes > 0.5, tf.int32), "probabilities": tf.stack([1 - yes, yes], 1)}

    names = {"age": tf.float32, "town": tf.string, "Weight_kg": tf.float32}
    specs = {name: tf.TensorSpec([None], dtype) for name, dtype in names.items()}
    about = {"gaps": ["age"], "classes": ["no", "yes"], "fields": {"Weight_kg": "Weight (kg)"}}
    _saved(folder, tf.function(answer), specs, 12, about)
    return _with_examples(folder, {"age": [31.0], "town": [b"K\xc3\xb6ln"], "Weight_kg": [71.3]}, names)


def _with_examples(folder: Path, examples: Mapping[str, Any], dtypes: Mapping[str, Any]) -> Path:
    from tfscale.export.warm_up import write_examples

    write_examples(folder / "saved_model", examples, dtypes)
    return folder


def write_slow(folder: Path, *, products: int = 60, step: int | None = None) -> Path:
    """x: float32 [n, 3] -> y as of `write_double`, and each batch takes some tenths of a second."""
    import tensorflow as tf

    def answer(x):
        matrix = tf.ones([700, 700]) / 700
        for _ in tf.range(products):
            matrix = tf.matmul(matrix, matrix)
        return {"y": 2 * x + 0 * tf.reduce_sum(matrix)}

    return _saved(folder, tf.function(answer), {"x": tf.TensorSpec([None, 3], tf.float32)}, step, {"gaps": []})


def write_failing(folder: Path, *, step: int | None = None) -> Path:
    """As `write_double`, but of anything else than zeros, with which servers warm up, it reads a file that isn't
    there."""
    import tensorflow as tf

    def answer(x):
        text = tf.cond(tf.reduce_all(x == 0), lambda: tf.constant(""), lambda: tf.io.read_file("/nowhere/it.txt"))
        return {"y": 2 * x + tf.cast(tf.strings.length(text), tf.float32)}

    return _saved(
        folder, tf.function(answer), {"x": tf.TensorSpec([None, 3], tf.float32, name="x")}, step, {"gaps": []}
    )


def _saved(folder: Path, function: Any, specs: Mapping[str, Any], step: int | None, about: Mapping[str, Any]) -> Path:
    import tensorflow as tf

    place = folder if step is None else folder / "saved_model"
    module = tf.Module()
    tf.saved_model.save(module, str(place), signatures={"serving_default": function.get_concrete_function(**specs)})
    if step is not None:
        (folder / "export.json").write_text(json.dumps({"step": step, "imports": [], **about}))
    return folder


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Of one server; each call is a connection of its own."""

    port: int
    probes: int
    token: str = ""
    grpc: int = 0

    def post(self, path: str, body: Any, *, port: int | None = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, data, {"Content-Type": "application/json", **_dashed(headers)}, port)

    def get(self, path: str, *, port: int | None = None, **headers: str) -> Answer:
        return self.ask("GET", path, None, _dashed(headers), port)

    def ask(self, method: str, path: str, body: Any, headers: Mapping[str, str], port: int | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with contextlib.closing(connection):
            connection.request(method, path, body, {**own, **headers})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())


def _dashed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextlib.contextmanager
def served(models: Mapping[str, Path | str], *, registry: str | None = None, **options: Any) -> Iterator[Client]:
    """The server on two free ports, until the context ends; its queue and sizes by `ServeOptions`. `registry`: of models
    whose place is models:/..."""
    from tfscale.config.serve_options import ServeOptions
    from tfscale.serving.http_server import HttpServer
    from tfscale.serving.listening import loop_factory
    from tfscale.serving.repository import Repository, place_of
    from tfscale.serving.request_batches import Limits
    from tfscale.serving.request_log import RequestLog
    from tfscale.serving.service_metrics import ServiceMetrics
    from tfscale.tracking.model_address import Stores

    given = ServeOptions(port=0, probes_port=0, **{"reload": 0.1, "drain": 20.0, **options})
    given.check()
    metrics = ServiceMetrics()
    stores = Stores.of(registry, {})
    places = [place_of(path, name, stores, every=given.reload) for name, path in models.items()]
    limits = Limits(given.batch, given.queue, given.threads, given.latency)
    repository = Repository(places, limits, every=given.reload, seen=metrics.batch, pickles=given.unpickled)
    server = HttpServer(repository, given, metrics, RequestLog(given, metrics.logged))
    up, failed, stop = threading.Event(), list[BaseException](), list[Any]()

    async def run() -> None:
        stopped = asyncio.Event()
        stop.append((asyncio.get_running_loop(), stopped))
        await server.run(stopped, ready=up.set)

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(run())
        except BaseException as error:
            failed.append(error)
            up.set()

    thread = threading.Thread(target=work, name="served")
    thread.start()
    try:
        assert up.wait(60)
        if failed:
            raise failed[0]
        (_, port), (_, probes), *grpc = server.addresses
        yield Client(port, probes, given.token, *(one[1] for one in grpc))
    finally:
        if stop and not failed:
            stop[0][0].call_soon_threadsafe(stop[0][1].set)
        thread.join(60)
        assert not thread.is_alive()
        repository.close()
    if failed:
        raise failed[0]
