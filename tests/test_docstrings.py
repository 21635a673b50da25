"""The examples in the docstrings of the public API, run as written; `make check` holds the types of all others."""

from __future__ import annotations

import ast
import importlib
from typing import Any

import pytest
from docstrings import CALLED, Example, examples, program

from tfscale.tracking.tracker import NoTracker

PROGRAMS = {example.module: example for example in examples()}


def run(module: str, **given: Any) -> dict[str, Any]:
    """Runs a module's example with the names that it can't make; returns what it made."""
    example = PROGRAMS[module]
    called = {name: place for name, place in CALLED.items() if name in example.code}
    names = {name: getattr(importlib.import_module(place), name) for name, place in called.items()}
    names = {**names, **vars(importlib.import_module(f"tfscale.{module}".rstrip("."))), **given}
    exec(compile(example.code, str(example.path), "exec"), names)
    return names


def test_every_example_is_a_program():
    """Its names are there, what it calls above all. That their types fit is for mypy."""
    assert len(PROGRAMS) > 50
    for example in examples():
        compile(program(example), str(example.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_a_call_that_is_gone_is_found():
    example = PROGRAMS["checkpoint"]
    gone = Example(example.module, example.path, example.code.replace("Checkpointer(", "Saver("))
    with pytest.raises(NameError, match=r"calls Saver\(\)"):
        program(gone)


def test_facts_plan_and_configuration(tmp_path, capsys):
    made = run("plan")
    assert made["plan"].explain() in capsys.readouterr().out
    assert run("composition")["config"].train.until == "5ep"
    assert run("tracking.tracker", tracker_spec=NoTracker(), path=tmp_path, root=tmp_path)["tracker"].run_id is None


def test_one_training_part_by_part(tf, policy, tmp_path):
    """Source, pipeline, state, trainer, evaluation and checkpoints, one example's results in the next one."""
    import keras
    from support.tiny_run import Classify, Vectors, plan_for, strategy_for

    from tfscale.run_dir.folder import RunDir

    policy("float32")
    task, plan, strategy = Classify(), plan_for(64), strategy_for(1)
    source = Vectors(train_examples=640, test_examples=1024)

    element = next(iter(source.read("train", tf.data.Dataset.from_tensor_slices([[0]]), ram_bytes=0)))
    indices = tf.data.Dataset.from_tensor_slices(tf.constant([[3, 1], [2, 0]], tf.int64))
    made = run("data.source", source=source, indices=indices, raw_element=element)
    assert [int(e["index"]) for e in made["raw"]] == [3, 1, 2, 0] and set(made["example"]) == {"x", "label", "index"}

    batches = run("data.pipeline", source=source, task=task, plan=plan, strategy=strategy)["batches"]
    test_batches = run("data.pipeline", source=source, task=task, plan=plan, strategy=strategy)["batches"]
    state = run("state.train_state", strategy=strategy, task=task, optimizer=keras.optimizers.SGD(0.1))["state"]
    folder = RunDir(tmp_path / "r")
    saver = run("checkpoint", run_dir=folder, state=state)
    assert saver["step"] is None and saver["checkpointer"].committed == 0

    calls = []
    actions = run("engine.actions", log=lambda: calls.append("log"), save=lambda: calls.append("save"))["actions"]
    log, save = actions
    given = {"task": task, "state": state, "strategy": strategy, "plan": plan, "test_batches": test_batches}
    trainer = run("engine.loop", batches=batches, log=log, evaluate=log, save=save, **given)["trainer"]
    assert trainer.state.step == 1500 and calls.count("save") == 1 and calls.count("log") == 30
    assert run("engine.evaluation", **given)["evaluator"].evaluate(test_batches, steps=16)["accuracy"] > 0.9
    again = run("checkpoint", run_dir=folder, state=state)
    assert again["step"] == 0 and state.step == 0


def test_a_task_by_itself(tf, policy):
    policy("float32")
    from recipes.resnet import ResNet

    example = {"image": tf.zeros([28, 28, 1], tf.uint8), "label": tf.constant(1), "seed": tf.zeros([2], tf.int64)}
    spec = {"num_classes": 10, "image_size": 28, "channels": 1}
    batch = {"image": tf.zeros([2, 28, 28, 1]), "label": tf.constant([1, 2]), "weight": tf.ones([2])}
    made = run("task", ResNet=lambda **options: ResNet(width=4, **options), spec=spec, example=example, batch=batch)
    assert made["loss"].shape == (2,) and made["answers"]["class"].shape == (2,) and "image" in made["fields"]
