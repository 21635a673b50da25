"""A server asked by both protocols, and its answers beside those that are right.

Owns the client's side of HTTP, and what counts as the same answer. Refuses to know where the right answers come from.

    server = AskedServer.of("http://127.0.0.1:8080", token="...")
    server.differs("digits", {"image": pngs}, {"probabilities": array}, tolerance=1e-4)      # 1.2e-7, or CheckFailed
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tfscale.errors import CheckFailed, DataMissing, UsageError
from tfscale.serving.json_body import in_base64
from tfscale.serving.open_inference import datatype_of, to_json

PROTOCOLS = ("v1", "v2")  # TensorFlow Serving's REST, and the Open Inference Protocol
_TIMEOUT = 30.0  # seconds for one answer
_FIX = "look at the server's log, and at the version that it serves: GET /v1/models/NAME"
_NEVER = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class AskedServer:
    """Where a server is, and what it asks for."""

    url: str
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, url: str, *, token: str = "", certificate: str | None = None) -> AskedServer:
        """Raises UsageError: no such address, or a word that has no effect; DataMissing: no such certificate."""
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            good = good and not (parts.query or parts.fragment)
        except ValueError:  # a port that is none
            good = False
        if "@" in url.partition("://")[2].partition("/")[0]:  # it isn't shown
            raise UsageError(
                "it holds a user or a password, which no request brings",
                where="url",
                fix="leave them away; a token is serve.token_file=FILE, or TFSCALE_SERVE_TOKEN",
            )
        if not good:
            raise UsageError(f"{url} is no address of a server", where="url", fix="url=http://127.0.0.1:8080")
        if parts.scheme == "http" and certificate is not None:
            raise UsageError("http:// has no certificate to trust", where="serve.tls_cert", fix="url=https://...")
        if parts.scheme == "http":
            return cls(url.rstrip("/"), token)
        try:
            tls = ssl.create_default_context(cafile=None if certificate is None else Path(certificate))
        except OSError as error:  # ssl's own errors are some
            raise DataMissing(
                f"{certificate} can't be read: {error.strerror or error}", where="serve.tls_cert", fix="give a PEM file"
            ) from None
        return cls(url.rstrip("/"), token, tls)

    def differs(
        self,
        name: str,
        examples: Mapping[str, np.ndarray],
        expected: Mapping[str, np.ndarray],
        *,
        tolerance: float,
        protocols: Collection[str] = PROTOCOLS,
    ) -> float:
        """The largest difference of a number.

        Args:
            name: of the model.
            examples: by input, [examples, ...]; bytes are objects. expected: by output, likewise.
            tolerance: of a number that isn't whole, as a share of 1 and its size together.
            protocols: by which it is asked.

        Raises:
            CheckFailed: it answers otherwise, or not at all.
            UsageError: it asks for a token, or another one, or nobody knows who has signed its certificate.
        """
        by = {"v1": self._by_v1, "v2": self._by_v2}
        return max(self._worst(*by[each](name, examples, expected), expected, tolerance) for each in protocols)

    def _by_v1(
        self, name: str, examples: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
    ) -> tuple[str, dict[str, _Given]]:
        """(the path, the answers by output), as TensorFlow Serving's REST protocol has it."""
        path = f"/v1/models/{name}:predict"
        columns = {one: _instances(array.tolist()) for one, array in examples.items()}
        answer = self._answer(path, {"inputs": columns}).get("outputs")
        found = answer if len(expected) != 1 else {next(iter(expected)): answer}
        found = found if isinstance(found, dict) else {}
        return path, {one: _Given(value, _shape_of(value)) for one, value in found.items() if value is not None}

    def _by_v2(
        self, name: str, examples: Mapping[str, np.ndarray], _: Mapping[str, np.ndarray]
    ) -> tuple[str, dict[str, _Given]]:
        """As the Open Inference Protocol has it."""
        path = f"/v2/models/{name}/infer"
        tensors = [
            {"name": one, "shape": list(array.shape), "datatype": datatype_of(_dtype(array)), **_tensor(array)}
            for one, array in examples.items()
        ]
        outputs = self._answer(path, {"inputs": tensors}).get("outputs")
        outputs = [one for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
        return path, {
            one["name"]: _Given(one["data"], tuple(one.get("shape") or _shape_of(one["data"])))
            for one in outputs
            if "name" in one and one.get("data") is not None
        }

    def _worst(
        self, path: str, answer: Mapping[str, _Given], expected: Mapping[str, np.ndarray], tolerance: float
    ) -> float:
        worst = 0.0
        for name, right in expected.items():
            given = answer.get(name)
            if given is None:
                raise self._failed(path, f"answers no {name}")
            if _axes(given.shape) != _axes(right.shape):
                shapes = f"of shape {list(given.shape)}, and the model of {list(right.shape)}"
                raise self._failed(path, f"answers a {name} {shapes}")
            difference, is_same = _difference(given.value, right, tolerance)
            if not is_same:
                far = f": a number differs by {difference:.3g}" * (difference > 0)
                raise self._failed(path, f"answers another {name} than the model{far}")
            worst = max(worst, difference)
        return worst

    def _answer(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
            if self.tls is None
            else http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=self.tls)
        )
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            with contextlib.closing(connection):
                connection.request("POST", f"{parts.path}{path}", json.dumps(body), headers)
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
        except ssl.SSLCertVerificationError as error:
            raise UsageError(
                f"its certificate isn't trusted: {error.verify_message}",
                where=self.url,
                fix="serve.tls_cert=FILE of the server's own, or of who has signed it",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            what = f"it doesn't answer: {error or type(error).__name__}"
            raise CheckFailed(what, where=f"{self.url}{path}", fix="start it, or correct url=") from None
        if status in _NEVER:
            raise UsageError(
                "the server asks for a token" if not self.token else "the server asks for another token",
                where=self.url,
                fix="serve.token_file=FILE, or TFSCALE_SERVE_TOKEN",
            )
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if status != HTTPStatus.OK or not isinstance(found, dict):
            told = found.get("error") if isinstance(found, dict) else content[:200].decode(errors="replace")
            raise self._failed(path, f"answers {status}: {told}")
        return found

    def _failed(self, path: str, what: str) -> CheckFailed:
        return CheckFailed(f"it {what}", where=f"{self.url}{path}", fix=_FIX)


@dataclass(frozen=True)
class _Given:
    """What a server has answered for one output."""

    value: Any
    shape: tuple[int, ...]


def _difference(given: Any, right: np.ndarray, tolerance: float) -> tuple[float, bool]:
    """(the largest difference, 0 of what is no number; whether it is the same answer)."""
    flat = _flat(given)
    if right.dtype == object or right.dtype.kind in "iub":
        values = right.reshape(-1).tolist()
        return 0.0, len(flat) == len(values) and all(map(_is_same, flat, values))
    try:
        found, wanted = np.array(flat, np.float64), right.astype(np.float64).reshape(-1)
    except (TypeError, ValueError):
        return 0.0, False
    if found.shape != wanted.shape:
        return 0.0, False
    finite = np.isfinite(wanted) & np.isfinite(found)
    worst = float(np.abs(found[finite] - wanted[finite]).max(initial=0.0))
    return worst, np.allclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def _shape_of(value: Any) -> tuple[int, ...]:
    """Of lists in lists."""
    if not isinstance(value, list):
        return ()
    return (len(value), *(_shape_of(value[0]) if value else ()))


def _axes(shape: Collection[int]) -> list[int]:
    """Without those of one, which MLServer adds."""
    return [size for size in shape if size != 1]


def _is_same(given: Any, right: Any) -> bool:
    if not isinstance(right, bytes):
        return bool(given == right)
    text = given.get("b64") if isinstance(given, dict) else given
    return text in (right.decode(errors="replace"), in_base64(right))


def _flat(value: Any) -> list:
    return [leaf for one in value for leaf in _flat(one)] if isinstance(value, list) else [value]


def _instances(value: Any) -> Any:
    """With {"b64": ...} in the place of bytes."""
    if isinstance(value, list):
        return [_instances(one) for one in value]
    return {"b64": in_base64(value)} if isinstance(value, bytes) else value


def _tensor(array: np.ndarray) -> dict[str, Any]:
    """ "data" as JSON has it."""
    told = to_json(array)
    return {**told, "data": told["data"] if isinstance(told["data"], list) else told["data"].tolist()}


def _dtype(array: np.ndarray) -> str:
    return "string" if array.dtype == object else array.dtype.name
