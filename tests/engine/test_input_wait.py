"""What counts as waiting for input, where one thread does everything, as in a container of one core."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, time
import tensorflow as tf
from tfscale.autograph import repeated
from tfscale.engine.input_wait import next_timed

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
batches = iter(tf.data.Dataset.from_tensors(tf.ones([700, 700])).repeat())

@tf.function(autograph=False)
def loop(deterministic):
    def step(x, waits):
        batch, waited = next_timed(batches, x, deterministic=deterministic)
        for _ in range(20):
            x = tf.nn.relu(tf.matmul(batch, x) / 700)
        return x, waits + waited

    start = tf.ones([700, 700]), tf.constant(0.0, tf.float64)
    return repeated(tf.constant(3), step, start)[1]

found = {}
for deterministic in (False, True):
    loop(deterministic)
    began = time.perf_counter()
    waited = float(loop(deterministic))
    found[str(deterministic)] = waited / (time.perf_counter() - began)
print(json.dumps(found))
"""


def test_a_step_on_one_thread_is_no_wait_for_its_input() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    if ended.returncode:
        pytest.fail(ended.stderr[-2000:])
    shares = json.loads(ended.stdout.splitlines()[-1])
    assert all(share < 0.3 for share in shares.values()), shares
