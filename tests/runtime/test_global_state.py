"""What TensorFlow is kept from, where its strategies are built."""

from __future__ import annotations

import os

from tfscale.runtime import global_state


def test_a_broken_description_of_a_cluster_is_not_read_by_tensorflow(tf, monkeypatch):
    """TFSCALE_CLUSTER=local wins over it, and our own reader says what is wrong where it counts."""
    monkeypatch.setenv("TF_CONFIG", "{broken")
    strategy = global_state._mirrored.__wrapped__((tf.config.list_logical_devices("CPU")[0].name,))
    assert strategy.num_replicas_in_sync == 1 and os.environ["TF_CONFIG"] == "{broken"
