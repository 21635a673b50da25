"""MLServer's runtime of a SavedModel, as its documents write a custom one."""

import tensorflow as tf
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Served(MLModel):
    """One signature."""

    async def load(self):
        self._held = tf.saved_model.load(self.settings.parameters.uri)
        self._function = self._held.signatures["serving_default"]
        return True

    async def predict(self, payload):
        arrays = {one.name: self._decoded(one) for one in payload.inputs}
        answers = self._function(**{name: tf.constant(array) for name, array in arrays.items()})
        wanted = [one.name for one in payload.outputs or []] or sorted(answers)
        return InferenceResponse(
            model_name=self.name, model_version=self.version, id=payload.id,
            outputs=[self._encoded(name, answers[name].numpy()) for name in wanted],
        )  # fmt: skip

    def _decoded(self, given):
        if given.datatype == "BYTES":
            return tf.reshape(
                tf.constant(StringCodec.decode_input(given)), list(getattr(given.shape, "root", given.shape))
            )
        return NumpyCodec.decode_input(given)

    def _encoded(self, name, array):
        if array.dtype == object:
            return StringCodec.encode_output(name, [one.decode() for one in array.reshape(-1)])
        return NumpyCodec.encode_output(name, array)
