"""gRPC: TensorFlow Serving's PredictionService and ModelService, and the Open Inference Protocol's service.

Owns grpc's server and which of its codes stands for which refusal. Refuses to know how a model is called. A message is
read before anything can refuse it: `serve.body` bounds one, and `serve.queue` how many there are at once.

    server = GrpcServer(models, options, metrics, log)
    port = await server.start()
    await server.stop()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import grpc
import numpy as np

from tfscale.config.serve_options import ServeOptions
from tfscale.errors import ClusterFault, UsageError, first_line
from tfscale.serving.answering import Computed
from tfscale.serving.bearer import check_bearer
from tfscale.serving.inference_messages import PACKAGE, answered, arrays_of, described, inference
from tfscale.serving.loaded_model import SIGNATURE
from tfscale.serving.open_inference import EXTENSIONS
from tfscale.serving.refusal import Refusal, bad_request
from tfscale.serving.repository import Repository
from tfscale.serving.request_batches import Batches
from tfscale.serving.request_log import RequestLog
from tfscale.serving.service_metrics import ServiceMetrics
from tfscale.serving.tensor_specs import TensorSpec, check_rows, refuse_unknown
from tfscale.version import __version__

_log = logging.getLogger(__name__)
_Method = Callable[[Any], Awaitable[Any]]
_CODES = {
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
}


class GrpcServer:
    """One server; whoever makes it has loaded the models."""

    def __init__(self, models: Repository, options: ServeOptions, metrics: ServiceMetrics, log: RequestLog):
        self._models, self._options, self._metrics, self._log = models, options, metrics, log
        self._server: Any = None

    async def start(self) -> int:
        """Returns the port.

        Raises:
            ClusterFault: it is taken.
            UsageError: tensorflow-serving-api isn't installed.
        """
        options = self._options
        limits = [(f"grpc.max_{way}_message_length", options.body) for way in ("receive", "send")]
        self._server = grpc.aio.server(
            options=[*limits, ("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=options.queue
        )
        for service, methods in self._services().items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answering(method), request_deserializer=kind.FromString, response_serializer=_serialized
                )
                for name, (method, kind) in methods.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        address = f"{f'[{options.host}]' if ':' in options.host else options.host}:{options.grpc_port}"
        try:
            if options.tls_cert is not None and options.tls_key is not None:
                pair = (options.tls_key.read_bytes(), options.tls_cert.read_bytes())
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ClusterFault(
                f"{address} can't be listened on: {first_line(error)}",
                where="serve.grpc_port",
                fix="choose another port",
            ) from None
        await self._server.start()
        return int(port)

    async def stop(self) -> None:
        """Takes no new request, and waits for those that were begun, as long as `serve.drain` says."""
        if self._server is not None:
            await self._server.stop(self._options.drain)

    def _services(self) -> dict[str, dict[str, tuple[_Method, Any]]]:
        try:
            from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
        except ImportError as error:
            raise UsageError(
                f"gRPC needs tensorflow-serving-api: {error}",
                where="serve.grpc_port",
                fix='pip install "tfscale[serve]"',
            ) from None
        own = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return {
            "tensorflow.serving.PredictionService": {
                "Predict": (self._predict, predict_pb2.PredictRequest),
                "GetModelMetadata": (self._metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            },
            "tensorflow.serving.ModelService": {
                "GetModelStatus": (self._status, get_model_status_pb2.GetModelStatusRequest)
            },
            f"{PACKAGE}.GRPCInferenceService": {
                name: (method, inference(f"{name}Request")) for name, method in own.items()
            },
        }

    def _answering(self, method: _Method) -> Callable[[Any, Any], Awaitable[Any]]:
        """The method behind its token, counted, and every error as a code and a sentence."""

        async def answer(request: Any, context: Any) -> Any:
            began, status = time.monotonic(), 200
            try:
                check_bearer(_authorization(context), self._options.token, place="metadata authorization")
                return await method(request)
            except Refusal as error:
                status, code = error.status, _CODES.get(HTTPStatus(error.status), grpc.StatusCode.INVALID_ARGUMENT)
                await context.abort(code, error.what)
            except Exception as error:
                status = 500
                _log.exception(f"a request failed: {first_line(error)}")
                await context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log says how")
            finally:
                name = getattr(request, "model_name", "") or getattr(getattr(request, "model_spec", None), "name", "")
                seconds = time.monotonic() - began
                self._metrics.request(name if name in self._models.names else "", status, seconds)
                if status >= HTTPStatus.BAD_REQUEST and name in self._models.names:
                    self._log.refused(name, "grpc", status, seconds=seconds)

        return answer

    async def _computed(self, name: str, batches: Batches, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows, began = check_rows(arrays, batches.model.inputs), time.monotonic()
        answers = await batches.answer(arrays, rows, timeout=self._options.timeout)
        found = Computed(batches.model, None, arrays, answers)
        self._log.answered(name, "grpc", found, seconds=time.monotonic() - began)
        return answers

    # -- TensorFlow Serving

    def _specified(self, spec: Any) -> Batches:
        if spec.version_label:
            raise bad_request("versions have no labels here; give the number, or none")
        if spec.signature_name not in ("", SIGNATURE):
            raise bad_request(f"the model has no signature {spec.signature_name!r}; its one is {SIGNATURE}")
        return self._models.batches(spec.name, str(spec.version.value) if spec.HasField("version") else None)

    async def _predict(self, request: Any) -> Any:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        batches = self._specified(request.model_spec)
        specs, outputs = batches.model.inputs, batches.model.outputs
        wanted = list(request.output_filter) or list(outputs)
        if unknown := [name for name in wanted if name not in outputs]:
            raise bad_request(f"the model answers {', '.join(outputs)}, and not {', '.join(unknown)}")
        arrays = {name: _array(tensor, specs, name) for name, tensor in request.inputs.items()}
        answers = await self._computed(request.model_spec.name, batches, arrays)
        response = predict_pb2.PredictResponse()
        self._tell_spec(response.model_spec, request.model_spec.name, batches)
        for name in wanted:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(answers[name]))
        return response

    def _tell_spec(self, spec: Any, name: str, batches: Batches) -> None:
        spec.name, spec.signature_name = name, SIGNATURE
        spec.version.value = batches.model.version.number

    async def _metadata(self, request: Any) -> Any:
        import tensorflow as tf
        from tensorflow_serving.apis import get_model_metadata_pb2 as messages

        if list(request.metadata_field) != ["signature_def"]:
            raise bad_request('metadata_field is ["signature_def"]')
        batches = self._specified(request.model_spec)
        response, signatures = messages.GetModelMetadataResponse(), messages.SignatureDefMap()
        self._tell_spec(response.model_spec, request.model_spec.name, batches)
        signature = signatures.signature_def[SIGNATURE]
        signature.method_name = "tensorflow/serving/predict"
        for specs, told in ((batches.model.inputs, signature.inputs), (batches.model.outputs, signature.outputs)):
            for name, spec in specs.items():
                told[name].name = f"{SIGNATURE}_{name}:0"
                told[name].dtype = tf.as_dtype(spec.dtype).as_datatype_enum
                told[name].tensor_shape.CopyFrom(tf.TensorShape(spec.shape).as_proto())
        response.metadata["signature_def"].Pack(signatures)
        return response

    async def _status(self, request: Any) -> Any:
        from tensorflow_serving.apis import get_model_status_pb2 as messages

        name = request.model_spec.name
        states = self._models.status(name)
        if request.model_spec.HasField("version"):
            self._specified(request.model_spec)
            states = {request.model_spec.version.value: ""}
        response = messages.GetModelStatusResponse()
        for number, wrong in sorted(states.items(), reverse=True):
            state = messages.ModelVersionStatus.END if wrong else messages.ModelVersionStatus.AVAILABLE
            told = response.model_version_status.add(version=number, state=state)
            told.status.error_code, told.status.error_message = 13 if wrong else 0, wrong  # INTERNAL, OK
        return response

    # -- the Open Inference Protocol

    async def _live(self, _: Any) -> Any:
        return inference("ServerLiveResponse")(live=True)

    async def _ready(self, _: Any) -> Any:
        return inference("ServerReadyResponse")(ready=True)

    async def _server_metadata(self, _: Any) -> Any:
        return inference("ServerMetadataResponse")(name="tfscale", version=__version__, extensions=EXTENSIONS)

    async def _model_ready(self, request: Any) -> Any:
        try:
            self._models.batches(request.name, request.version or None)
        except Refusal:
            return inference("ModelReadyResponse")(ready=False)
        return inference("ModelReadyResponse")(ready=True)

    async def _model_metadata(self, request: Any) -> Any:
        model = self._models.batches(request.name, request.version or None).model
        return described(request.name, model)

    async def _infer(self, request: Any) -> Any:
        batches = self._models.batches(request.model_name, request.model_version or None)
        arrays = arrays_of(request, batches.model.inputs)
        answers = await self._computed(request.model_name, batches, arrays)
        return answered(request, answers, name=request.model_name, version=str(batches.model.version.number))


def _array(tensor: Any, specs: Mapping[str, TensorSpec], name: str) -> np.ndarray:
    """The array of a TensorProto."""
    import tensorflow as tf

    refuse_unknown([name], specs)
    spec = specs[name]
    given = _dtype(tensor)
    if given != spec.dtype:
        raise bad_request(f"{name} takes {spec.dtype}, and was given {given}")
    try:
        array = tf.make_ndarray(tensor)
    except (ValueError, TypeError) as error:
        raise bad_request(f"{name} can't be read: {first_line(error)}") from None
    return spec.checked(array)


def _authorization(context: Any) -> str:
    return str(dict(context.invocation_metadata()).get("authorization", ""))


def _dtype(tensor: Any) -> str:
    import tensorflow as tf

    try:
        return str(tf.as_dtype(tensor.dtype).name)
    except TypeError:
        return "no type"


def _serialized(message: Any) -> bytes:
    body: bytes = message.SerializeToString()
    return body
