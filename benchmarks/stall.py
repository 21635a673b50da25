"""What real input costs a training: a step from JPEG photos beside the same step from one batch in memory.

    python -m benchmarks stall --photos photos.tar --json results.json

Ours, as `+recipe=resnet data=image_folder` trains, beside Keras fit on a plain tf.data pipeline; both in float32. On a
CPU the input takes its time from the step's own cores, so that CPU seconds are told beside the clock's.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.asking import Asking, NotAsked
from benchmarks.input import drawn_photos, photos_of
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.side_by_side import Contestant, Measured, Question
from benchmarks.stall_contestants import BATCH, FILES, MEMORY, SIZES

OURS, AGAIN, OURS_MEMORY = "ours from photos", "ours from photos again", "ours from memory"
KERAS, KERAS_MEMORY = "keras from photos", "keras from memory"
CONTESTANTS = {
    OURS: ("ours", FILES),
    AGAIN: ("ours", FILES),
    OURS_MEMORY: ("ours", MEMORY),
    KERAS: ("keras", FILES),
    KERAS_MEMORY: ("keras", MEMORY),
}
NOTES = (
    f"Batches of {BATCH} random-resized crops (35 to 100 % of the area), mirrored or not, float32, SGD with Nesterov's"
    " momentum and weight decay. Files are in the system's memory. The few batches that a pipeline has ready when its"
    " window begins are in nobody's time.",
)


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked, ContestantFailed."""
    if not asking.quick and not (asking.photos and asking.photos.is_file()):
        raise NotAsked("give a tar of class folders of JPEG photos by --photos FILE")
    name = "quick" if asking.quick else part
    with tempfile.TemporaryDirectory() as scratch:
        photos = asking.photos if asking.photos and not asking.quick else drawn_photos(Path(scratch) / "photos.tar")
        folder = photos_of(photos, 0, Path(scratch)) / "train"
        inside = folder / "train"  # of a tar of splits, whose training split it is
        found = asking.measure(question(name, inside if inside.is_dir() else folder))
    told = of_measured(f"stall:{part}", found, pairs=[(OURS, KERAS), (OURS_MEMORY, KERAS_MEMORY)])
    return [dataclasses.replace(told, notes=(*told.notes, *costs(found)), unequal=tuple(unequal(found)))]


def question(name: str, folder: Path) -> Question:
    size = SIZES[name]
    chosen = [OURS, KERAS] if name == "quick" else list(CONTESTANTS)
    return Question(
        title=f"a step of ResNet-{size.depth}, width {size.width}, {size.side} px, batch {BATCH}, from photos",
        unit="examples/s",
        contestants=tuple(
            Contestant(one, f"benchmarks.stall_contestants:{who}", (name, str(folder), source))
            for one, (who, source) in CONTESTANTS.items()
            if one in chosen
        ),
        claims=(),
        control=(AGAIN, OURS),
        baseline=OURS,
        batch=BATCH,
        notes=NOTES,
    )


def costs(measured: Measured) -> list[str]:
    """What photos cost beside memory, by the clock and in CPU seconds, for people."""
    told = []
    for who, photos, memory in (("ours", OURS, OURS_MEMORY), ("Keras", KERAS, KERAS_MEMORY)):
        if memory in measured.seconds:
            spent = [float(np.median(1e3 * measured.seconds[one] * measured.cpu[one])) for one in (photos, memory)]
            each = (spent[0] - spent[1]) / BATCH
            told.append(
                f"A step from photos takes {measured.ratio(photos, memory)} times that from memory ({who}); CPU time"
                f" {spent[0]:.4g} ms beside {spent[1]:.4g} ms, {each:.3g} ms for each photo."
            )
    return told


def unequal(measured: Measured) -> list[str]:
    wanted = measured.facts[OURS]["parameters"]
    found = {name: told["parameters"] for name, told in measured.facts.items()}
    return [f"{name}: {count} parameters, ours {wanted}" for name, count in found.items() if count != wanted]
