"""What TensorFlow sees, as one line of JSON: python -m tfscale.doctor.tensorflow_sight [libraries]

A program of its own, since importing TensorFlow may hang, or end the process. With `libraries` it also tries those
that a GPU needs.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tfscale.doctor.gpu_libraries import wanted, why_not_loaded
from tfscale.process.startup import begin_program, lean

MARK = "tfscale-doctor:"  # before the line, since TensorFlow writes there, too


def sight(*, with_libraries: bool) -> dict[str, Any]:
    """Versions, kinds of devices, how TensorFlow was built, and by file why a library can't be loaded, "" if it can."""
    begin_program()
    with lean():
        import keras
        import tensorflow as tf

    build = {key: str(value) for key, value in tf.sysconfig.get_build_info().items()}
    found: dict[str, Any] = {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "built_for_cuda": build.get("is_cuda_build") == "True",
        "cuda": build.get("cuda_version", ""),
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
        "libraries": {},
    }
    if with_libraries:
        site = Path(tf.__file__).parents[1]
        files = wanted(build, _requirements()).values()
        found["libraries"] = {file: why_not_loaded(file, site) for file in files}
    return found


def _requirements() -> list[str]:
    for name in ("tensorflow", "tensorflow-cpu", "tf-nightly"):
        try:
            return metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
    return []


if __name__ == "__main__":
    print(f"\n{MARK}{json.dumps(sight(with_libraries='libraries' in sys.argv[1:]))}", flush=True)
