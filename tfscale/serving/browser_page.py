"""The page on which people try models in a browser: what it is, what it is told, and which pages may ask.

Owns the file serving_page.html, the headers that bind it, its description of a model, and the refusal of other sites'
pages. Refuses to know HTTP's server.

    body, headers = page()                      # of GET /, which holds nothing of any model
    page_answer("resnet", model, writes=False)                # what the page makes a form of
    refuse_foreign_pages(host, origin, options)
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tfscale.config.serve_options import ServeOptions
from tfscale.serving.json_body import in_base64
from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.refusal import Refusal
from tfscale.serving.tensor_specs import TensorSpec, is_readable

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")  # how the files begin that models decode
_NAMED = re.compile(r"(?i)image|picture|photo|pixels")


@functools.cache
def page() -> tuple[bytes, dict[str, str]]:
    """The page, and the headers with which a browser runs its own script alone, and asks nobody but this server."""
    content = Path(__file__).with_name("serving_page.html").read_text(encoding="utf-8")
    (script,), (style,) = (re.findall(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL) for tag in ("script", "style"))
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return content.encode(), {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-cache",
    }


def _hash(text: str) -> str:
    return f"'sha256-{in_base64(hashlib.sha256(text.encode()).digest())}'"


def refuse_foreign_pages(host: str | None, origin: str | None, options: ServeOptions) -> None:
    """Where no token tells who asks, and this machine alone reaches the server, a browser on it is asked by whatever
    page is open: those of other sites are refused. A name that somebody makes lead here (DNS rebinding) is no name of
    this machine, and a request that another page sends says whose page that is.

    Args:
        host, origin: those headers; None where there is none, as programs send no Origin.

    Raises:
        Refusal: 421, 403.
    """
    if options.token or options.auth == "none" or not options.is_local:
        return
    if host is not None and not _is_local(host):
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"this server answers as 127.0.0.1 and localhost, and not as {host[:100]!r}; start it with serve.auth=none"
            " where a proxy asks by that name",
        )
    if origin is not None and origin.lower().partition("://")[2] != (host or "").lower():
        raise Refusal(
            HTTPStatus.FORBIDDEN, f"a page of {origin[:100]!r} asks, and this server answers none but its own"
        )


def _is_local(host: str) -> bool:
    """Args: host: with its port, as the header has it."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def page_answer(name: str, model: LoadedModel, *, writes: bool) -> dict[str, Any]:
    """What GET /page/models/NAME says: of each input how people give it, and the first example in the export; and
    whether it writes texts."""
    fields: Mapping[str, str] = model.version.about.get("fields") or {}
    return {
        "name": name,
        "version": str(model.version.number),
        "row_wise": model.is_row_wise,
        "writes": writes,
        "inputs": [
            {**_told(spec), "label": fields.get(spec.name, spec.name), **_given(spec, model.examples.get(spec.name))}
            for spec in model.inputs.values()
        ],
        "outputs": [_told(spec) for spec in model.outputs.values()],
        "classes": list(model.classes) if model.classes else None,
    }


def _told(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": [-1 if size is None else size for size in spec.shape]}


def _given(spec: TensorSpec, examples: np.ndarray | None) -> dict[str, Any]:
    """How people give it: kind "picture" and "text" of bytes, "number", "truth", "pixels" of a picture as numbers from
    "low" to "high", and "values", nested lists; whether it may be left empty; an example, null where there is none."""
    first = None if examples is None or not examples.ndim else examples[0]
    kind: dict[str, Any] = {"kind": "values"}
    if spec.dtype == "string" and len(spec.shape) <= 1:
        kind = {"kind": "picture" if _is_picture(spec.name, first) else "text"}
    elif len(spec.shape) <= 1:
        kind = {"kind": "truth" if spec.dtype == "bool" else "number"}
    elif first is not None and _holds_pixels(spec) and first.size:
        low, high = float(np.nanmin(first)), float(np.nanmax(first))
        kind = {"kind": "pixels", "low": -1 if low < 0 else 0, "high": 1 if high <= 1 else 255}
    return {**kind, "gaps": spec.gaps is True, "example": None if first is None else _as_json(first)}


def _is_picture(name: str, example: Any) -> bool:
    if not isinstance(example, bytes):
        return bool(_NAMED.search(name))
    return example.startswith(_PICTURES) or (example[:4] == b"RIFF" and example[8:12] == b"WEBP")


def _holds_pixels(spec: TensorSpec) -> bool:
    """Whether an input is one picture, [height, width] or with 1 or 3 channels."""
    if len(spec.shape) not in (3, 4) or None in spec.shape[1:] or spec.dtype == "bool":
        return False
    height, width, channels = (*spec.shape[1:], 1)[:3]
    return min(height or 0, width or 0) >= 8 and channels in (1, 3)


def _as_json(value: Any) -> Any:
    """The value as a request holds it: bytes that are no text in base64, gaps as null."""
    if isinstance(value, bytes):
        return value.decode() if is_readable(value) else {"b64": in_base64(value)}
    if isinstance(value, np.ndarray) and value.ndim:
        return [_as_json(one) for one in value]
    if isinstance(value, np.ndarray):
        return _as_json(value.item())
    if isinstance(value, np.generic) and value.dtype.kind not in "biu":
        value = float(str(value))  # 0.1 of float32, and not 0.10000000149
    elif isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
