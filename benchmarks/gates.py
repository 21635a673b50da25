"""What the suite must show, as a table: each gate with the ratio that it is read from, and the measured column.

Owns which ratio counts for a gate. A gate beside several peers is read from the best of them: from the ratio that is
worst for ours.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from benchmarks.outcomes import Outcome, Results
from benchmarks.side_by_side import Ratio

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Gate:
    """The ratio of seconds or bytes, ours to the best of the peers, is at most `goal`.

    Attributes:
        question: the outcome's name, "step:vit".
        ours: contestants of ours, of which the best counts.
        peers: names of contestants, with * and ?; {precision} stands for that in which ours computed.
    """

    line: str
    text: str
    question: str
    ours: tuple[str, ...]
    peers: tuple[str, ...]
    goal: float = 1.0


@dataclass(frozen=True)
class Reading:
    """A gate beside what was measured."""

    gate: Gate
    measured: str
    verdict: str


# The model, and how fast ours must be beside the fastest Keras fit and the fastest PyTorch of the same precision
_STEPS = (
    ("transformer", "transformer of Keras layers", {"ours": (1.15, 0.8), "ours bfloat16": (1.5, 0.9)}),
    ("vit", "ViT-S/16, 96 px", {"ours": (1.0, 1.0), "ours bfloat16": (1.0, 1.0)}),
    ("resnet50", "keras.applications.ResNet50, 128 px", {"ours": (1.0, 0.85), "ours bfloat16": (1.6, 1.0)}),
    ("digits", "digits' ResNet-20", {"ours": (1.0, 0.85), "ours bfloat16": (1.0, 1.0)}),
    ("lstm", "LSTM", {"ours": (1.0, 1.0), "ours bfloat16": (1.0, 1.0)}),
    ("wide_and_deep", "wide and deep, 1 M rows", {"ours": (1.0, 1.0), "ours bfloat16": (1.0, 1.0)}),
)
_OURS, _PLAIN = ("ours",), ("plain tf.data",)
_PRODUCTS = ("matrix products {precision}",)
_SAME = "{precision}"  # of the contestant of ours
_MODEL_CHECKPOINT, _DDP = ("keras ModelCheckpoint",), ("torch DDP",)


def _of_step(number: int, name: str, title: str, wanted: dict[str, tuple[float, float]]) -> list[Gate]:
    peers = {"the fastest Keras fit": f"keras * {_SAME}", "the fastest PyTorch": f"torch * {_SAME}"}
    ways = {"ours": "as planned", "ours bfloat16": "in bfloat16"}
    return [
        Gate(
            f"step {number}",
            f"{title}, {ways[ours]}: {who} in that precision",
            f"step:{name}",
            (ours,),
            (peer,),
            1 / speed,
        )
        for ours, speeds in wanted.items()
        for (who, peer), speed in zip(peers.items(), speeds, strict=True)
    ]


def _of_memory(number: int, name: str, title: str) -> list[Gate]:
    peers = {"Keras fit": f"keras * {_SAME}", "PyTorch": f"torch * {_SAME}"}
    return [
        Gate(f"memory {number}", f"{title}, peak as planned: {who} in that precision", f"memory:{name}", _OURS, (peer,))
        for who, peer in peers.items()
    ]


GATES = (
    *(gate for n, step in enumerate(_STEPS, 1) for gate in _of_step(n, *step)),
    Gate("step 3", "ResNet50 as planned: Keras as written", "step:resnet50", _OURS, ("keras as written*",), 1 / 1.3),
    Gate(
        "step 7",
        "GPT of nanoGPT's size for a CPU, as planned: the fastest PyTorch",
        "step:gpt",
        _OURS,
        ("torch *",),
        1 / 0.9,
    ),
    *(
        Gate(
            "MFU",
            f"{title} in bfloat16: its FLOPs as matrix products",
            f"step:{name}",
            ("ours bfloat16",),
            _PRODUCTS,
            1 / mfu,
        )
        for name, title, mfu in (("resnet50", "ResNet50", 0.45), ("transformer", "transformer", 0.3))
    ),
    Gate("loop 1", "300 parameters: a loop written by hand", "loop:mlp", _OURS, ("bare loop",), 1.10),
    Gate("loop 2", "300 parameters: Keras fit as written", "loop:mlp", _OURS, ("keras fit",), 1 / 3),
    Gate("loop 3", "ResNet-50, 64 px: Keras fit as written", "loop:resnet50", _OURS, ("keras fit",), 1 / 1.5),
    Gate("input 1", "photos of 256 px: plain tf.data", "input:256", _OURS, _PLAIN, 1 / 1.4),
    Gate("input 2", "photos of 512 px: plain tf.data", "input:512", _OURS, _PLAIN, 1 / 1.8),
    Gate("input 3", "photos of 1024 px: plain tf.data", "input:1024", _OURS, _PLAIN, 1 / 1.8),
    Gate("input 4", "photos of 256 px: DataLoader and Grain", "input:256", _OURS, ("DataLoader*", "Grain")),
    Gate("checkpoint 1", "the call: Keras ModelCheckpoint", "checkpoint:call", _OURS, _MODEL_CHECKPOINT, 0.1),
    Gate("checkpoint 2", "all it costs: Keras ModelCheckpoint", "checkpoint:stall", _OURS, _MODEL_CHECKPOINT, 0.1),
    Gate(
        "checkpoint 3",
        "all it costs: a copy in memory",
        "checkpoint:stall",
        _OURS,
        ("copy, reused memory",),
        1.5,
    ),
    Gate("scaling 1", "digits' ResNet-20, two workers: PyTorch's DDP", "scaling:digits", ("two workers",), _DDP),
    Gate("scaling 2", "ResNet-50, two workers: PyTorch's DDP", "scaling:resnet50", ("two workers",), _DDP),
    Gate("allreduce: gloo", "ResNet-50's gradients, two processes: gloo", "allreduce:resnet50", _OURS, ("gloo",)),
    Gate(
        "stall",
        "a step that reads photos: Keras fit on tf.data",
        "stall:photos",
        ("ours from photos",),
        ("keras from photos",),
    ),
    Gate("startup 1", "tfscale.fit in a script, to its first step: Keras fit", "startup:script", _OURS, ("keras fit",)),
    Gate("startup 2", "+recipe=resnet, to its first step: Keras fit", "startup:digits", _OURS, ("keras fit",)),
    *_of_memory(1, "transformer", "transformer of Keras layers"),
    *_of_memory(2, "resnet50", "keras.applications.ResNet50, 128 px"),
)


def readings(results: Results) -> list[Reading]:
    """All gates, with what these results say of them."""
    return [_reading(gate, results) for gate in GATES]


def _reading(gate: Gate, results: Results) -> Reading:
    outcome = results.outcome(gate.question)
    found = worst(outcome, gate) if outcome else None
    if outcome is None or found is None:
        return Reading(gate, NOT_MEASURED, results.why(gate.question))
    ours, peer, ratio = found
    told = f"{ratio} ({ours} / {peer})"
    if results.quick:
        return Reading(gate, told, "quick: tells nothing of speed")
    if outcome.counts:
        return Reading(gate, told, f"inconclusive ({outcome.counts})")
    if ratio.high <= gate.goal:
        return Reading(gate, told, "holds")
    return Reading(gate, told, "does not hold" if ratio.low > gate.goal else "inconclusive (the interval crosses it)")


def worst(outcome: Outcome, gate: Gate) -> tuple[str, str, Ratio] | None:
    """(ours, the peer, the ratio) that the gate is read from; None where one side didn't take part."""
    found = []
    for ours in gate.ours:
        precision = str(outcome.facts.get(ours, {}).get("precision", ""))
        wanted = [one.format(precision=precision) for one in gate.peers]
        peers = [one for one in outcome.values if any(fnmatch.fnmatchcase(one, each) for each in wanted)]
        if ours in outcome.values and peers:
            peer = max(peers, key=lambda one: outcome.ratio(ours, one).median)
            found.append((ours, peer, outcome.ratio(ours, peer)))
    return min(found, key=lambda one: one[2].median) if found else None
