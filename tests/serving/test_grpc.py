"""gRPC by the official stubs of TensorFlow Serving, and by the Open Inference Protocol's messages."""

from __future__ import annotations

import struct

import grpc
import numpy as np
import pytest
from support.served_models import served, write_classes, write_double, write_texts

TOKEN = "a-token-that-nobody-guesses-0123456789"
METADATA = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture(scope="module")
def channel(tf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = {"double": write_double(folder / "a", step=5, gaps=[]), "texts": write_texts(folder / "b")}
    models["classes"] = write_classes(folder / "c")
    with served(models, grpc_port=0, token=TOKEN) as client, grpc.insecure_channel(f"127.0.0.1:{client.grpc}") as found:
        yield found


def infer(channel, method, request):
    from tfscale.serving.inference_messages import inference

    call = channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=inference(f"{method}Response").FromString,
    )
    return call(request, metadata=METADATA, timeout=20)


def test_tensorflow_servings_stubs(tf, channel):
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    stub = PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "texts"
    request.inputs["texts"].CopyFrom(tf.make_tensor_proto([[b"a", b"\xff"]]))
    request.inputs["count"].CopyFrom(tf.make_tensor_proto([41], tf.int32))
    answer = stub.Predict(request, metadata=METADATA)
    assert {n: tf.make_ndarray(t).tolist() for n, t in answer.outputs.items()} == {
        "joined_bytes": [b"a\xff"],
        "more": [42],
    }
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("texts", 1)
    request.output_filter.append("more")
    assert list(stub.Predict(request, metadata=METADATA).outputs) == ["more"]
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "double"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert stub.GetModelMetadata(asked, metadata=METADATA).metadata["signature_def"].Unpack(signatures)
    told = signatures.signature_def["serving_default"].inputs["x"]
    assert (told.dtype, [dim.size for dim in told.tensor_shape.dim]) == (1, [-1, 3])
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "double"
    (version,) = ModelServiceStub(channel).GetModelStatus(status, metadata=METADATA).model_version_status
    assert (version.version, version.state, version.status.error_message) == (5, 30, "")


def test_the_open_inference_protocol(channel):
    from tfscale.serving.inference_messages import inference

    request = inference("ModelInferRequest")(model_name="double", id="a")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4, 5, 6])
    answer = infer(channel, "ModelInfer", request)
    assert (answer.model_name, answer.model_version, answer.id) == ("double", "5", "a")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [2, 3])
    assert list(output.contents.fp32_contents) == [2, 4, 6, 8, 10, 12] and not answer.raw_output_contents
    tensor.ClearField("contents")
    request.raw_input_contents.append(np.arange(6, dtype="<f4").tobytes())
    answer = infer(channel, "ModelInfer", request)
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [0, 2, 4, 6, 8, 10]
    texts = inference("ModelInferRequest")(model_name="texts")
    texts.inputs.add(name="texts", datatype="BYTES", shape=[1, 2])
    texts.inputs.add(name="count", datatype="INT32", shape=[1])
    texts.outputs.add(name="joined_bytes")
    texts.raw_input_contents.extend(
        [b"".join(struct.pack("<I", 1) + one for one in (b"a", b"\xff")), struct.pack("<i", 1)]
    )
    assert infer(channel, "ModelInfer", texts).raw_output_contents == [struct.pack("<I", 2) + b"a\xff"]
    assert infer(channel, "ServerLive", inference("ServerLiveRequest")()).live
    assert infer(channel, "ServerReady", inference("ServerReadyRequest")()).ready
    assert infer(channel, "ModelReady", inference("ModelReadyRequest")(name="double")).ready
    assert not infer(channel, "ModelReady", inference("ModelReadyRequest")(name="none")).ready
    about = infer(channel, "ModelMetadata", inference("ModelMetadataRequest")(name="double"))
    assert [(one.name, one.datatype, list(one.shape)) for one in about.inputs] == [("x", "FP32", [-1, 3])]
    assert "binary_tensor_data" in infer(channel, "ServerMetadata", inference("ServerMetadataRequest")()).extensions


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ({"model_name": "none"}, "NOT_FOUND", "there is no model 'none'"),
        ({"model_version": "4"}, "NOT_FOUND", "served in version 5"),
        ({"shape": [2, 2]}, "INVALID_ARGUMENT", "has the shape"),
        ({"datatype": "FP64"}, "INVALID_ARGUMENT", "takes FP32"),
        ({"values": [1, 2, float("nan")]}, "INVALID_ARGUMENT", "NaN"),
        ({"name": "y"}, "INVALID_ARGUMENT", "takes x"),
        ({"output": "z"}, "INVALID_ARGUMENT", "answers y"),
        ({"raw": bytes(12)}, "INVALID_ARGUMENT", "not in both"),
    ],
)
def test_what_is_refused(channel, wrong, code, said):
    from tfscale.serving.inference_messages import inference

    given = {"model_name": "double", "model_version": "", "name": "x", "datatype": "FP32", "shape": [1, 3], **wrong}
    request = inference("ModelInferRequest")(model_name=given["model_name"], model_version=given["model_version"])
    tensor = request.inputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
    tensor.contents.fp32_contents.extend(given.get("values", [1, 2, 3]))
    request.raw_input_contents.extend([given["raw"]] if "raw" in given else [])
    if "output" in given:
        request.outputs.add(name=given["output"])
    with pytest.raises(grpc.RpcError) as refused:
        infer(channel, "ModelInfer", request)
    assert refused.value.code().name == code and said in refused.value.details()


def test_a_token_and_a_bound_hold_for_grpc_too(tf, channel):
    from tensorflow_serving.apis import predict_pb2
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    stub, request = PredictionServiceStub(channel), predict_pb2.PredictRequest()
    request.model_spec.name = "double"
    for metadata, code in (((), "UNAUTHENTICATED"), ((("authorization", "Bearer another"),), "PERMISSION_DENIED")):
        with pytest.raises(grpc.RpcError) as refused:
            stub.Predict(request, metadata=metadata)
        assert refused.value.code().name == code
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros([5_000_000, 3], np.float32)))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(request, metadata=METADATA)
    assert refused.value.code().name == "RESOURCE_EXHAUSTED"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros([1, 3], np.float64)))
    with pytest.raises(grpc.RpcError, match="takes float32, and was given float64"):
        stub.Predict(request, metadata=METADATA)
