"""HTTP: the addresses of both protocols, who may ask, and how large, slow and many requests may be.

Owns aiohttp (extra `serve`), the two ports, and the end: what was begun is answered. Refuses to know what
requests hold, which is each protocol's own.

    await HttpServer(models, options, metrics, log).run(stopped)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
from aiohttp import web

from tfscale.config.serve_options import ServeOptions
from tfscale.errors import first_line
from tfscale.serving import open_inference, tfs_rest
from tfscale.serving.answering import Computed, Understand, computed
from tfscale.serving.bearer import check_bearer
from tfscale.serving.body_memory import BodyMemory
from tfscale.serving.browser_page import page, page_answer, refuse_foreign_pages
from tfscale.serving.grpc_server import GrpcServer
from tfscale.serving.header_deadline import HeaderDeadlines
from tfscale.serving.json_body import parsed, written
from tfscale.serving.listening import BACKLOG, listening_socket
from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.openapi import document
from tfscale.serving.refusal import Refusal, bad_request
from tfscale.serving.repository import Repository
from tfscale.serving.request_log import RequestLog
from tfscale.serving.service_metrics import ServiceMetrics
from tfscale.serving.text_routes import TextRoutes
from tfscale.version import __version__

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_JSON = "application/json"
_LENGTH = open_inference.LENGTH
_Asked = TypeVar("_Asked")


class HttpServer:
    """The server of one process.

    Attributes:
        addresses: (host, port) of requests, of probes, and of gRPC where it is asked for, once `run` called `ready`.
    """

    def __init__(self, models: Repository, options: ServeOptions, metrics: ServiceMetrics, log: RequestLog):
        self._models, self._options, self._metrics, self._log = models, options, metrics, log
        self._in_flight, self._stopping = 0, False
        self._memory = BodyMemory(options.body, options.memory, metrics.held_bytes.set)
        self._ready = False
        self._deadlines: HeaderDeadlines | None = None
        self._probing: HeaderDeadlines | None = None
        self._grpc = GrpcServer(models, options, metrics, log)
        self.addresses: list[tuple[str, int]] = []

    async def run(self, stopped: asyncio.Event, *, ready: Callable[[], None] = lambda: None) -> None:
        """Loads the models and serves until it is stopped, and then what was begun.

        Raises:
            DataMissing, DataCorrupt, UsageError: a model can't be loaded.
            ClusterFault: a port is taken.
        """
        tls, ports = self._options.tls(), (self._options.port, self._options.probes_port)
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(listening_socket(self._options.host, port)) for port in ports]
            self.addresses = [one.getsockname()[:2] for one in sockets]
            await self._run(sockets, tls, stopped, ready)

    async def _run(
        self,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None,
        stopped: asyncio.Event,
        ready: Callable[[], None],
    ) -> None:
        # What is to be awaited at the end is awaited below, for serve.drain
        about: dict[str, Any] = {"access_log": None, "handle_signals": False, "shutdown_timeout": 0.1}
        probes = web.AppRunner(self._probes(), **about)
        requests = web.AppRunner(self._requests(), keepalive_timeout=75.0, **about)
        loop, waits = asyncio.get_running_loop(), (self._options.header_timeout, self._options.timeout)
        listening: list[asyncio.AbstractServer] = []
        try:
            await probes.setup()
            await requests.setup()
            assert probes.server is not None and requests.server is not None
            self._probing = HeaderDeadlines(probes.server, *waits)
            self._deadlines = HeaderDeadlines(requests.server, *waits)
            listening.append(await loop.create_server(self._probing, sock=sockets[1]))  # alive while it loads
            if not await self._loaded(stopped):
                return
            self._log.check_names(self._serving)
            secure: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": waits[0]} if tls is not None else {}
            server = await loop.create_server(self._deadlines, sock=sockets[0], backlog=BACKLOG, **secure)
            listening.append(server)
            if self._options.grpc_port is not None:
                self.addresses.append((self._options.host, await self._grpc.start()))
            self._ready = True
            ready()
            watching = asyncio.create_task(self._models.watch(stopped))
            await stopped.wait()
            self._ready, self._stopping = False, True
            watching.cancel()
            server.close()
            requests.server.pre_shutdown()  # idle connections
            await asyncio.gather(self._drained(), self._grpc.stop())
        finally:
            for one in listening:
                one.close()
            await requests.cleanup()
            await probes.cleanup()
            await loop.run_in_executor(None, self._log.close)

    async def _loaded(self, stopped: asyncio.Event) -> bool:
        """Loads the models; False where it is stopped before that is done."""
        loading, stopping = asyncio.create_task(self._models.load()), asyncio.create_task(stopped.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if loading.done():
            loading.result()
            return True
        loading.cancel()
        return False

    @property
    def _serving(self) -> dict[str, LoadedModel]:
        return {name: self._models.batches(name).model for name in self._models.names}

    @property
    def is_at_work(self) -> bool:
        """Whether something is under way still that the end doesn't wait for."""
        return bool(self._in_flight) or self._models.is_at_work

    async def _drained(self) -> None:
        until = time.monotonic() + self._options.drain
        while self._in_flight and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self._in_flight:
            _log.warning(f"{self._in_flight} requests weren't answered within serve.drain={self._options.drain:g} s")

    # -- the second port

    def _probes(self) -> web.Application:
        async def live(_: web.Request) -> web.Response:
            return web.Response(text="alive\n")

        async def ready(_: web.Request) -> web.Response:
            return web.Response(text="ready\n" if self._ready else "not ready\n", status=200 if self._ready else 503)

        async def metrics(_: web.Request) -> web.Response:
            page = self._metrics.written({name: self._models.status(name) for name in self._models.names})
            return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4"})

        @web.middleware
        async def in_time(request: web.Request, handler: _Handler) -> web.StreamResponse:
            assert self._probing is not None
            self._probing.begun(request.protocol)
            try:
                return await handler(request)
            finally:
                self._probing.ended(request.protocol)

        app = web.Application(middlewares=[in_time])
        app.add_routes([web.get("/livez", live), web.get("/readyz", ready), web.get("/metrics", metrics)])
        return app

    # -- the first port

    def _requests(self) -> web.Application:
        app = web.Application(client_max_size=self._options.body, middlewares=[self._answered])
        for model in ("/v1/models/{model:[^/:]+}", "/v1/models/{model:[^/:]+}/versions/{version}"):
            app.router.add_get(model, self._v1_status)
            app.router.add_get(f"{model}/metadata", self._v1_metadata)
        for model in ("/v1/models/{model:[^/:]+}", "/v1/models/{model:[^/:]+}/versions/{version:[^/:]+}"):
            app.router.add_post(f"{model}:predict", self._v1_predict)
            app.router.add_post(f"{model}:classify", self._v1_classify)
        app.router.add_get("/v1/models", self._v1_models)
        app.router.add_route("*", "/authorize{path:.*}", self._authorized)  # what a proxy asks first
        app.router.add_get("/openapi.json", self._openapi)
        if self._options.has_page:
            app.router.add_get("/", self._page)
            app.router.add_get("/page/models/{model}", self._page_model)
        app.router.add_get("/v2", self._v2_server)
        app.router.add_get("/v2/", self._v2_server)  # so in the protocol's OpenAPI file
        app.router.add_get("/v2/health/live", self._v2_health)
        app.router.add_get("/v2/health/ready", self._v2_health)
        app.router.add_post("/v2/repository/index", self._v2_index)
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            app.router.add_get(model, self._v2_model)
            app.router.add_get(f"{model}/ready", self._v2_ready)
            app.router.add_post(f"{model}/infer", self._v2_infer)
        app.add_routes(TextRoutes(self._models, self._log, self._body, timeout=self._options.timeout).routes())
        return app

    @web.middleware
    async def _answered(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Counts, and turns every error into a sentence in JSON."""
        assert self._deadlines is not None
        self._deadlines.begun(request.protocol)
        began, self._in_flight = time.monotonic(), self._in_flight + 1
        self._metrics.in_flight.set(self._in_flight)
        try:
            self._check(request)
            response = await handler(request)
        except Refusal as error:
            response = _error(error.status, error.what)
        except web.HTTPException as error:
            response = _error(error.status, error.reason, dict(error.headers))
        except RecursionError:
            response = _error(HTTPStatus.BAD_REQUEST, "the body is nested too deep")
        except Exception as error:
            _log.exception(f"a request failed: {first_line(error)}")
            response = _error(500, "the server failed; its log says how")
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)
            self._deadlines.ended(request.protocol)
        name, seconds = request.match_info.get("model", ""), time.monotonic() - began
        self._metrics.request(name if name in self._models.names else "", response.status, seconds)
        if response.status >= HTTPStatus.BAD_REQUEST and request.method == "POST" and name in self._models.names:
            self._log.refused(name, request.path[1:3], response.status, seconds=seconds)
        if self._stopping:
            response.force_close()
        return response

    def _check(self, request: web.Request) -> None:
        """Raises Refusal: who sends the request may not ask."""
        headers = request.headers
        refuse_foreign_pages(headers.get("Host"), headers.get("Origin"), self._options)
        if request.match_info.handler != self._page:  # a browser has no token yet, and nobody's secret stands on it
            check_bearer(headers.get("Authorization", ""), self._options.token, place="header Authorization")

    @contextlib.asynccontextmanager
    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body, which counts against the memory of all requests until it is answered."""
        is_packed = "Content-Encoding" in request.headers
        with self._memory.held(request.content_length, is_packed=is_packed) as resize:
            body = await self._read(request)
            resize(len(body))
            yield body

    async def _read(self, request: web.Request) -> bytes:
        seconds = self._options.timeout
        try:
            async with asyncio.timeout(seconds):
                return await request.read()
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"the body didn't come within {seconds:g} s") from None
        except web.HTTPRequestEntityTooLarge:
            raise self._memory.too_large from None
        except (web.RequestPayloadError, ConnectionResetError) as error:
            raise bad_request(f"the body can't be read: {first_line(error)}") from None

    async def _authorized(self, _: web.Request) -> web.Response:
        return _json({})  # whoever has a wrong token was refused before

    # -- for people

    async def _page(self, _: web.Request) -> web.Response:
        body, headers = page()
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def _page_model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        return _json(page_answer(name, self._models.batches(name).model, writes=name in self._models.writing))

    async def _openapi(self, _: web.Request) -> web.Response:
        return _json(document(self._serving, self._models.writing, has_token=self._options.needs_token))

    # -- TensorFlow Serving's protocol

    async def _v1_models(self, _: web.Request) -> web.Response:
        return _json({"models": self._models.names})

    async def _v1_status(self, request: web.Request) -> web.Response:
        name, version = request.match_info["model"], request.match_info.get("version")
        states = self._models.status(name)
        if version is not None:
            self._models.batches(name, version)
            states = {int(version): states[int(version)]}
        return _json(tfs_rest.status_answer(states))

    async def _v1_metadata(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        model = self._models.batches(name, request.match_info.get("version")).model
        told = tfs_rest.metadata_answer(name, model.version.number, model.inputs, model.outputs, model.classes)
        return _json(told)

    async def _v1_predict(self, request: web.Request) -> web.Response:
        def understand(body: bytes, model: LoadedModel) -> tuple[str, dict[str, np.ndarray]]:
            arrays, form = tfs_rest.predict_arrays(parsed(body, _content_type(request)), model.inputs)
            return form, arrays

        found = await self._computed(request, understand)
        return _json(tfs_rest.predict_answer(found.answers, found.asked))

    async def _v1_classify(self, request: web.Request) -> web.Response:
        def understand(body: bytes, model: LoadedModel) -> tuple[None, dict[str, np.ndarray]]:
            return None, tfs_rest.classify_arrays(parsed(body, _content_type(request)), model.inputs)

        found = await self._computed(request, understand)
        return _json(tfs_rest.classify_answer(found.answers, found.model.classes))

    async def _computed(self, request: web.Request, understand: Understand[_Asked]) -> Computed[_Asked]:
        name, version = _named(request)
        self._models.batches(name, version).check_room()
        async with self._body(request) as body:
            began = time.monotonic()
            found = await computed(self._models, (name, version), body, understand, timeout=self._options.timeout)
            self._log.answered(name, request.path[1:3], found, seconds=time.monotonic() - began)
            return found

    # -- the Open Inference Protocol

    async def _v2_server(self, _: web.Request) -> web.Response:
        return _json({"name": "tfscale", "version": __version__, "extensions": list(open_inference.EXTENSIONS)})

    async def _v2_health(self, request: web.Request) -> web.Response:
        key = request.path.rpartition("/")[2]
        return _json({key: not self._stopping}, status=503 if self._stopping else 200)

    async def _v2_index(self, request: web.Request) -> web.Response:
        async with self._body(request) as body:
            ready = parsed(body, _content_type(request)).get("ready", False) if body else False
        if not isinstance(ready, bool):
            raise bad_request('"ready" is true or false')
        states = {name: self._models.status(name) for name in self._models.names}
        answer = open_inference.index_answer(states, only_ready=ready)
        return web.Response(body=written(answer), content_type=_JSON)

    async def _v2_model(self, request: web.Request) -> web.Response:
        name, version = _named(request)
        return _json(open_inference.model_answer(name, self._models.batches(name, version).model))

    async def _v2_ready(self, request: web.Request) -> web.Response:
        name, version = _named(request)
        self._models.batches(name, version)
        return _json({"name": name, "ready": True})

    async def _v2_infer(self, request: web.Request) -> web.Response:
        length = open_inference.header_length(request.headers.get(_LENGTH))

        def understand(body: bytes, model: LoadedModel) -> tuple[open_inference.Asked, dict[str, np.ndarray]]:
            asked = open_inference.Asked.read(body, length, model.inputs, _content_type(request))
            asked.check_outputs(model.outputs)
            return asked, asked.arrays

        found = await self._computed(request, understand)
        version = str(found.model.version.number)
        head, size = found.asked.written(found.answers, name=_named(request)[0], version=version)
        if size is None:
            return web.Response(body=head, content_type=_JSON)
        return web.Response(body=head, content_type="application/octet-stream", headers={_LENGTH: str(size)})


def _content_type(request: web.Request) -> str:
    return str(request.headers.get("Content-Type", ""))


def _named(request: web.Request) -> tuple[str, str | None]:
    return request.match_info["model"], request.match_info.get("version")


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=written(value), content_type=_JSON, status=status)


def _error(status: int, what: str, headers: dict[str, str] | None = None) -> web.Response:
    kept = {name: value for name, value in (headers or {}).items() if name in ("Allow", "Location")}
    if status == HTTPStatus.UNAUTHORIZED:
        kept["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kept["Retry-After"] = "1"
    sayable = what.encode(errors="backslashreplace").decode()
    return web.Response(body=written({"error": sayable}), content_type=_JSON, status=status, headers=kept)
