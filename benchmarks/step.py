"""The step of Keras models as people write them: `tfscale.fit` beside Keras's fit and PyTorch, from the same weights.

    python -m benchmarks.step transformer --report benchmarks/results/DATE-step.md

Measured is the time per step of steady training; start-up and compilation are not in it. Before it, every contestant
trains the same 20 batches, and their mean losses must agree: else it isn't the same work. PyTorch lives in an
environment of its own, see input.py.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.input import peers_python
from benchmarks.side_by_side import ROOT, Contestant, ContestantFailed, Measured, Question, measure
from benchmarks.step_models import BATCHES

TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}  # of the mean loss of 20 steps, relative to Keras's in float32


def question(name: str, weights: Path, python: Path | None) -> Question:
    scratch, kinds = str(weights.parent), {"float32": "float32", "bfloat16": "mixed_bfloat16"}
    found = [
        Contestant("ours", "benchmarks.step_keras:ours", (name, scratch)),
        Contestant("ours again", "benchmarks.step_keras:ours", (name, scratch)),
        Contestant("ours bfloat16", "benchmarks.step_keras:ours", (name, scratch, "mixed_bfloat16")),
        Contestant("keras as written", "benchmarks.step_keras:keras_fit", (name, "float32", "")),
    ]
    found += [
        Contestant(f"keras tuned {short}", "benchmarks.step_keras:keras_fit", (name, policy, "tuned"))
        for short, policy in kinds.items()
    ]
    notes = ["Equal model, first weights, data, AdamW and threads."]
    if python is None:
        notes.append("PyTorch could not be installed.")
    else:
        found += [
            Contestant(
                f"torch {how} {short}", "benchmarks.step_torch:work", (name, str(weights), short, how),
                python=str(python),
            )
            for short in kinds
            for how in ("eager", "compiled")
        ]  # fmt: skip
    return Question(name, "examples/s", tuple(found), (), ("ours again", "ours"), "ours", BATCHES[name], tuple(notes))


def unequal(found: Measured) -> list[str]:
    """Which contestants don't do the same work, by the mean loss of their first 20 steps and by their parameters."""
    wanted = found.facts["keras as written"]
    wrong = []
    for name, facts in found.facts.items():
        apart = abs(facts["loss"] / wanted["loss"] - 1)
        bound = TOLERANCE["bfloat16" if "bfloat16" in f"{name} {facts['how']}" else "float32"]
        if facts["parameters"] != wanted["parameters"] or not apart < bound:
            wrong.append(f"{name}: {facts['parameters']} parameters, loss {facts['loss']:.5f} ({apart:.1e} apart)")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = report.parser("python -m benchmarks.step", (__doc__ or "").splitlines()[0], seconds=3.0)
    parser.add_argument("models", nargs="+", choices=sorted(BATCHES))
    chosen = report.parsed(parser, arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    python, results, wrong = peers_python(say), [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen.models:
            weights = Path(scratch) / f"{name}.npz"
            subprocess.run([sys.executable, "-c", _WEIGHTS, name, str(weights)], cwd=ROOT, check=True)
            try:
                found = measure(
                    question(name, weights, python),
                    blocks=chosen.blocks,
                    seconds=chosen.seconds,
                    seed=chosen.seed,
                    say=say,
                )
            except ContestantFailed as error:
                say(f"step: {error}")
                return 1
            wrong += unequal(found)
            results.append(found)
    made = report.build("The step of Keras models", results, blocks=chosen.blocks, seconds=chosen.seconds)
    report.publish(made, chosen.report)
    for one in wrong:
        say(f"not the same work: {one}")
    return 1 if wrong else 0


_WEIGHTS = """
import sys, numpy
from benchmarks.step_models import build
numpy.savez(sys.argv[2], **{str(i): v.numpy() for i, v in enumerate(build(sys.argv[1]).trainable_variables)})
"""

if __name__ == "__main__":
    sys.exit(main())
