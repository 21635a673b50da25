"""The step of Keras models as people write them: `tfscale.fit` beside Keras's fit and PyTorch, from the same weights.

    python -m benchmarks.step transformer --report benchmarks/results/DATE-step.md

Measured is the time per step of steady training; start-up and compilation are not in it. Before it, every contestant
trains the same 20 batches: their parameters and FLOPs must be equal and their mean losses must agree, else it isn't the
same work. PyTorch lives in an environment of its own, see input.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report, step_limit
from benchmarks.asking import Asking, computes_bfloat16
from benchmarks.input import peers_python
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.side_by_side import ROOT, Contestant, ContestantFailed, Measured, Question
from benchmarks.step_models import QUICK, SPECS, spec

BFLOAT16 = 2e-2  # by which mean losses in bfloat16 may differ at least, or ten times as much as in float32
FLOPS = 0.01  # by which FLOPs may differ: what a library counts as a product differs a little
WRITTEN = "keras as written float32"
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def question(
    name: str, weights: Path, python: Path | None, *, bfloat16: bool = True, flops: int | None = None
) -> Question:
    """Args: weights: of the first step, beside which run folders may lie; python: PyTorch's, None to leave it out;
    bfloat16: whether that is measured, too; flops: of one example's forward pass, where they could be counted."""
    scratch, found = str(weights.parent), spec(name)
    precisions = ("float32", "bfloat16") if bfloat16 else ("float32",)
    ways = {"as written": "written", "in loops": "loops", **({"xla": "xla"} if found.xla else {})}
    contestants = [Contestant(one, "benchmarks.step_keras:ours", (name, scratch)) for one in ("ours", "ours again")]
    notes = [f"Equal model, first weights, data, {found.optimizer} and batches of {found.batch}.", *found.notes]
    if name.endswith(QUICK):
        return _question(name, [*contestants, _keras(name, "as written", "written", "float32")], notes)
    if bfloat16:
        contestants.append(Contestant("ours bfloat16", "benchmarks.step_keras:ours", (name, scratch, "mixed_bfloat16")))
    else:
        notes.append("Without bfloat16, which this machine doesn't compute itself.")
    contestants += [_keras(name, way, how, short) for short in precisions for way, how in ways.items()]
    if python is None:
        notes.append("PyTorch could not be installed.")
    else:
        contestants += [
            Contestant(
                f"torch {how} {short}", "benchmarks.step_torch:work", (name, str(weights), short, how),
                python=str(python),
            )
            for short in precisions
            for how in ("eager", "compiled")
        ]  # fmt: skip
    if flops:
        contestants += [
            Contestant(f"{step_limit.NAME} {short}", "benchmarks.step_limit:work", (name, str(flops), short))
            for short in precisions
        ]
    return _question(name, contestants, notes)


def _keras(name: str, way: str, how: str, precision: str) -> Contestant:
    return Contestant(f"keras {way} {precision}", "benchmarks.step_keras:keras_fit", (name, POLICIES[precision], how))


def _question(name: str, contestants: list[Contestant], notes: list[str]) -> Question:
    found = spec(name)
    title = f"{found.title}, batch {found.batch}" if not name.endswith(QUICK) else f"{name}, small"
    return Question(
        title, "examples/s", tuple(contestants), (), ("ours again", "ours"), "ours", found.batch, tuple(notes)
    )


