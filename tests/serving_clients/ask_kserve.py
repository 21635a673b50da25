"""KServe's clients by REST, v1 and v2, and by gRPC."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

http, grpc = f"http://127.0.0.1:{sys.argv[1]}", f"127.0.0.1:{sys.argv[2]}"
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def request(**how):
    given = InferInput("x", [2, 3], "FP32")
    given.set_data_from_numpy(X, **how)
    return InferRequest(model_name="double", infer_inputs=[given])


async def main():
    second = InferenceRESTClient(config=RESTConfig(protocol="v2"))
    for binary in (False, True):
        answer = await second.infer(http, request(binary_data=binary), model_name="double")
        assert (answer.outputs[0].as_numpy() == 2 * X).all()
    assert await second.is_server_live(http) and await second.is_server_ready(http)
    assert await second.is_model_ready(http, "double")
    first = InferenceRESTClient(config=RESTConfig(protocol="v1"))
    assert await first.infer(http, {"instances": X.tolist()}, model_name="double") == {"predictions": (2 * X).tolist()}
    client = InferenceGRPCClient(grpc)
    assert ((await client.infer(request())).outputs[0].as_numpy() == 2 * X).all()
    assert await client.is_server_ready() and await client.is_server_live() and await client.is_model_ready("double")
    print("9 requests answered")


asyncio.run(main())
