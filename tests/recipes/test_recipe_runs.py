"""Every recipe, small: as many replicas and parts as one device, the same bits behind a checkpoint, and its export."""

from __future__ import annotations

import json
import shutil

import pytest
from support.fault_rows import committed, fingerprint
from support.small_recipes import SMALL

from tfscale.composition.hydra_compose import compose
from tfscale.errors import UsageError
from tfscale.export.verify import TOLERANCE
from tfscale.parity.check import _row
from tfscale.parity.report import Run
from tfscale.parity.worker import LAYOUTS, ORDER, work
from tfscale.run.api import fit

STEPS, EVERY = 6, 2
EXAMPLES = 256  # real ones, of which exports are compared with the trained model
SHOWN = {"text": 64}  # where the data hold fewer: of rows of tokens so many have a raw text
ALONE = {"TFSCALE_CLUSTER": "local"}
pytestmark = [pytest.mark.usefixtures("tf"), pytest.mark.slow]
RECIPES = sorted(name for name, small in SMALL.items() if not small.published)
PUBLISHED = sorted(set(SMALL) - set(RECIPES))


@pytest.fixture
def small(data_dir, made_once, monkeypatch, recipe):
    monkeypatch.setenv("TFSCALE_DATA_DIR", str(data_dir))
    one = SMALL[recipe]
    if one.data is not None:
        made_once(one.data.__name__, lambda _folder: one.data(data_dir))
    return [f"+recipe={recipe}", "tracker=none", "train.global_batch=8", "eval.global_batch=64", *one.overrides]


def _bits(folder):
    """(losses, values of the state). Its index has Keras's names, in which a process counts its layers."""
    found = fingerprint(folder)
    assert set(found.losses) == set(range(1, STEPS + 1)) and found.step == STEPS
    return found.losses, {name: digest for name, digest in found.files.items() if not name.endswith(".index")}


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"detection"}))  # KerasHub's own: one for all layers of a head
def test_no_two_layers_begin_alike(small):
    """One initializer given to several layers draws the same numbers for each."""
    from tfscale.assembly.assembled import adapted

    config = compose(small)
    config.data.prepare()
    seen: dict[bytes, str] = {}
    for variable in adapted(config.task, config.data).build_model().trainable_variables:
        first = variable.numpy().astype("float64").reshape(-1)[:16]
        first = first / (abs(first).max() or 1)  # also where they are scaled by their layer's size
        if len(first) == 16 and first.std() > 0:
            assert seen.setdefault(first.round(5).tobytes(), variable.path) == variable.path


@pytest.mark.parametrize("recipe", RECIPES)
def test_replicas_and_parts_train_as_one_device_does(small, recipe, tmp_path):
    runs = {}
    for names in (("1", "accumulate"), ("2",)):  # each would be a process of its own
        order = {
            "overrides": [*small, *SMALL[recipe].quiet],
            "config_dir": None,
            "steps": 3,
            "runs": [(name, "float64") for name in names],
        }
        (tmp_path / ORDER).write_text(json.dumps(order))
        work(tmp_path, environ=ALONE)
        runs.update({name: Run.read(tmp_path / f"{name}-float64.npz") for name in names})
    assert not runs["1"].problem
    rows = {name: _row(LAYOUTS[name], "float64", runs["1"], runs[name]) for name in ("2", "accumulate")}
    assert rows["2"].verdict == "holds", rows["2"].failures
    assert rows["accumulate"].verdict == ("not comparable" if runs["1"].batch_norm else "holds"), rows["accumulate"]
    assert runs["1"].losses[0] != runs["1"].losses[-1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_on_two_replicas_it_goes_on_to_the_same_bits_and_is_exported(small, recipe, tmp_path, messages):
    words = [
        *small, f"train.until={STEPS}st", f"eval.every={STEPS}st", "train.log_every=1st", "train.ema=0.9",
        f"checkpoint.every={EVERY}st", "checkpoint.keep=3", "checkpoint.metric=loss", "checkpoint.mode=min",
        "plan.deterministic=true", "plan.strategy=mirrored", "plan.local_devices=2", "plan.precision=float32",
        f"export.examples={EXAMPLES}",
    ]  # fmt: skip

    def run(name, *more):
        folder = tmp_path / name
        fit(compose([*words, f"run.dir={folder}", *more]), environ=ALONE)
        return folder

    whole = run("whole", "export.at_end=true")
    again = tmp_path / "again"  # as a kill before the last checkpoint would leave it
    shutil.copytree(whole, again, ignore=shutil.ignore_patterns(f"step-*{STEPS}", "result.json", "export"))
    step = int(committed(again)[-1].name.split("-")[1])
    run("again", "export.at_end=false")
    assert 0 < step < STEPS and f"resuming at step {step} of {STEPS}" in messages.text
    assert _bits(again) == _bits(whole)
    assert json.loads((whole / "result.json").read_text())["metrics"]["loss"] > 0
    # written by an export only after a process without tfscale has answered the same to all of these examples
    about, there = json.loads((whole / "export" / "export.json").read_text()), SHOWN.get(recipe, EXAMPLES)
    assert (about["step"], about["samples"], about["split"]) == (STEPS, there, "test")
    assert max(*about["differences"].values(), about["difference_to_live"]) <= TOLERANCE
    assert about["preprocessing"]["equal"] == there
    assert about["preprocessing"]["with"] == ("prediction" if recipe == "text" else "evaluation")
    assert (whole / "export" / "saved_model").is_dir()
    assert (whole / "export" / "model.keras").exists() or about["left_out"]["model.keras"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_model_converts_to_litert_and_onnx(small, recipe, tf, policy):
    """As the table of docs/export.md says."""
    import keras

    from tfscale.export.keras_file import full_precision_copy
    from tfscale.export.litert_file import to_litert
    from tfscale.export.onnx_file import to_onnx
    from tfscale.export.signature import Signature
    from tfscale.export.tensor_function import TensorFunction

    policy("float32")
    config = compose(small)
    model = full_precision_copy(config.task.for_data(config.data.spec()).build_model())
    inputs = keras.tree.map_structure(
        lambda one: tf.ones([1, *(n or 8 for n in one.shape[1:])], one.dtype), model.input
    )
    function = TensorFunction(model, Signature.of(model, inputs))
    assert to_onnx(function)
    if recipe == "dlrm":
        with pytest.raises(UsageError, match="LiteRT has no DynamicPartition, DynamicStitch"):
            to_litert(function, "float32", [])
    else:
        assert to_litert(function, "float32", [])


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_two_steps_at_full_depth(small, tmp_path):
    result = fit(compose([*small, "train.until=2st", f"run.dir={tmp_path / 'it'}"]), environ=ALONE)
    assert (result.status, result.step) == ("complete", 2) and result.metrics["loss"] > 0
