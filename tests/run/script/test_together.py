"""A script in two workers: equal to one, killed and started again, and ended by what its workers don't do alike."""

from __future__ import annotations

import ast
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support import warm
from support.peers import free_ports

SCRIPTS = Path(__file__).parents[2] / "scripts"
HEAD = """
import glob, json, os, shutil, sys, time
import numpy as np, keras
import tensorflow as tf
rank = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
keras.utils.set_random_seed(1)
x = np.random.normal(size=(44, 4)).astype("float32")
y = x.sum(1, keepdims=True)
def make():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model
model = make()
"""
WRITING = """
os.makedirs("cache", exist_ok=True)
given = keras.utils.get_file("given.txt", origin=os.environ["ORIGIN"], cache_dir=os.path.abspath("cache"))
assert open(given).read() == "given"
for label in "ab":
    os.makedirs("pictures/" + label, exist_ok=True)
    time.sleep(0 if rank else 0.5)  # the other worker is there before the chief has made all
    keras.utils.save_img("pictures/" + label + "/1.png", np.zeros((4, 4, 3)))
found = keras.utils.image_dataset_from_directory("pictures", image_size=(4, 4), verbose=False)
assert len(found.file_paths) == 2, found.file_paths
os.makedirs("out", exist_ok=True)
best = keras.callbacks.ModelCheckpoint("out/best.keras", monitor="val_loss", save_best_only=True)
slow = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=1)
log = keras.callbacks.CSVLogger("out/log.csv")
if os.path.exists("out/old.txt"):
    os.remove("out/old.txt")
assert not os.path.exists("out/old.txt")
with open("out/part.txt", "w") as file:
    file.write("whole")
os.replace("out/part.txt", "out/old.txt")
assert open("out/old.txt").read() == "whole" and not os.path.exists("out/part.txt")
shutil.copy2("out/old.txt", "out/copy.txt")
os.symlink("copy.txt", "out/link.txt")
assert open("out/link.txt").read() == "whole"
os.remove("out/link.txt")
shutil.rmtree("moved", ignore_errors=True)
os.makedirs("moved/part", exist_ok=True)
with open("moved/part/a.txt", "w") as file:
    file.write("a")
os.rename("moved/part", "moved/whole")
assert open("moved/whole/a.txt").read() == "a" and not os.path.exists("moved/part/a.txt")
mine = f"out/of-{rank}.txt"
open(mine, "w").close()
assert mine in glob.glob("out/of-*.txt") and os.path.basename(mine) in next(os.walk("out"))[2]
os.remove(mine)
assert mine not in glob.glob("out/of-*.txt")
first = model.fit(x, y, batch_size=8, epochs=3, validation_split=0.2, callbacks=[best, log], verbose=0)
again = keras.models.load_model("out/best.keras")
model.save_weights("out/model.weights.h5")
model.load_weights("out/model.weights.h5")
assert os.path.exists("out/log.csv") and len(open("out/log.csv").readlines()) == 4
assert sorted(os.listdir("out")) == ["best.keras", "copy.txt", "log.csv", "model.weights.h5", "old.txt"]
again.export("served", verbose=False)
served = tf.saved_model.load(export_dir="served")
np.testing.assert_allclose(served.serve(x), again.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
import tfscale
assert tfscale.is_chief() == (rank == 0)
second = again.fit(x, y, batch_size=8, epochs=4, callbacks=[slow], verbose=0)
print("final:", [first.history, second.history, again.evaluate(x, y, verbose=0), again.predict(x, verbose=0).tolist()])
"""


