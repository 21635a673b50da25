"""One program run once, with what its fits came to: python recorded_run.py PROGRAM HOW OUT.npz [DEVICES]

HOW is who fits: `keras` by itself, `tfscale` in its place, `script`: whoever does under `tfscale run`, or `built`: Keras, but under a strategy its models are built
from the types of the data instead of a batch (see there). The program knows nothing of it: the folder is the current one,
`__name__` is "__main__", and `keras.Model.fit` is wrapped. OUT holds every History, the epochs and the weights after
each fit, by names such as fit0/history/loss, also of a program that fails later on. With DEVICES, the CPU is split into
so many logical devices, and Keras runs under a MirroredStrategy over them.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def recorded(fit: Callable[..., Any], found: dict[str, Any]) -> Callable[..., Any]:
    """The same fit, whose results go into `found`."""
    import numpy as np

    counted = iter(range(1000))

    def run(model: Any, *args: Any, **given: Any) -> Any:
        history = fit(model, *args, **given)
        name = f"fit{next(counted)}"
        found[f"{name}/epoch"] = np.asarray(history.epoch)
        for key, values in history.history.items():
            found[f"{name}/history/{key}"] = np.asarray(values, dtype=np.float64)
        for index, value in enumerate(model.get_weights()):
            if value.dtype.kind in "fiub":  # not the strings of a vocabulary
                found[f"{name}/weights/{index}"] = value
        return history

    return run


def ours(devices: int) -> Callable[..., Any]:
    """tfscale's fit as Keras's method: the same arguments, and its History."""
    import tfscale

    overrides = [f"plan.local_devices={devices}"] if devices > 1 else []

    def fit(model: Any, *args: Any, **given: Any) -> Any:
        tfscale.fit(model, *args, overrides=overrides, **given)
        return model.history

    return fit


def split_cpu(devices: int) -> list[str]:
    """The names of so many logical devices of the CPU."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def build_from_types() -> None:
    """Models are built from the types of the data.

    Keras averages the first batch over the replicas instead. That draws a batch, so that a data set which shuffles itself
    comes in another order than on one device, and fails for strings, booleans and batches that don't divide.
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    def build(model: Any, iterator: Any = None, data_batch: Any = None) -> None:
        def of_one_replica(spec: Any) -> Any:
            spec = getattr(spec, "_value_specs", [spec])[0]
            return tf.TensorSpec(spec.shape, spec.dtype)

        if iterator is not None:
            data_batch = tf.nest.map_structure(of_one_replica, iterator._distributed_dataset.element_spec)
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=data_batch)

    TensorFlowTrainer._maybe_symbolic_build = build


def main(program: str, how: str, out: str, devices: int = 1) -> None:
    """Runs the program to its end, and writes `out` however it ends."""
    import keras
    import numpy as np
    import tensorflow as tf

    names = split_cpu(devices) if devices > 1 else []
    if how in ("keras", "built") and names:
        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(names))
        if how == "built":
            build_from_types()
    found: dict[str, Any] = {}
    keras.Model.fit = recorded(ours(devices) if how == "tfscale" else keras.Model.fit, found)
    sys.argv, sys.path[0] = [program], str(Path(program).parent)
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]))
