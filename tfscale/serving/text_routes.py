"""The addresses at which a language model writes: whole texts, and pieces as server-sent events.

Owns how they are sent, and that nothing is written for a client that is gone. Refuses to know how a text is written.

    app.add_routes(TextRoutes(models, log, read_body, timeout=30.0).routes())
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from aiohttp import web

from tfscale.serving.json_body import written
from tfscale.serving.refusal import Refusal
from tfscale.serving.repository import Repository
from tfscale.serving.request_log import RequestLog
from tfscale.serving.text_requests import TextAsked

_GONE = 499  # nobody reads this answer; logs of proxies have that number for it
_EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_Body = Callable[[web.Request], AbstractAsyncContextManager[bytes]]


class TextRoutes:
    """Args:
    body: reads a request's body, within its limits.
    timeout: seconds for a whole text, and for each piece of one that is sent as it is made.
    """

    def __init__(self, models: Repository, log: RequestLog, body: _Body, *, timeout: float):
        self._models, self._log, self._body, self._timeout = models, log, body, timeout

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"/v2/models/{{model}}{version}/{name}", handler)
            for version in ("", "/versions/{version}")
            for name, handler in (("generate", self._whole), ("generate_stream", self._stream))
        ]

    async def _whole(self, request: web.Request) -> web.StreamResponse:
        last: dict[str, Any] = {}
        texts = []
        try:
            async with (
                asyncio.timeout(self._timeout),
                contextlib.aclosing(self._pieces(request, is_stream=False)) as made,
            ):
                async for last in made:
                    texts.append(last["text_output"])
                    if request.transport is None or request.transport.is_closing():
                        return web.Response(status=_GONE)
        except TimeoutError:
            raise _too_late(self._timeout) from None
        return web.Response(body=written({**last, "text_output": "".join(texts)}), content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=_EVENTS)
        async with contextlib.aclosing(self._pieces(request, is_stream=True)) as made:
            piece = await self._next(made)  # whatever is refused is refused before anything is sent
            try:
                await response.prepare(request)
                while piece is not None:
                    await response.write(_event(piece))
                    piece = await self._next(made)
            except Refusal as error:
                await response.write(_event({"error": error.what}))
            except ConnectionResetError:
                return response
        with contextlib.suppress(ConnectionResetError):
            await response.write_eof()
        return response

    async def _next(self, made: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(self._timeout):
                return await anext(made, None)
        except TimeoutError:
            raise _too_late(self._timeout) from None

    async def _pieces(self, request: web.Request, *, is_stream: bool) -> AsyncGenerator[dict[str, Any], None]:
        """The pieces as they are answered; the last has no text, and says how it ended."""
        name, began = request.match_info["model"], time.monotonic()
        writer, number = self._models.writer(name, request.match_info.get("version"))
        async with self._body(request) as body:
            asked = TextAsked.read(body, request.headers.get("Content-Type", ""), is_stream=is_stream)
        version = str(number)
        async with contextlib.aclosing(writer.write(asked.prompt, asked.sampling)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield asked.answer(piece, name=name, version=version)
                    continue
                self._log.wrote(name, number, asked.prompt, piece.text, seconds=time.monotonic() - began)
                yield asked.answer("", name=name, version=version, ended=piece.ended, tokens=piece.tokens)


def _event(told: dict[str, Any]) -> bytes:
    return b"data: " + written(told) + b"\n\n"


def _too_late(seconds: float) -> Refusal:
    return Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"the model didn't write it within {seconds:g} s")
