"""MLServer's codecs: what they encode is answered, and they decode the answers."""

import sys
import urllib.request

import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def infer(model, *inputs):
    body = InferenceRequest(inputs=list(inputs)).model_dump_json().encode()  # with its nulls, as a plain dump has them
    url = f"http://127.0.0.1:{sys.argv[1]}/v2/models/{model}/infer"
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
        return {one.name: one for one in InferenceResponse.model_validate_json(answer.read()).outputs}


assert (NumpyCodec.decode_output(infer("double", NumpyCodec.encode_input("x", X))["y"]) == 2 * X).all()
count = NumpyCodec.encode_input("count", np.array([41], np.int32))  # [1, 1]
assert count.shape.root if hasattr(count.shape, "root") else count.shape
for codec, texts, joined in ((StringCodec, ["a", "b"], "ab"), (Base64Codec, [b"a", b"\xff"], b"a\xff")):
    given = codec.encode_input("texts", texts)
    given.shape = [1, 2]  # the model takes rows of two
    outputs = infer("texts", given, count)
    assert codec.decode_output(outputs["joined_bytes"]) == [joined], outputs
    assert NumpyCodec.decode_output(outputs["more"]).reshape(-1).tolist() == [42]
print("3 requests answered")
