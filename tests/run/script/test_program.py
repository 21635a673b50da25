"""A script is a script: what it sees, what it prints and how it ends are as by Python."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
from support import warm

LIGHT = """
import __main__, atexit, helper, multiprocessing, os, pickle, sys

class Kept:
    pass

def more(x):
    return x + 1

if __name__ == "__main__":
    print(__file__, sys.argv, sys.path[0], __spec__, __package__, __main__.Kept is Kept, os.getcwd())
    print(type(pickle.loads(pickle.dumps(Kept()))) is Kept)
    atexit.register(print, "at exit")
    if "children" in sys.argv:
        for how in ("fork", "spawn"):
            with multiprocessing.get_context(how).Pool(1) as pool:
                print(how, pool.map(more, [1]))
    if "text" in sys.argv:
        sys.exit("some words")
    if "error" in sys.argv:
        try:
            helper.fails()
        except ValueError as error:
            raise RuntimeError("second") from error
    if "interrupt" in sys.argv:
        raise KeyboardInterrupt
    sys.exit(3)
"""

FITS = '''
import os, signal, sys, threading
import keras, numpy as np, tensorflow as tf
import tfscale

keras.utils.set_random_seed(1)
x = np.random.normal(size=(64, 4)).astype("float32")
y = np.random.randint(0, 2, 64)

class Mine(keras.Sequential):
    def fit(self, *args, **given):
        print("mine")
        return super().fit(*args, **given)

def model(kind=keras.Sequential):
    made = kind([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    made.compile("adam", "sparse_categorical_crossentropy")
    return made

class Nested(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print("nested", model().fit(x, y, verbose=0).epoch)

class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM if "term" in sys.argv else signal.SIGINT)

def kinds():
    one = model(Mine)
    history = one.fit(x, y, 16, 2, 0)
    print(type(history) is keras.callbacks.History, history is one.history, history.model is one, history.params, history.epoch)
    print(model().fit(x, y, epochs=2, initial_epoch=2, verbose=0).epoch)
    found = []
    thread = threading.Thread(target=lambda: found.append(model().fit(x, y, verbose=0).epoch))
    thread.start(), thread.join(), print("thread", found)
    model().fit(x, y, verbose=0, callbacks=[Nested()])
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        two = model()
    print("strategy", two.fit(x, y, verbose=0).epoch)
    try:
        two.fit(x, y, epoch=3)
    except TypeError as error:
        print(error)
    print("tfscale.fit", tfscale.fit(one, x, y, verbose=0, run_dir="of_its_own").status)

if "kinds" in sys.argv:
    kinds()
    model().fit(x * np.nan,
                y)
for place in (1, 2):
    try:
        model().fit(x, y, epochs=4, callbacks=[Stop()], verbose=2 * (place == 1))
    except KeyboardInterrupt:
        print("caught")
    except Exception:
        print("not to be caught")
    finally:
        print("finally", len(tf.config.list_logical_devices("CPU")))
'''  # fmt: skip


def run(folder, *command, light=True, **environ):
    process = warm.Popen(
        [sys.executable, *command],
        cold=light,
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_it_sees_and_ends_as_by_python(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "it.py").write_text(LIGHT)
    (tmp_path / "code" / "helper.py").write_text("def fails():\n    raise ValueError('first')\n")
    for arguments in (["children"], ["text"], ["error"], ["interrupt"], ["--fresh", "-m", "x"]):
        theirs = run(tmp_path, "code/it.py", *arguments)
        ours = run(tmp_path, "-m", "tfscale", "run", "--run-dir", "r", "code/it.py", *arguments)
        assert ours == theirs, arguments
    assert theirs[0] == 3


def test_a_module_has_relative_imports_and_a_script_without_a_fit_is_told_so(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "other.py").write_text("VALUE = 5\n")
    (tmp_path / "mine" / "it.py").write_text(
        "import os, sys\nfrom .other import VALUE\n"
        "print(VALUE, __name__, __package__, __spec__.name, __file__, sys.argv, sys.path[0], file=sys.stderr)\n"
        "print(os.environ.get('MPLBACKEND'))\n"
    )
    _, _, theirs = run(tmp_path, "-m", "mine.it", "a")
    code, shown, ours = run(tmp_path, "-m", "tfscale", "run", "-m", "mine.it", "a", DISPLAY="", WAYLAND_DISPLAY="")
    assert (code, shown) == (0, "Agg\n")
    first, told = ours.splitlines()
    assert [first] == theirs.splitlines() and told.endswith("WARNING no fit of -m mine.it was tfscale's")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 64, "no script was named"),
        (["nope.py"], 66, "there is no script nope.py"),
        (["folder"], 66, "is a folder without __main__.py"),
        (["-m", "nope.it"], 66, "there is no Python module nope.it"),
        (["--overide", "a=1", "it.py"], 64, "did you mean '--override'?"),
        (["--override", "train.until=3ep", "it.py"], 64, "is an argument of fit, which the script gives"),
        (["--override", "run.dir=r", "it.py"], 64, "use --run-dir DIR"),
        (["--override", "plan.dry_run=true", "it.py"], 64, "behind a fit that trains nothing"),
        (["--workers", "0", "it.py"], 64, "--workers"),
        (["--override", "plan.local_device=2", "it.py"], 64, "unknown key 'plan.local_device'"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, monkeypatch, capsys, words, code, told):
    from tfscale.__main__ import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "it.py").write_text("raise SystemExit('it was run')")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["run", *words]) == code
    assert told in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_only_workers_run_a_script(tmp_path):
    (tmp_path / "it.py").write_text("raise SystemExit('it was run')")
    server = '{"cluster": {"chief": ["a:1"], "worker": ["c:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}'
    code, _, err = run(tmp_path, "-m", "tfscale.run", "it.py", TF_CONFIG=server)
    assert code == 64 and "this one is ps:0" in err


def test_every_kind_of_call(tmp_path):
    (tmp_path / "it.py").write_text(FITS)
    code, out, err = run(tmp_path, "-m", "tfscale.run", "it.py", "kinds", light=False)
    assert code == 65, err

    def line(words):
        return next(f"it.py:{number}" for number, text in enumerate(FITS.splitlines(), 1) if words in text)

    told = [text for text in err.splitlines() if re.search(r"it\.py:|tfscale: error", text)]
    assert [text.partition(" WARNING ")[2] or text for text in told] == [
        f"{line('nested')}: Keras's own fit trains this model: another fit, which is at work, has called it",
        f"{line('two.fit(x, y, verbose')}: Keras's own fit trains this model: the script has a tf.distribute strategy of its own",
        f"{line('x * np.nan')}: model().fit(x * np.nan,",
        "tfscale: error[E-0065] x is nan in row 0 | x | correct or remove that example",
    ]
    assert out.splitlines()[:8] == [
        "mine",
        "True True True {'verbose': 0, 'epochs': 2, 'steps': 4} [0, 1]",
        "[]",
        "thread [[0]]",
        "nested [0]",
        "strategy [0]",
        "TensorFlowTrainer.fit() got an unexpected keyword argument 'epoch'",
        "tfscale.fit complete",
    ]


@pytest.mark.parametrize(("word", "code"), [("term", 143), ("interrupt", 0)])
def test_a_script_that_is_told_to_stop_keeps_its_work(tmp_path, word, code):
    """And may catch what Python raises, and nothing else; the plan is shown once, and a line for each fit."""
    (tmp_path / "it.py").write_text(FITS)
    several = ("--override", "plan.local_devices=2") if word == "term" else ()
    command = ("-m", "tfscale.run", "--run-dir", "r", *several, "it.py", word)
    ended, out, err = run(tmp_path, *command, light=False)
    assert ended == code, err
    assert "not to be caught" not in out and out.count("execution plan") == 1 and "│ status" not in out
    assert len(re.findall(r"fit 1, it\.py:\d+: r/01-sequential", out)) == 1
    if word == "interrupt":
        assert out.count("caught\nfinally 1") == 2 and err.count("stopped by SIGINT; the checkpoint of step") == 2
        return
    assert out.endswith("finally 2\n") and "E-0143" in err.splitlines()[-1]
    _, out, _ = run(tmp_path, *command, light=False)
    assert "goes on in r/01-sequential" in out and "resuming at step" in out


def test_of_two_starts_the_second_is_refused(tmp_path):
    (tmp_path / "it.py").write_text("print('begun', flush=True)\ninput()\n")
    command = [sys.executable, "-m", "tfscale.run", "it.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == "begun\n"
        code, _, err = run(tmp_path, "-m", "tfscale.run", "it.py")
        assert code == 73 and "another run holds runs/it" in err and "--run-dir" in err
        first.send_signal(signal.SIGKILL)
    assert run(tmp_path, "-m", "tfscale.run", "it.py")[0] == 1  # EOFError: it has begun


NOTEBOOK = """
import numpy as np, keras, tfscale
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
own = TensorFlowTrainer.fit
x = np.random.RandomState(0).normal(size=(20, 3)).astype("float32")
def cells():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    for _ in range(2):  # a cell that is run again trains on
        history = model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
        assert history is model.history
    return history.history, [w.tolist() for w in model.get_weights()], int(model.optimizer.iterations)
alone = cells()
tfscale.enable()
tfscale.enable(overrides=["checkpoint.keep=1"])
assert cells() == alone
import pathlib
assert len(list(pathlib.Path("runs/sequential").glob("*/result.json"))) == 2
tfscale.disable()
assert TensorFlowTrainer.fit is own
"""


def test_a_notebook_enables_it_for_all_its_cells(tmp_path):
    code, out, err = run(tmp_path, "-c", NOTEBOOK, light=False)
    assert code == 0, out + err
