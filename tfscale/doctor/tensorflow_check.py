"""What TensorFlow sees beside what the driver shows, asked in a process that may hang or die.

Owns what to do where they differ. Refuses to import TensorFlow here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfscale.doctor.child_output import ChildEnd, run_child
from tfscale.doctor.diagnosis import OK, WRONG, Finding
from tfscale.doctor.tensorflow_sight import MARK
from tfscale.hardware import Hardware

PROGRAM = (sys.executable, "-m", "tfscale.doctor.tensorflow_sight")


def look_at_tensorflow(
    hardware: Hardware, *, environ: Mapping[str, str], seconds: float, program: Sequence[str] = PROGRAM
) -> Iterator[Finding]:
    """
    Args:
        seconds: that importing TensorFlow may take.
        program: what prints `tensorflow_sight.sight`.
    """
    wishes = ["libraries"] if hardware.gpus else []
    ended = run_child([*program, *wishes], environ=environ, seconds=seconds)
    told = next((line for line in reversed(ended.lines) if line.startswith(MARK)), None)
    if told is None:
        yield _silent(ended)
        return
    seen = json.loads(told.removeprefix(MARK))
    built = f"built for CUDA {seen['cuda']}" if seen["built_for_cuda"] else "built without CUDA"
    versions = f"TensorFlow {seen['tensorflow']} with Keras {seen['keras']}, {built}"
    yield Finding("tensorflow", OK, f"{versions}; it was ready after {ended.seconds:.1f} s")
    yield from compare_devices(hardware, seen, ended.lines)


def _silent(ended: ChildEnd) -> Finding:
    said = [line.strip() for line in ended.lines if line.strip()]
    last = f"; its last line: {said[-1][:300]}" if said else ""
    if ended.code is None:
        fix = (
            "try it by hand: python -X faulthandler -c 'import tensorflow'; on a slow disk give it longer by --timeout"
        )
        return Finding("tensorflow", WRONG, f"importing TensorFlow {ended.how}{last}", fix)
    fix = "see all of it: python -c 'import tensorflow'; then pip install --force-reinstall tensorflow"
    return Finding("tensorflow", WRONG, f"importing TensorFlow {ended.how}{last}", fix)


def compare_devices(hardware: Hardware, seen: Mapping[str, Any], lines: Sequence[str] = ()) -> Iterator[Finding]:
    """The devices of the driver and of TensorFlow, and where they differ why.

    Args:
        seen: what `tensorflow_sight.sight` returns.
        lines: what TensorFlow wrote meanwhile.
    """
    count, shown = seen["devices"].count("GPU"), len(hardware.gpus)
    kinds = ", ".join(f"{seen['devices'].count(kind)} {kind}" for kind in dict.fromkeys(seen["devices"]))
    shown_by_driver = f"the driver shows {shown} GPU{'s' * (shown != 1)}"
    if count >= shown:
        yield Finding("devices", OK, f"TensorFlow sees {kinds or 'no device'}; {shown_by_driver}")
        return
    fact = f"{shown_by_driver}, and TensorFlow sees {kinds or 'no device'}: it would train without"
    install = f'pip install "tensorflow[and-cuda]=={seen["tensorflow"]}"'
    if not seen["built_for_cuda"]:
        yield Finding("devices", WRONG, f"{fact}; this TensorFlow is built without CUDA", install)
        return
    failing = {file: cause for file, cause in seen["libraries"].items() if cause}
    if failing:
        yield Finding("devices", WRONG, f"{fact}; {len(failing)} libraries fail to load", install)
    else:
        said = next((line.strip() for line in lines if "CUDA" in line or "cuInit" in line), "")
        because = f"; it says: {said[:300]}" if said else ""
        fix = f"update the driver to one for CUDA {seen['cuda']}, and see that this container was given the GPUs"
        yield Finding("devices", WRONG, f"{fact}, though all its libraries load{because}", fix)
    for file, cause in failing.items():
        fix = f"{install}, or name the folder that holds {file} in LD_LIBRARY_PATH"
        yield Finding(
            f"library.{file.partition('.')[0]}",
            WRONG,
            f"{file} can't be loaded: {cause.removeprefix(f'{file}: ')}",
            fix,
        )
