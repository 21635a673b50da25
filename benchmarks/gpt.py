"""The step of +recipe=gpt beside the same decoder in PyTorch, on the same text and cores.

    python -m benchmarks.gpt shakespeare.txt --report benchmarks/results/DATE-gpt.md

Measured is the time per step of steady training, with reading; start-up and compilation are not in it. PyTorch
lives in an environment of its own, see input.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.asking import Asking, NotAsked, computes_bfloat16
from benchmarks.gpt_torch import BATCH
from benchmarks.input import peers_python
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.side_by_side import Contestant, ContestantFailed, Question, Work, measure


def ours(path: str) -> Work:
    """The recipe as it is planned here, without evaluations and checkpoints."""
    from tfscale.composition.hydra_compose import compose
    from tfscale.data.order import Portion, Shard
    from tfscale.preflight import plan_run
    from tfscale.runtime import global_state as runtime

    config = compose(["+recipe=gpt", f"data.path={path}", "tracker=none", "plan.strategy=one_device"])
    plan = plan_run(config)
    runtime.apply(plan, seed=0)
    from tfscale.assembly.assembled import assemble
    from tfscale.data.pipeline import build_dataset
    from tfscale.engine.control import LoopControl

    strategy, train = runtime.build_strategy(plan), config.train
    config.data.prepare()
    made = assemble(config, strategy)
    trainer = made.trainer(plan, LoopControl(clip_norm=train.clip_norm))
    portion = Portion("train", Shard(train.global_batch), training=True, seed=train.seed)
    batches = iter(
        strategy.distribute_datasets_from_function(lambda _: build_dataset(config.data, made.task, portion, plan))
    )
    state = made.state

    def run(steps: int) -> None:
        trainer.train(batches, until=state.step + steps)

    parameters = sum(int(v.value.shape.num_elements()) for v in state.model.trainable_variables)
    how = f"{plan.precision}, xla {plan.xla}, deterministic {plan.deterministic}"
    return Work(run, 20, {"parameters": parameters, "precision": plan.precision.removeprefix("mixed_"), "how": how})


def question(path: str, python: Path | None, *, bfloat16: bool) -> Question:
    """Args: bfloat16: whether PyTorch is measured in it, too: what is planned here may be either."""
    found = [
        Contestant("ours", "benchmarks.gpt:ours", (path,)),
        Contestant("ours again", "benchmarks.gpt:ours", (path,)),
    ]
    notes = [
        "Equal model, text, AdamW, clipping and threads; every contestant in its best form for this size. Rows are"
        " drawn at random by each, so that equal parameters are all the proof of equal work there is.",
    ]
    if python is None:
        notes.append("Without PyTorch: ours alone.")
    else:
        found += [
            Contestant(f"torch {how} {short}", "benchmarks.gpt_torch:work", (path, how, short), python=str(python))
            for short in (("float32", "bfloat16") if bfloat16 else ("float32",))
            for how in ("eager", "compiled")
        ]
    title = f"gpt: 4 layers, 4 heads, 128 wide, contexts of 64, batch {BATCH}"
    return Question(title, "examples/s", tuple(found), (), ("ours again", "ours"), "ours", BATCH, tuple(notes))


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked, ContestantFailed."""
    with tempfile.TemporaryDirectory() as scratch:
        if asking.quick:
            text = Path(scratch) / "numbers.txt"
            text.write_text("\n".join(str(7 * i) for i in range(20_000)))
        elif asking.text is None or not asking.text.is_file():
            raise NotAsked("give a text file, such as tinyshakespeare's, by --text FILE")
        else:
            text = asking.text.resolve()
        asked = question(str(text), None if asking.quick else peers_python(asking.say), bfloat16=computes_bfloat16())
        found = asking.measure(asked)
    sizes = {name: facts["parameters"] for name, facts in found.facts.items()}
    unequal = [f"{name}: {count} parameters" for name, count in sizes.items() if count != sizes["ours"]]
    pairs = [("ours", name) for name in sizes if not name.startswith("ours")]
    return [of_measured(f"step:{part}", found, pairs=pairs, unequal=unequal)]


def main(arguments: list[str] | None = None) -> int:
    parser = report.parser("python -m benchmarks.gpt", __doc__.splitlines()[0], seconds=3.0)
    parser.add_argument("text", help="a text file, such as tinyshakespeare's")
    chosen = report.parsed(parser, arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    python = peers_python(say)
    path = str(Path(chosen.text).resolve())
    try:
        found = measure(
            question(path, python, bfloat16=computes_bfloat16()),
            blocks=chosen.blocks,
            seconds=chosen.seconds,
            seed=chosen.seed,
            say=say,
        )
    except ContestantFailed as error:
        say(f"gpt: {error}")
        return 1
    made = report.build("A small decoder", [found], blocks=chosen.blocks, seconds=chosen.seconds)
    report.publish(made, chosen.report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
