"""Which thread computes a request's batch."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
from support.served_models import write_double

from tfscale.serving.model_place import version_at
from tfscale.serving.request_batches import Batches, Limits
from tfscale.serving.tensorflow_model import TensorFlowModel


def test_a_brief_request_that_is_alone_needs_no_other_thread(tf, tmp_path):
    model = TensorFlowModel.load(version_at(write_double(tmp_path / "double")))
    computed: list[tuple[int, bool]] = []
    one = {"x": np.ones([1, 3], np.float32)}

    async def ask():
        batches = Batches(model, Limits(), seen=seen)
        await batches.warm_up()
        batches._brief = {1}  # as it is found on any machine that isn't too busy
        await batches.answer(one, 1, timeout=10.0)
        answers = await asyncio.gather(*(batches.answer(one, 1, timeout=10.0) for _ in range(5)))
        assert all(answer["y"].tolist() == [[2, 2, 2]] for answer in answers)
        batches._brief = set()
        await batches.answer(one, 1, timeout=10.0)
        await batches.drained()

    def seen(rows, seconds):
        computed.append((rows, threading.current_thread() is threading.main_thread()))

    asyncio.run(ask())
    assert computed == [(1, True), (5, False), (1, False)]  # those that come together are one batch, for a thread
