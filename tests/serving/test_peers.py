"""What KServe's server and MLServer were recorded to answer (`make test-serving-peers`), beside what ours answers today:
every difference in a field is listed below with the text that decides, and a new one fails."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.grpc_requests import GRPC_REQUESTS, asked
from support.protocol_requests import ABSENT, REQUESTS, ask, differences, normalised
from support.served_models import served, write_double, write_texts

GOLDEN = Path(__file__).parents[1] / "golden" / "serving_peers.json"
ERROR = {"error": "(str)"}
DETAIL, TEXT = {"detail": "(list)"}, "(no JSON)"

# The protocols' words. "REST": specification/protocol/inference_rest.md of github.com/kserve/open-inference-protocol, with
# docs/predict-api/v2/required_api.md of github.com/kserve/kserve where it says more; "gRPC": open_inference_grpc.proto beside
# it; "binary data", "model repository": Triton's extensions; "TFS": tensorflow.org/tfx/serving/api_rest.
STATUS = (
    'REST, Inference Response JSON Error Object: "indicated by an HTTP error status (typically 400)"; 500 would say that'
    " the server is at fault"
)
SENTENCE = 'REST, the same: "The HTTP body must contain the $inference_error_response object", {"error": ...}'
GRPC_STATUS = 'gRPC: "The OK code indicates success and other codes indicate failure": INTERNAL would say the server\'s'
OPTIONAL = 'REST, Inference Response JSON Object: "parameters" are "#optional"; null is no $parameters'
VERSION = 'REST, the same: "The specific model version used for inference"; KServe\'s server has no versions'
VERSIONS = 'REST, Paths: "/versions/<model_version>" is optional for servers that have none; ours has them'
EXPLICIT = 'REST, Model Metadata: "versions": "The model versions that may be explicitly requested", which 1 may'
PLATFORM = 'REST, Model Metadata: "The framework/backend for the model"; KServe\'s has no place for it'
IDENTIFIER = 'REST, Inference Response JSON Object: "The "id" identifier given in the request, if any"'
OWN = 'REST, Server Metadata: "A descriptive name for the server", "The extensions supported by the server"'
LOADS = 'model repository: "requires Index, Load and Unload APIs"; ours has the index, and doesn\'t claim the extension'
INDEX = "model repository, Index; KServe's server has Load and Unload alone"
# (Under Server Ready the text prints the object of Server Live, {"live": ...}; KServe, who wrote it, and ours say "ready")
BODIES = (
    'REST, Server Live, Server Ready, Model Ready: objects; required_api.md, which is older, says "should be empty"'
)
OPENAPI = "open_inference_rest.yaml has the address with a slash, /v2/; the others send on to /v2"
CODEC = 'REST, Parameters: "A server can implement server-specific parameters": how MLServer\'s codecs read it'
COLUMN = 'REST, Response Output: "The shape of the output tensor", which is [n] here; MLServer\'s codecs make it [n, 1]'
NO_BINARY = "binary data is an extension, which MLServer doesn't have: it wants data, and answers lists"
OCTETS = "binary data, Examples: Content-Type: application/octet-stream"
UNDECLARED = (
    "REST asks for no content type, and tritonclient sends none; KServe takes such a body for binary data alone"
)
GZIPPED = "HTTP (RFC 9110, Content-Encoding); tritonclient sends it where asked; KServe's server doesn't unpack it"
ANY_BYTES = 'binary data: BYTES are "the actual bytes", which needn\'t be UTF-8'
LEFT = "binary data: the JSON is followed by the tensors' data, and by nothing else"
COERCED = 'REST, Tensor Data: "coerce each element to the required type or return an error": null is no value here'
UNSIGNED = 'REST, Request Input: "Each dimension must be an integer representable as an unsigned 64-bit integer value"'
OTHER_SHAPE = "the model's metadata say [-1, 3]; a signature that Python calls doesn't check it"
NAN = "REST says nothing of NaN; KServe hides it as null, and MLServer refuses it. TFS takes it, so ours does in both"
WANTED = 'gRPC: "The requested output tensors for the inference", and all where none is named; KServe\'s server looks at none'
RAW_SIZE = "KServe tells the size of raw contents, which gRPC doesn't ask for"
BOTH = 'gRPC: "If this field is specified then InferInputTensor::contents must not be specified for any input tensor"'
NOT_READY = 'gRPC, ModelReadyResponse: "false if not ready"; tritonclient would raise at another code'
UNKNOWN_VERSION = 'gRPC: "The version of the model to use for inference"; KServe\'s server has none, and takes any'
TFS_STATUS = (
    'TFS, Model status API: "a JSON representation of GetModelStatusResponse"; KServe\'s v1 has {"name", "ready"}'
)
TFS_METADATA = "TFS, Model Metadata API, which KServe's v1 doesn't have"
TFS_PATH = "TFS: /versions/${VERSION} is optional; KServe's v1 has no versions"
TFS_COLUMNS = (
    'TFS, Predict: "A request in columnar format has response formatted as follows: "outputs""; KServe: predictions'
)
TFS_BYTES = (
    'TFS, Encoding binary values: {"b64": ...}, in answers of names that end in _bytes; KServe leaves it to the model'
)
TFS_SIGNATURE = 'TFS, Predict: "Serving signature to use"; KServe\'s v1 has none, and takes any'
TFS_CURL = "TFS, Make REST API calls: curl -d without a content type; KServe hands the model bytes then"
TFS_NAN = 'TFS, JSON conformance: "allows request/response JSON objects to have such values"'
TFS_ERROR = 'TFS: "In case of error, all APIs will return a JSON object in the response body with error as key"'
TFS_REFUSED = 'TFS, Example: "An incorrect request URL or body returns an HTTP error status", whose number is left open'
TFS_NULL = 'TFS, JSON mapping: "a number or one of the special token values - NaN, Infinity, and -Infinity"'
VERB = "405 with Allow says what 404 doesn't (RFC 9110)"


class Listed(NamedTuple):
    """A difference: of these peers, requests and fields (patterns); what ours says, and theirs; ... of any value."""

    peers: str
    requests: tuple[str, ...]
    field: str
    ours: Any
    theirs: Any
    why: str


K, M, BOTH_PEERS = "kserve", "mlserver", "*"
_ANSWERS = (
    "v2 infer",
    "v2 infer, no id",
    "v2 infer, nested",
    "v2 infer, two *",
    "v2 infer, output",
    "v2 infer, parameters",
)
_NOT_UNDERSTOOD = ("v2 infer, id of a number", "v2 inputs *", "v2 shape absent", "v2 no JSON", "v2 no body", "v2 list")
_NOT_TAKEN = (
    "v2 name", "v2 input missing", "v2 no inputs", "v2 shape of other values", "v2 type", "v2 text for numbers",
)  # fmt: skip
_IN_BINARY = ("v2 triton: binary, *",)
_BROKEN_BINARY = ("v2 binary, too few bytes", "v2 binary, too many bytes", "v2 binary, header too long")
_READY = ("v2 live", "v2 ready", "v2 model ready", "v2 model ready, version")
_GRPC_NOT_TAKEN = ("grpc name", "grpc shape of other values", "grpc type", "grpc no inputs")
_GRPC_RAW = ("grpc infer, raw", "grpc infer, two inputs raw", "grpc infer, no UTF-8")
_SHAPES = ("v2 infer, two inputs", "v2 infer, output", "grpc infer, two inputs raw", "grpc infer, output")

LISTED = [
    Listed(K, (*_NOT_UNDERSTOOD,), "status", 400, 422, STATUS),
    Listed(K, (*_NOT_UNDERSTOOD,), "body", ERROR, DETAIL, SENTENCE),
    Listed(M, (*_NOT_UNDERSTOOD, *_BROKEN_BINARY, "v2 type unknown"), "status", 400, 422, STATUS),
    Listed(M, (*_NOT_UNDERSTOOD, *_BROKEN_BINARY, "v2 type unknown"), "body", ERROR, DETAIL, SENTENCE),
    Listed(BOTH_PEERS, ("v2 infer by GET",), "body", ERROR, {"detail": "(str)"}, SENTENCE),
    Listed(K, (*_NOT_TAKEN, "v2 binary, too few bytes"), "status", 400, 500, STATUS),
    Listed(M, (*_NOT_TAKEN, "v2 infer, output unknown"), "status", 400, 500, STATUS),
    Listed(M, (*_NOT_TAKEN, "v2 infer, output unknown"), "body", ERROR, TEXT, SENTENCE),
    Listed(M, (*_NOT_TAKEN, "v2 infer, output unknown"), "content-type", "application/json", "text/plain", SENTENCE),
    Listed(K, ("v2 load",), "status", 404, 503, LOADS),
    Listed(K, ("v2 infer, version unknown",), "status", 404, 501, VERSIONS),
    Listed(BOTH_PEERS, _GRPC_NOT_TAKEN, "status", "INVALID_ARGUMENT", "INTERNAL", GRPC_STATUS),
    Listed(M, ("grpc infer, output unknown",), "status", "INVALID_ARGUMENT", "INTERNAL", GRPC_STATUS),
    # What ours refuses and the others answer
    Listed(BOTH_PEERS, ("v2 shape",), "status", 422, 200, OTHER_SHAPE),
    Listed(BOTH_PEERS, ("grpc shape",), "status", "INVALID_ARGUMENT", "OK", OTHER_SHAPE),
    Listed(BOTH_PEERS, ("v2 shape below zero",), "status", 400, 200, UNSIGNED),
    Listed(BOTH_PEERS, ("v2 null",), "status", 422, 200, COERCED),
    Listed(K, ("v2 binary, too many bytes",), "status", 400, 200, LEFT),
    Listed(K, ("grpc infer, output unknown",), "status", "INVALID_ARGUMENT", "OK", WANTED),
    Listed(K, ("grpc infer, version unknown",), "status", "NOT_FOUND", "OK", UNKNOWN_VERSION),
    Listed(M, ("grpc contents and raw",), "status", "INVALID_ARGUMENT", "OK", BOTH),
    # What the others refuse and ours answers
    Listed(
        K, ("v2 triton: JSON, *", "v2 infer, no content type", "v2 infer, text/plain"), "status", 200, 400, UNDECLARED
    ),
    Listed(M, ("v2 infer, text/plain",), "status", 200, 422, UNDECLARED),
    Listed(M, _IN_BINARY, "status", 200, 422, NO_BINARY),
    Listed(K, ("v2 triton: binary, no UTF-8",), "status", 200, 500, ANY_BYTES),
    Listed(M, ("grpc infer, no UTF-8",), "status", "OK", "INTERNAL", ANY_BYTES),
    Listed(K, ("v2 infer, gzip",), "status", 200, 400, GZIPPED),
    Listed(K, ("v2 * version",), "status", 200, 501, VERSIONS),
    Listed(K, ("v2 model, version",), "status", 200, 501, VERSIONS),
    Listed(K, ("v2 index*",), "status", 200, 404, INDEX),
    Listed(BOTH_PEERS, ("v2 server, by its OpenAPI address",), "status", 200, 307, OPENAPI),
    Listed(M, ("v2 NaN",), "status", 200, 422, NAN),
    Listed(K, ("grpc model ready, unknown",), "status", "OK", "NOT_FOUND", NOT_READY),
    Listed(M, ("grpc model ready, unknown",), "status", "OK", "UNKNOWN", NOT_READY),
    # Answers that differ
    Listed(K, ("v2 NaN",), "body.outputs*.data", [2.0, "(NaN)", 6.0], [2.0, None, 6.0], NAN),
    Listed(K, (*_ANSWERS, "v2 triton: binary, *", "v2 NaN"), "body.model_version", "1", None, VERSION),
    Listed(K, (*_ANSWERS, "v2 triton: binary, JSON", "v2 NaN"), "body*.parameters", ABSENT, None, OPTIONAL),
    Listed(K, ("grpc infer*",), "body.model_version", "1", ABSENT, VERSION),
    Listed(K, (*_GRPC_RAW, "grpc infer, output"), "body.outputs*.binary_data_size.*", ABSENT, ..., RAW_SIZE),
    Listed(K, ("grpc infer, output",), "body.*", ..., ..., WANTED),
    Listed(K, ("v2 triton: binary, *",), "content-type", "application/octet-stream", ABSENT, OCTETS),
    Listed(K, ("v2 infer, no id", "grpc infer, no id"), "body.id", ABSENT, "(made up)", IDENTIFIER),
    Listed(M, ("v2 infer, no id",), "body.id", ABSENT, "(made up)", IDENTIFIER),
    Listed(M, ("v2 infer*", "v2 triton: JSON, *", "grpc *"), "body.outputs*.content_type*", ABSENT, ..., CODEC),
    Listed(M, _SHAPES[:2], "body.outputs*.shape", [2], [2, 1], COLUMN),
    Listed(M, _SHAPES[2:], "body.outputs*.shape", ["1"], ["1", "1"], COLUMN),
    Listed(M, ("v2 triton: JSON, binary",), "body.outputs*.data", ABSENT, [2.0, 4.0, 6.0], NO_BINARY),
    Listed(M, ("v2 triton: JSON, binary",), "body.outputs*.binary_data_size", 12, ABSENT, NO_BINARY),
    Listed(M, ("v2 triton: JSON, binary",), "bytes", "00000040000080400000c040", ABSENT, NO_BINARY),
    Listed(M, ("v2 triton: JSON, binary",), "content-type", "application/octet-stream", "application/json", NO_BINARY),
    Listed(BOTH_PEERS, ("v2 server", "grpc server"), "body.extensions", ["binary_tensor_data"], ..., OWN),
    Listed(BOTH_PEERS, ("v2 server", "grpc server"), "body.name", "tfscale", ..., OWN),
    Listed(
        K,
        ("v2 model", "v2 model of two inputs", "grpc model*"),
        "body.platform",
        "tensorflow_savedmodel",
        ...,
        PLATFORM,
    ),
    Listed(BOTH_PEERS, ("v2 model", "v2 model of two inputs", "grpc model*"), "body.versions", ["1"], ..., EXPLICIT),
    Listed(M, ("v2 model, version",), "body.versions", ["1"], [], EXPLICIT),
    Listed(M, _READY, "body.*", ..., ABSENT, BODIES),
    Listed(M, _READY, "content-type", "application/json", ABSENT, BODIES),
    # TensorFlow Serving's protocol, and KServe's v1
    Listed(K, ("v1 model",), "body.*", ..., ..., TFS_STATUS),
    Listed(K, ("v1 metadata",), "status", 200, 404, TFS_METADATA),
    Listed(K, ("v1 version",), "status", 200, 404, TFS_PATH),
    Listed(K, ("v1 version, unknown",), "body", ERROR, {"detail": "(str)"}, TFS_ERROR),
    Listed(K, ("v1 columns, unnamed",), "body.outputs", [[2.0, 4.0, 6.0]], ABSENT, TFS_COLUMNS),
    Listed(K, ("v1 columns, unnamed",), "body.predictions", ABSENT, [[2.0, 4.0, 6.0]], TFS_COLUMNS),
    Listed(K, ("v1 columns",), "status", 200, 500, TFS_COLUMNS),
    Listed(K, ("v1 bytes",), "status", 200, 500, TFS_BYTES),
    Listed(K, ("v1 rows of two inputs",), "body.predictions*.joined_bytes.b64", "YWI=", ABSENT, TFS_BYTES),
    Listed(K, ("v1 rows of two inputs",), "body.predictions*.joined_bytes", ABSENT, "ab", TFS_BYTES),
    Listed(K, ("v1 signature, unknown",), "status", 400, 200, TFS_SIGNATURE),
    Listed(K, ("v1 of curl",), "status", 200, 500, TFS_CURL),
    Listed(K, ("v1 NaN",), "status", 200, 400, TFS_NAN),
    Listed(K, ("v1 text for numbers", "v1 neither", "v1 no rows"), "status", 400, 500, TFS_REFUSED),
    Listed(K, ("v1 ragged",), "status", 422, 500, TFS_REFUSED),
    Listed(K, ("v1 shape",), "status", 422, 200, OTHER_SHAPE),
    Listed(K, ("v1 null",), "status", 422, 200, TFS_NULL),
    Listed(K, ("v1 predict by GET",), "status", 405, 404, VERB),
    Listed(K, ("v1 predict by GET",), "allow", "POST", ABSENT, VERB),
]


@pytest.fixture(scope="module")
def ours(tf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = {"double": write_double(folder / "double"), "texts": write_texts(folder / "texts")}
    with served(models, grpc_port=0) as client:
        found = {key: normalised(*ask(client.port, one)) for key, one in REQUESTS.items()}
        return found | {key: asked(client.grpc, *one) for key, one in GRPC_REQUESTS.items()}


def test_every_difference_is_listed_with_its_reason_and_no_other(ours):
    golden, used, unlisted = json.loads(GOLDEN.read_text()), set(), []
    for peer, recorded in golden.items():
        spoken = {key for key in ours if peer == K or not key.startswith("v1")}
        assert set(recorded["answers"]) == spoken, "RECORD=--record writes the answers to new requests"
        for key, theirs in recorded["answers"].items():
            for field, (own, other) in differences(ours[key], theirs).items():
                found = {
                    (i, pattern)
                    for i, one in enumerate(LISTED)
                    for pattern in one.requests
                    if all(map(fnmatch.fnmatchcase, (peer, key, field), (one.peers, pattern, one.field)))
                    and one.ours in (..., own)
                    and one.theirs in (..., other)
                }
                used |= found
                if not found:
                    unlisted.append(f"{peer}, {key}, {field}: ours {own!r}, theirs {other!r}")
    assert not unlisted, "\n".join(unlisted)
    idle = [
        f"{one.requests}, {one.field}: {p}" for i, one in enumerate(LISTED) for p in one.requests if (i, p) not in used
    ]
    assert not idle, "\n".join(idle)