def pairs(facts: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Ours beside every peer that computes in the same precision, and as planned beside Keras as it is written."""
    own = [name for name in ("ours", "ours bfloat16") if name in facts]
    same: list[tuple[str, str]] = [
        (mine, peer)
        for mine in own
        for peer in facts
        if not peer.startswith(("ours", step_limit.NAME)) and facts[mine]["precision"] == facts[peer]["precision"]
    ]
    return same if ("ours", WRITTEN) in same else [("ours", WRITTEN), *same]


def unequal(
    facts: dict[str, dict[str, Any]], tolerance: float, flops: int | None = None, *, reference: str = WRITTEN
) -> list[str]:
    """Which contestants don't do the same work, by parameters, by FLOPs, and by the mean loss of their first 20 steps.

    Args:
        facts: of each contestant.
        tolerance: of the mean loss in float32, relative to Keras's.
        flops: of the Keras model's forward pass of one example; compared with those that count theirs.
        reference: the contestant whose parameters and losses are the right ones.
    """
    wanted = facts[reference]
    wrong = []
    for name, told in facts.items():
        if name.startswith(step_limit.NAME):
            continue
        apart = abs(told["loss"] / wanted["loss"] - 1)
        bound = tolerance if told["precision"] == "float32" else max(BFLOAT16, 10 * tolerance)
        if told["parameters"] != wanted["parameters"] or not apart < bound:
            wrong.append(f"{name}: {told['parameters']} parameters, loss {told['loss']:.5f} ({apart:.1e} apart)")
        asked = name.rpartition(" ")[2]
        if asked in POLICIES and name.startswith(("keras", "torch")) and asked != told["precision"]:
            wrong.append(f"{name}: computed in {told['precision']}")
        if flops and told.get("flops") and abs(told["flops"] / flops - 1) > FLOPS:
            wrong.append(f"{name}: {told['flops']} FLOPs forward, where the Keras model has {flops}")
    return wrong


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises ContestantFailed."""
    name = part + QUICK if asking.quick else part
    python = None if asking.quick else peers_python(asking.say)
    with tempfile.TemporaryDirectory() as scratch:
        found, flops = measured(name, Path(scratch), python, asking)
    wrong = unequal(found.facts, spec(name).tolerance, flops)
    limits = [one for one in found.facts if one.startswith(step_limit.NAME)]
    return [of_measured(f"step:{part}", found, pairs=pairs(found.facts), limits=limits, unequal=wrong)]


def measured(name: str, scratch: Path, python: Path | None, asking: Asking) -> tuple[Measured, int | None]:
    """The windows, and the FLOPs of the Keras model; raises ContestantFailed."""
    asked, flops = prepared(name, scratch, python)
    return asking.measure(asked), flops


def prepared(name: str, scratch: Path, python: Path | None) -> tuple[Question, int | None]:
    """The question, whose first weights are written, and the FLOPs of the Keras model; raises ContestantFailed."""
    weights, flops = prepared_weights(name, scratch, needed=bool(python))  # PyTorch alone reads them
    return question(name, weights, python, bfloat16=computes_bfloat16(), flops=flops), flops


def prepared_weights(name: str, scratch: Path, *, needed: bool) -> tuple[Path, int | None]:
    """The file of the first weights, and the FLOPs of the Keras model; neither is made where nobody needs them.

    Raises:
        ContestantFailed
    """
    weights = scratch / "weights.npz"
    if not needed:
        return weights, None
    command = [sys.executable, "-m", "benchmarks.step_weights", name, str(weights)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ContestantFailed(f"the first weights could not be written:\n{done.stderr[-4000:]}")
    return weights, json.loads(done.stdout)["flops"]


def main(arguments: list[str] | None = None) -> int:
    parser = report.parser("python -m benchmarks.step", (__doc__ or "").splitlines()[0], seconds=3.0)
    parser.add_argument("models", nargs="+", choices=sorted(SPECS))
    chosen = report.parsed(parser, arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    asking = Asking(blocks=chosen.blocks, seconds=chosen.seconds, seed=chosen.seed, say=say)
    python, results, wrong = peers_python(say), [], []
    for name in chosen.models:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                found, flops = measured(name, Path(scratch), python, asking)
        except ContestantFailed as error:
            say(f"step: {error}")
            return 1
        wrong += unequal(found.facts, spec(name).tolerance, flops)
        results.append(found)
    made = report.build("The step of Keras models", results, blocks=chosen.blocks, seconds=chosen.seconds)
    report.publish(made, chosen.report)
    for one in wrong:
        say(f"not the same work: {one}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
