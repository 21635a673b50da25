"""MLServer's runtime of the benchmark's SavedModel, as its documents write a custom one."""

from __future__ import annotations

import tensorflow as tf
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Served(MLModel):
    """One signature."""

    async def load(self) -> bool:
        self._held = tf.saved_model.load(self.settings.parameters.uri)
        self._function = self._held.signatures["serving_default"]
        self._input = next(iter(self._function.structured_input_signature[1]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        array = NumpyCodec.decode_input(payload.inputs[0])
        answers = self._function(**{self._input: tf.constant(array, tf.float32)})
        outputs = [NumpyCodec.encode_output(name, value.numpy()) for name, value in answers.items()]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
