"""Requests for texts, as the Open Inference Protocol's generate and Triton's extension of that name have them.

Owns what they and their answers hold. Refuses to know HTTP, and how a text is written.

    asked = TextAsked.read(b'{"text_input": "To be", "parameters": {"max_tokens": 50}}', "", is_stream=False)
    asked.sampling.tokens                                  # 50
    asked.answer("text", name="gpt", version="1500")       # {"text_output": "text", ...}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfscale.errors import UsageError
from tfscale.serving.json_body import parsed
from tfscale.serving.refusal import bad_request
from tfscale.text.sampling import Sampling

_MOST = 4096  # tokens of one text
_ENDED = {"stop": "stop", "end": "stop", "tokens": "length"}
# By the protocol's names: the sampling's own, and the types of their values.
_TAKEN: dict[str, tuple[str, tuple[type, ...]]] = {
    "max_tokens": ("tokens", (int,)),
    "temperature": ("temperature", (int, float)),
    "top_k": ("top_k", (int,)),
    "top_p": ("top_p", (int, float)),
    "seed": ("seed", (int,)),
    "stop": ("stop", (str, list)),
}
PARAMETERS = tuple(_TAKEN)


@dataclass(frozen=True)
class TextAsked:
    """One request; parameters may stand in "parameters" or, as Triton's clients write them, beside the text."""

    prompt: str
    sampling: Sampling
    id: str | None = None

    @classmethod
    def read(cls, body: bytes, content_type: str, *, is_stream: bool) -> TextAsked:
        """Raises Refusal: it is no such request, or asks for what isn't known here."""
        request = parsed(body, content_type)
        inner = request.pop("parameters", None) or {}
        if not isinstance(inner, dict):
            raise bad_request('"parameters" is an object')
        prompt, id_ = request.pop("text_input", None), request.pop("id", None)
        if not isinstance(prompt, str):
            raise bad_request('"text_input" is the text to go on from')
        if twice := sorted(set(request) & set(inner)):
            raise bad_request(f"{', '.join(twice)} stands in the request twice")
        given = {**request, **inner}
        if given.pop("stream", is_stream) is not is_stream:
            raise bad_request('"stream" is true at generate_stream, and false at generate')
        return cls(prompt, _sampling(given), None if id_ is None else str(id_))

    def answer(
        self, text: str, *, name: str, version: str, ended: str = "", tokens: int | None = None
    ) -> dict[str, Any]:
        """A whole answer, or a piece of one: then "finish_reason" and the number of tokens stand in the last alone."""
        told: dict[str, Any] = {"model_name": name, "model_version": version, "text_output": text}
        if self.id is not None:
            told["id"] = self.id
        return told if tokens is None else {**told, "finish_reason": _ENDED[ended], "output_tokens": tokens}


def _sampling(given: Mapping[str, Any]) -> Sampling:
    if unknown := [name for name in given if name not in _TAKEN]:
        raise bad_request(f"unknown: {', '.join(map(repr, unknown[:5]))}; known are {', '.join(PARAMETERS)}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        own, kinds = _TAKEN[name]
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise bad_request(f"{name} is {'a number' if kinds != (str, list) else 'a text, or a list of texts'}")
        values[own] = value
    stop = values.get("stop", ())
    texts = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(one, str) for one in texts):
        raise bad_request("stop is a text, or a list of texts")
    if values.get("tokens", 0) > _MOST:
        raise bad_request(f"max_tokens is at most {_MOST}")
    found = Sampling(**{**values, "stop": texts})
    try:
        found.check()
    except UsageError as error:
        raise bad_request(error.what) from None
    return found
