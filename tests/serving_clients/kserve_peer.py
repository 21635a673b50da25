"""KServe's own server of SavedModels: python kserve_peer.py PORT GRPC_PORT NAME=FOLDER ..., where kserve is installed."""

import sys

import numpy as np
import tensorflow as tf
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.numpy_codec import from_np_dtype
from kserve.utils.utils import generate_uuid


class Served(Model):
    """One signature, as KServe's documents write a custom model: it answers in bytes or lists as KServe decides."""

    def __init__(self, name, folder):
        super().__init__(name)
        self._held = tf.saved_model.load(folder)
        self._function = self._held.signatures["serving_default"]
        self._inputs = self._function.structured_input_signature[1]
        self.ready = True

    def get_input_types(self):
        return described(self._inputs)

    def get_output_types(self):
        return described(self._function.structured_outputs)

    def predict(self, payload, headers=None, response_headers=None):
        is_v2 = isinstance(payload, InferRequest)
        arrays = {one.name: one.as_numpy() for one in payload.inputs} if is_v2 else self._columns(payload)
        given = {name: tf.constant(array) for name, array in arrays.items()}
        answers = {name: value.numpy() for name, value in sorted(self._function(**given).items())}
        return self._second(payload, answers) if is_v2 else self._first(answers)

    def _columns(self, payload):
        rows = payload["inputs"] if "inputs" in payload else payload["instances"]  # as KServe's get_predict_input
        if not isinstance(rows[0], dict):
            rows = [dict.fromkeys(self._inputs, row) for row in rows]
        types = {name: object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype for name, spec in self._inputs.items()}  # fmt: skip
        return {name: np.array([row[name] for row in rows], types[name]) for name in self._inputs}

    def _first(self, answers):
        columns = {
            name: np.char.decode(value.astype("S")).tolist() if value.dtype == object else value.tolist()
            for name, value in answers.items()
        }
        if len(columns) == 1:
            return {"predictions": next(iter(columns.values()))}
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}

    def _second(self, payload, answers):
        outputs = []
        for name, answer in answers.items():
            output = InferOutput(name=name, shape=list(answer.shape), datatype=from_np_dtype(answer.dtype))
            output.set_data_from_numpy(answer, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or generate_uuid(), model_name=self.name, infer_outputs=outputs,
            use_binary_outputs=payload.use_binary_outputs, requested_outputs=payload.request_outputs,
        )  # fmt: skip


def described(specs):
    return [
        {
            "name": name,
            "datatype": "BYTES" if spec.dtype == tf.string else from_np_dtype(spec.dtype.as_numpy_dtype),
            "shape": [-1 if size is None else size for size in spec.shape],
        }
        for name, spec in sorted(specs.items())
    ]


if __name__ == "__main__":
    models = [Served(*one.split("=", 1)) for one in sys.argv[3:]]
    ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), workers=1).start(models)