def started(script, folder, *options, workers=2, cold=False, **environ):
    """The processes of the workers, in one folder."""
    folder.mkdir(exist_ok=True)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(workers)]}
    found = []
    for rank in range(workers):
        own = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})}
        with (folder / f"worker-{rank}.txt").open("w") as output:
            found.append(
                warm.Popen(
                    [sys.executable, "-m", "tfscale.run", *options, str(script)],
                    cold=cold,
                    cwd=folder,
                    env={**os.environ, **environ, **(own if workers > 1 else {})},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return found


def ended(processes, folder, within=150):
    """(their exit codes, what they wrote)."""
    try:
        for process in processes:
            process.wait(timeout=within)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
    return [p.returncode for p in processes], [(folder / f"worker-{i}.txt").read_text() for i in range(len(processes))]


def ran(script, folder, *options, workers=2, **more):
    return ended(started(script, folder, *options, workers=workers, **more), folder)


def final(text):
    (line,) = [line for line in text.splitlines() if line.startswith("final:")]
    return ast.literal_eval(line.removeprefix("final:").strip())


def test_two_workers_equal_one_and_each_finds_its_files(tmp_path, served):
    script = tmp_path / "train.py"
    script.write_text(HEAD + WRITING)
    codes, alone = ran(script, tmp_path / "one", workers=1)
    assert codes == [0], alone
    (tmp_path / "two" / "out").mkdir(parents=True)
    (tmp_path / "two" / "out" / "old.txt").write_text("both remove it")
    codes, both = ran(script, tmp_path / "two")
    assert codes == [0, 0], both
    assert served == ["/given.txt"] * 2  # once by one worker, once by two
    one, first, second = final(alone[0]), *map(final, both)
    assert first == second  # to the bit, on both workers
    for mine, other in zip(*map(_leaves, (first, one)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    written = {file.name for file in (tmp_path / "two" / "out").iterdir()}
    assert written == {"best.keras", "copy.txt", "log.csv", "model.weights.h5", "old.txt"}
    led = Path(f"{tmp_path}/two/runs/train/scratch/1{tmp_path}/two")
    assert {file.name for file in (led / "out").rglob("*") if file.is_file()} == written
    assert (led / "served" / "saved_model.pb").is_file() and (tmp_path / "two" / "served" / "saved_model.pb").is_file()


@pytest.fixture
def served(monkeypatch):
    """The requests for a file that the scripts download."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.5)  # the other worker comes meanwhile
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"given")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ORIGIN", f"http://127.0.0.1:{server.server_port}/given.txt")
        yield asked
        server.shutdown()


def _leaves(node):
    if isinstance(node, dict):
        node = [node[key] for key in sorted(node)]
    return [leaf for child in node for leaf in _leaves(child)] if isinstance(node, list) else [node]


# What only one of two workers does, or what they would do each for itself: the code, and a part of the message
APART = {
    "rank": ("model.fit(x, y, verbose=0)\nif rank == 0:\n    HERE\n    model.fit(x, y, verbose=0)", 65, "the end of the program"),
    "tape": ("HERE\nmodel.optimizer.apply_gradients([(tf.ones_like(v), v) for v in model.trainable_variables])", 64, "a loop that"),
    "lines": ("HERE\nif rank:\n    model.fit(x, y)\nelse:\n    model.fit(x, y)", 65, "model.fit at"),
    "clock": ("HERE\nmodel.fit(x + time.time() % 1, y)", 65, "set_random_seed"),
    "data": (
        "order = np.random.default_rng().permutation(44)\n"
        "HERE\nmodel.fit(tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(8), verbose=0)",
        65, "the first batch of worker 1",
    ),
    "batches": (
        "class Own(keras.Sequential):\n    def train_step(self, data):\n        return super().train_step(data)\n"
        "own = Own([keras.Input((4,)), keras.layers.Dense(1)])\nown.compile('sgd', 'mse')\n"
        "def made():\n    while True:\n        yield x[:8] + rank, y[:8]\n"
        "HERE\nown.fit(made(), steps_per_epoch=3, verbose=0)",
        65, "the first batch of worker 1",
    ),
    "weights": ("keras.utils.set_random_seed(rank)\nHERE\nmake().fit(x, y)", 65, "set_random_seed"),
    "train_on_batch": ("HERE\nmodel.train_on_batch(x, y)", 64, "train_on_batch would"),
    "input": ("HERE\ninput('?')", 64, "input() waits for a person"),
    "strategy": ("HERE\nwith tf.distribute.MirroredStrategy().scope():\n    make().fit(x, y)", 64, "delete the strategy"),
    "backend": ("os.environ['KERAS_BACKEND'] = 'jax'\nHERE\nmodel.fit(x, y)", 64, "KERAS_BACKEND=jax"),
    "caught": ("HERE\ntry:\n    model.fit(x, y, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda e, l: 1 / (1 - rank))])\nexcept ZeroDivisionError:\n    time.sleep(60)", None, "peer worker:1 failed"),
    "nothing": ("HERE\nmodel.predict(x, verbose=0)", 64, "no fit of"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["rank", "tape", *(pytest.param(n, marks=pytest.mark.slow) for n in list(APART)[2:])])
def test_workers_that_part_ways_end_within_20_seconds(name, tmp_path):
    lines, code, told = APART[name]
    script = tmp_path / "train.py"
    script.write_text(HEAD + lines.replace("HERE", "print('at', time.time(), flush=True)") + "\n")
    processes = started(script, tmp_path / "run")
    codes, texts = ended(processes, tmp_path / "run")
    over = time.time()
    if code is None:  # an error of one worker's callback, which it catches, while the other waits for its next step
        assert codes[0] == 138 and told in texts[0], texts
        return
    assert codes == [code, code], texts
    assert all(f"error[E-00{code}]" in text and told in text for text in texts), texts
    came = [float(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("at ")]
    assert over - max(came) < 20


@pytest.mark.slow
def test_an_error_of_one_worker_ends_the_other(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(HEAD + "model.fit(x, y, verbose=0)\nif rank:\n    raise ValueError('mine')\nmodel.fit(x, y)\n")
    codes, texts = ran(script, tmp_path / "run")
    assert codes == [138, 1], texts
    assert "peer worker:1 failed" in texts[0] and texts[1].rstrip().endswith("ValueError: mine")
    assert "tfscale" not in texts[1].partition("Traceback")[2]


OWN_STEPS = """
class Own(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)
class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return x[i * 8 : i * 8 + 8], y[i * 8 : i * 8 + 8]
def made():
    while True:
        yield x[:8], y[:8], None
texts = [np.random.randint(0, 9, np.random.randint(2, 9)) for _ in range(24)]
padded = tf.data.Dataset.from_generator(lambda: zip(texts, y), output_signature=(tf.TensorSpec((None,), tf.int64), tf.TensorSpec((1,))))
found = []
def fit(layers, data, **more):
    own = Own(layers + [keras.layers.Dense(1)])
    own.compile("sgd", "mse")
    found.append([own.fit(data, epochs=3, verbose=0, **more).history["loss"], [w.tolist() for w in own.get_weights()]])
fit([keras.Input((4,))], Batches(workers=2), shuffle=False)
fit([keras.Input((4,))], Batches())
fit([keras.Input((4,))], made(), steps_per_epoch=3)
fit([keras.Input((None,), dtype="int64"), keras.layers.Embedding(9, 3), keras.layers.GlobalAveragePooling1D()], padded.padded_batch(4))
print("final:", found)
"""


@pytest.mark.slow
def test_steps_of_ones_own_on_batches_from_python_equal_one_worker(tmp_path):
    """Of a PyDataset, a generator, and texts of other lengths in every batch, that tell no number of batches."""
    script = tmp_path / "train.py"
    script.write_text(HEAD + OWN_STEPS)
    codes, alone = ran(script, tmp_path / "one", workers=1)
    assert codes == [0], alone
    codes, both = ran(script, tmp_path / "two")
    assert codes == [0, 0], both
    one, first, second = final(alone[0]), *map(final, both)
    assert first == second
    np.testing.assert_allclose(_leaves(first), _leaves(one), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_has_come_too_late_is_passed_by(tmp_path):
    script = tmp_path / "train.py"
    late = "tf.config.threading.set_inter_op_parallelism_threads(3)\ntf.config.set_visible_devices([], 'GPU')\n"
    script.write_text(HEAD + late + "model.fit(x, y, verbose=0)\nsys.exit(0)\n")
    codes, texts = ran(script, tmp_path / "run")
    assert codes == [0, 0], texts
    assert "set_inter_op_parallelism_threads is passed by" in texts[0]


@pytest.mark.slow
def test_killed_in_its_second_fit_it_comes_to_the_same_bits(tmp_path, served):
    script = tmp_path / "train.py"
    script.write_text(HEAD + WRITING)
    codes, whole = ran(script, tmp_path / "whole", "--deterministic")
    assert codes == [0, 0], whole
    fault = {"TFSCALE_FAULT": "train.loop:step=18:kill"}  # on both: the first fit has 15 steps
    codes, texts = ran(script, tmp_path / "twice", "--deterministic", **fault)
    assert codes == [-9, -9], texts
    codes, twice = ran(script, tmp_path / "twice", "--deterministic")
    assert codes == [0, 0], twice
    assert "it was complete, and is taken from" in twice[0] and "goes on in" in twice[0]
    assert [final(text) for text in twice] == [final(text) for text in whole]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["cnn", "vae"])
def test_two_workers_equal_two_devices(script, tmp_path):
    """What draws random numbers, or normalises, does so on each replica."""
    file = SCRIPTS / f"{script}.py"
    codes, texts = ran(file, tmp_path / "devices", "--override", "plan.local_devices=2", workers=1)
    assert codes == [0], texts
    launched = subprocess.run(
        [sys.executable, "-m", "tfscale", "run", "--workers", "2", str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert launched.returncode == 0, launched.stderr
    assert "final:" in launched.stdout
    (log,) = tmp_path.glob("runs/*/worker-1.log")
    assert "final:" in log.read_text()  # what the other prints
    with np.load(tmp_path / "devices" / "final.npz") as devices, np.load(tmp_path / "final.npz") as workers:
        for name in devices.files:
            if devices[name].dtype.kind == "f":
                np.testing.assert_allclose(devices[name], workers[name], atol=2e-5)
