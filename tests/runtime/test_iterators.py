"""Iterators of distributed data sets are dropped at once, however old they are and however busy the machine."""

from __future__ import annotations

import contextlib
import inspect
import subprocess
import sys
import time

from support.tiny_run import plan_for

from tfscale.runtime import global_state as runtime

_COUNT, _AGE = 16, 2.9  # seconds; a tuning thread would sleep from the 2.6th to the 5.1st


def test_an_old_iterator_is_dropped_at_once(tf, monkeypatch):
    from tensorflow.python.data.ops import multi_device_iterator_ops as made_by

    monkeypatch.setattr(made_by, "_create_device_dataset", inspect.unwrap(made_by._create_device_dataset))
    runtime.import_tensorflow(plan_for(8))
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")

    def build(_):
        options = tf.data.Options()
        options.autotune.enabled = False  # as our pipelines have it
        return tf.data.Dataset.range(10**9).batch(4).prefetch(2).with_options(options)

    iterators = [iter(strategy.distribute_datasets_from_function(build)) for _ in range(_COUNT)]
    for iterator in iterators:
        next(iterator)
    began = time.monotonic()
    with contextlib.ExitStack() as busy:
        for _ in range(4):
            process = busy.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            busy.callback(process.kill)
        time.sleep(max(0.0, _AGE - (time.monotonic() - began)))
        longest = 0.0
        while iterators and longest < 1:
            dropped = time.monotonic()
            iterator = iterators.pop()
            next(iterator)
            del iterator
            longest = max(longest, time.monotonic() - dropped)
    assert longest < 1
