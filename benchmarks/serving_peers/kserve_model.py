"""KServe's own server of the benchmark's SavedModel: python kserve_model.py FOLDER PORT, where kserve is installed."""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Served(Model):
    """One signature, as KServe's documents write a custom model."""

    def __init__(self, name: str, folder: str):
        super().__init__(name)
        self._held = tf.saved_model.load(folder)
        self._function = self._held.signatures["serving_default"]
        self._input = next(iter(self._function.structured_input_signature[1]))
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, InferRequest):
            array = payload.inputs[0].as_numpy().astype(np.float32)
        else:
            array = np.asarray(payload["instances"], np.float32)
        answers = {name: value.numpy() for name, value in self._function(**{self._input: tf.constant(array)}).items()}
        if not isinstance(payload, InferRequest):
            return {"predictions": next(iter(answers.values())).tolist()}
        outputs = []
        for name, answer in answers.items():
            output = InferOutput(name=name, shape=list(answer.shape), datatype="FP32")
            output.set_data_from_numpy(answer, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1).start([Served("m", sys.argv[1])])
