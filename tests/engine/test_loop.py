from __future__ import annotations

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, plan_for, strategy_for

from tfscale.engine import input_wait
from tfscale.engine.actions import Action, Every
from tfscale.errors import Diverged


@pytest.fixture
def trainer(tf, policy):
    import keras

    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.engine.control import LoopControl
    from tfscale.engine.loop import Trainer
    from tfscale.state.train_state import TrainState

    def build(*, replicas=1, task=None, rate=0.1, start_step=0, **plan):
        policy("float32")
        keras.utils.set_random_seed(0)
        task, made = task or Classify(), plan_for(8, replicas=replicas, **plan)
        strategy = strategy_for(replicas)
        with strategy.scope():
            state = TrainState.create(task, keras.optimizers.SGD(rate, momentum=0.9))
        trainer = Trainer(task, state, strategy, made, control=LoopControl(fixed_loop="steps_per_loop" in plan))

        def batches(split="train", training=True):
            return strategy.distribute_datasets_from_function(
                lambda _: build_dataset(
                    Vectors(), task, Portion(split, Shard(8), training, start_step=start_step), made
                )
            )

        return trainer, batches

    return build


def weights(trainer):
    return [v.numpy() for v in trainer.state.model.variables]


@pytest.mark.parametrize("deterministic", [True, False])
def test_training_learns(trainer, deterministic):
    made, batches = trainer(deterministic=deterministic)
    before = made.evaluate(batches("test", False), 3)
    made.train(batches(), until=150)
    after = made.evaluate(batches("test", False), 3)
    assert after["accuracy"] > 0.9 > before["accuracy"]
    assert made.state.step == 150
    assert made.traces["train"] == made.traces["eval"] == 1
    assert made.examples_per_second > 0


def test_loops_of_any_length_give_the_same_bits(trainer):
    task = Classify(dropout=0.5)
    results = []
    for length in (1, 7, 20):
        made, batches = trainer(task=task, steps_per_loop=length)
        made.train(batches(), until=20)
        results.append(weights(made))
    for other in results[1:]:
        assert all((a == b).all() for a, b in zip(results[0], other, strict=True))


def test_loops_of_any_length_report_the_same_bits(trainer):
    """Also of the means over several steps, which an interrupted run and the clock divide among other loops."""
    reported = []
    for length in (1, 7, 20):
        made, batches = trainer(steps_per_loop=length)
        made.train(batches(), until=20)
        means = made.drain()
        reported.append((means["loss"], means["accuracy"], made.evaluate(batches("train", False), 7)["loss"]))
    assert reported[0] == reported[1] == reported[2]


def test_the_loop_without_a_clock_is_compiled_once_the_clock_has_cost_as_much(trainer, monkeypatch):
    results = []
    for cost, compiled in ((0.0, 0), (1e9, 1)):  # seconds of a step
        monkeypatch.setattr(input_wait, "_CLOCK_SECONDS", {True: cost, False: cost})
        made, batches = trainer(steps_per_loop=3)
        made.train(batches(), until=20)
        assert (made.traces["train"], made.traces["train_untimed"]) == (1, compiled)
        results.append(weights(made))
    assert all((a == b).all() for a, b in zip(*results, strict=True))


def test_dropout_draws_anew_in_every_step_and_is_part_of_the_state(trainer):
    made, batches = trainer(task=Classify(dropout=0.5))
    names = [name for name in made.state.variables() if "seed_generator" in name]
    assert len(names) == 1
    before = made.state.variables()[names[0]].numpy().copy()
    made.train(batches(), until=2)
    assert (made.state.variables()[names[0]].numpy() != before).any()


@pytest.mark.parametrize("replicas", [2, 4])
def test_mirrored_replicas_agree_with_one(trainer, replicas):
    one, batches = trainer()
    one.train(batches(), until=20)
    many, spread = trainer(replicas=replicas)
    many.train(spread(), until=20)
    for a, b in zip(weights(one), weights(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert many.traces["train"] == 1
    a, b = one.evaluate(batches("test", False), 3), many.evaluate(spread("test", False), 3)
    assert a["accuracy"] * 23 == pytest.approx(round(a["accuracy"] * 23))  # 23 examples, each once
    assert b["accuracy"] == pytest.approx(a["accuracy"])
    assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)


def test_evaluation_is_the_mean_over_the_split(tf, trainer):
    made, batches = trainer()
    got = made.evaluate(batches("test", False), 3)
    x, y = Vectors().arrays("test")
    losses, metrics = Classify().loss(made.state.model, {"x": x, "label": y}, training=False)
    assert got["loss"] == pytest.approx(float(tf.reduce_mean(losses)), rel=1e-6)
    assert got["accuracy"] == pytest.approx(float(tf.reduce_mean(metrics["accuracy"])), rel=1e-6)


def test_actions_run_when_due_and_at_the_end(trainer):
    made, batches = trainer()
    seen = []
    made.actions = [
        Action(Every(steps=4), lambda: seen.append(("four", made.state.step))),
        Action(Every(steps=7), lambda: seen.append(("seven", made.state.step)), at_end=True),
    ]
    made.train(batches(), until=10)
    assert seen == [("four", 4), ("seven", 7), ("four", 8), ("seven", 10)]


def test_an_action_can_stop(trainer):
    made, batches = trainer()
    made.actions = [Action(Every(steps=3), lambda: made.stop("enough"))]
    made.train(batches(), until=100)
    assert (made.state.step, made.stop_reason) == (3, "enough")


def test_window_means_and_drain(trainer):
    made, batches = trainer(steps_per_loop=5)
    made.train(batches(), until=21)
    seen = made.drain()
    assert {"loss", "accuracy", "examples_per_second", "input_wait"} == set(seen)
    assert 0 <= seen["input_wait"] <= 1
    assert made.drain() == {}


def test_divergence_is_found_before_an_action_could_save(trainer):
    made, batches = trainer(rate=1e30)
    saved = []
    made.actions = [Action(Every(steps=1), lambda: saved.append(made.state.step))]
    with pytest.raises(Diverged, match="loss became"):
        made.train(batches(), until=50)
    assert len(saved) < 5


def test_the_loop_shortens_when_steps_are_slow(trainer):
    made, _ = trainer(steps_per_loop=50)
    made.fixed_loop = False
    made._compiled.add("train")
    made._step_seconds = 0.5
    assert made._loop_length(until=1000) == 4  # two seconds


def test_clock_gives_nested_time_to_the_inner_kind():
    from tfscale.engine.training import Clock

    times = iter([0.0, 1.0, 3.0, 10.0])
    clock = Clock(now=lambda: next(times))
    with clock("eval"), clock("compile"):
        pass
    assert (clock.seconds["eval"], clock.seconds["compile"]) == (8.0, 2.0)


def test_every():
    every = Every(steps=5)
    assert [every.next_step(s) for s in (0, 4, 5, 7)] == [5, 5, 10, 10]
    assert every.due(10, 0.0) and not every.due(11, 0.0)
    timed = Every(seconds=2.0)
    timed.start(0, 100.0)
    assert timed.next_step(3) is None
    assert not timed.due(1, 101.9) and timed.due(1, 102.0)
    timed.done(1, 102.0)
    assert not timed.due(2, 103.0)
