"""The examples in a SavedModel with which a server warms it up, in TensorFlow Serving's own form.

Owns assets.extra/tf_serving_warmup_requests: a TFRecord file of PredictionLog messages, one example each
(tensorflow.org/tfx/serving/saved_model_warmup). Refuses to know servers.

    write_examples(folder / "saved_model", {"image": [png, jpeg]}, {"image": tf.TensorSpec([None], tf.string)})
    read_examples(folder / "saved_model")      # {"image": array of 2 bytes}
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.export.proto_messages import messages

if TYPE_CHECKING:
    import numpy as np

# What is written of tensorflow_serving/apis/{model,predict,prediction_log}.proto (github.com/tensorflow/serving)
_DEFINED = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map .tensorflow.TensorProto")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}
FILE = Path("assets.extra", "tf_serving_warmup_requests")
_LARGEST = 4_000_000  # bytes of one example: a server reads them at every start


@functools.cache
def _log() -> Any:
    """The class PredictionLog."""
    from tensorflow.core.framework import tensor_pb2

    return messages("tensorflow.serving", _DEFINED, needed=[tensor_pb2.DESCRIPTOR])["PredictionLog"]


def write_examples(saved_model: Path, samples: Mapping[str, Sequence[Any]], dtypes: Mapping[str, Any]) -> int:
    """Writes so many of the examples as are small enough.

    Args:
        samples: of each input of the signature the examples.
        dtypes: of each input, TensorFlow's.

    Returns:
        How many were written.
    """
    import numpy as np
    import tensorflow as tf

    logs = []
    for place in range(len(next(iter(samples.values())))):
        log = _log()()
        request = log.predict_log.request
        request.model_spec.signature_name = "serving_default"
        for name, values in samples.items():
            texts = object if dtypes[name] == tf.string else None  # NumPy's own bytes lose zeros at their end
            row = np.asarray(values[place], texts)[np.newaxis]
            tensor = tf.make_tensor_proto(row, dtype=dtypes[name])
            request.inputs[name].MergeFromString(tensor.SerializeToString())
        if log.ByteSize() <= _LARGEST:
            logs.append(log.SerializeToString())
    if logs:
        file = saved_model / FILE
        file.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(file)) as out:
            for one in logs:
                out.write(one)
    return len(logs)


def read_examples(saved_model: Path) -> dict[str, np.ndarray]:
    """The examples by input, [examples, ...]; those of another shape than the first are left out. Empty where there are
    none, or none that can be read: a server can do without."""
    import numpy as np
    import tensorflow as tf

    file = saved_model / FILE
    if not file.is_file():
        return {}
    rows: list[dict[str, np.ndarray]] = []
    try:
        for record in tf.data.TFRecordDataset(str(file)):
            log = _log().FromString(record.numpy())
            inputs = log.predict_log.request.inputs
            rows.append({name: tf.make_ndarray(inputs[name]) for name in inputs})
    except Exception:  # a file of others, or a broken one
        return {}
    alike = [row for row in rows if {n: v.shape for n, v in row.items()} == {n: v.shape for n, v in rows[0].items()}]
    return {name: np.concatenate([row[name] for row in alike]) for name in rows[0]} if rows else {}
