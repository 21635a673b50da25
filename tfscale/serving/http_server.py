"""HTTP: the addresses of both protocols, who may ask, and how large, slow and many requests may be.

Owns aiohttp and uvloop (extra `serve`), the two ports, and the end: what was begun is answered. Refuses to know what
requests hold, which is each protocol's own.

    asyncio.Runner(loop_factory=loop_factory()).run(HttpServer(models, options, metrics).run(stopped))
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from tfscale.config.serve_options import ServeOptions
from tfscale.errors import ClusterFault, first_line
from tfscale.serving import open_inference, tfs_rest
from tfscale.serving.grpc_server import GrpcServer
from tfscale.serving.header_deadline import HeaderDeadlines
from tfscale.serving.json_body import parsed, written
from tfscale.serving.refusal import Refusal, bad_request
from tfscale.serving.repository import Repository
from tfscale.serving.service_metrics import ServiceMetrics
from tfscale.serving.tensor_specs import check_rows
from tfscale.version import __version__

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_JSON = "application/json"
_LENGTH = "Inference-Header-Content-Length"


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, which answers more requests; asyncio's own where it isn't installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class HttpServer:
    """The server of one process.

    Attributes:
        addresses: (host, port) of requests, of probes, and of gRPC where it is asked for, once `run` called `ready`.
    """

    def __init__(self, models: Repository, options: ServeOptions, metrics: ServiceMetrics):
        self._models, self._options, self._metrics = models, options, metrics
        self._in_flight, self._held, self._stopping = 0, 0, False
        self._deadlines: HeaderDeadlines | None = None
        self._grpc = GrpcServer(models, options, metrics)
        self.addresses: list[tuple[str, int]] = []

    async def run(self, stopped: asyncio.Event, *, ready: Callable[[], None] = lambda: None) -> None:
        """Loads the models and serves until it is stopped, and then what was begun.

        Raises:
            DataMissing, DataCorrupt, UsageError: a model can't be loaded.
            ClusterFault: a port is taken.
        """
        tls, ports = self._options.tls(), (self._options.port, self._options.probes_port)
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(_listening(self._options.host, port)) for port in ports]
            self.addresses = [one.getsockname()[:2] for one in sockets]
            await self._run(sockets, tls, stopped, ready)

    async def _run(
        self,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None,
        stopped: asyncio.Event,
        ready: Callable[[], None],
    ) -> None:
        probes = web.AppRunner(self._probes(), access_log=None, handle_signals=False)
        requests = web.AppRunner(self._requests(), access_log=None, handle_signals=False, keepalive_timeout=75.0)
        loop = asyncio.get_running_loop()
        await probes.setup()
        await web.SockSite(probes, sockets[1]).start()  # alive while it loads
        try:
            await self._models.load()
            await requests.setup()
            self._deadlines = HeaderDeadlines(requests.server, self._options.header_timeout, self._options.timeout)  # type: ignore[arg-type]
            server = await loop.create_server(self._deadlines, sock=sockets[0], ssl=tls, backlog=1024)
            if self._options.grpc_port is not None:
                self.addresses.append((self._options.host, await self._grpc.start()))
            ready()
            watching = asyncio.create_task(self._models.watch(stopped))
            await stopped.wait()
            await watching
            self._stopping = True
            server.close()
            if requests.server is not None:
                requests.server.pre_shutdown()  # idle connections
            await asyncio.gather(self._drained(), self._grpc.stop())
        finally:
            await requests.cleanup()
            await probes.cleanup()

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
            fine = bool(self._models.names) and not self._stopping and self._deadlines is not None
            return web.Response(text="ready\n" if fine else "not ready\n", status=200 if fine else 503)

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=self._metrics.written(), headers={"Content-Type": "text/plain; version=0.0.4"})

        app = web.Application()
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
        app.router.add_get("/v2", self._v2_server)
        app.router.add_get("/v2/health/live", self._v2_health)
        app.router.add_get("/v2/health/ready", self._v2_health)
        app.router.add_post("/v2/repository/index", self._v2_index)
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            app.router.add_get(model, self._v2_model)
            app.router.add_get(f"{model}/ready", self._v2_ready)
            app.router.add_post(f"{model}/infer", self._v2_infer)
        return app

    @web.middleware
    async def _answered(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Counts, and turns every error into a sentence in JSON."""
        assert self._deadlines is not None
        self._deadlines.begun(request.protocol)
        began, self._in_flight = time.monotonic(), self._in_flight + 1
        self._metrics.in_flight.set(self._in_flight)
        try:
            self._authorise(request)
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
        name = request.match_info.get("model", "")
        self._metrics.request(name if name in self._models.names else "", response.status, time.monotonic() - began)
        if self._stopping:
            response.force_close()
        return response

    def _authorise(self, request: web.Request) -> None:
        if not self._options.needs_token:
            return
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Bearer TOKEN")
        if not hmac.compare_digest(token.strip().encode(errors="replace"), self._options.token.encode()):
            raise Refusal(HTTPStatus.FORBIDDEN, "the token is another")

    @contextlib.asynccontextmanager
    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body, which counts against the memory of all requests until it is answered."""
        options, declared = self._options, request.content_length
        too_large = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request may have {options.body} bytes")
        if declared is not None and declared > options.body:
            raise too_large
        held = options.body if declared is None else declared
        if self._held + held > options.memory:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "requests hold all the memory that they may; come again later")
        self._hold(held)
        try:
            async with asyncio.timeout(options.timeout):
                body = await request.read()
            yield body
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"the body didn't come within {options.timeout:g} s") from None
        except web.HTTPRequestEntityTooLarge:
            raise too_large from None
        finally:
            self._hold(-held)

    def _hold(self, size: int) -> None:
        self._held += size
        self._metrics.held_bytes.set(self._held)

    async def _authorized(self, _: web.Request) -> web.Response:
        return _json({})  # whoever has a wrong token was refused before

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
        return _json(tfs_rest.metadata_answer(name, model.version.number, model.inputs, model.outputs))

    async def _v1_predict(self, request: web.Request) -> web.Response:
        name, version = _named(request)
        self._models.batches(name, version).check_room()
        async with self._body(request) as body:
            batches = self._models.batches(name, version)
            specs = batches.model.inputs
            arrays, form = tfs_rest.predict_arrays(parsed(body, request.headers.get("Content-Type", "")), specs)
            answers = await batches.answer(arrays, check_rows(arrays, specs), timeout=self._options.timeout)
        return _json(tfs_rest.predict_answer(answers, form))

    async def _v1_classify(self, request: web.Request) -> web.Response:
        name, version = _named(request)
        self._models.batches(name, version).check_room()
        async with self._body(request) as body:
            batches = self._models.batches(name, version)
            model = batches.model
            arrays = tfs_rest.classify_arrays(parsed(body, request.headers.get("Content-Type", "")), model.inputs)
            answers = await batches.answer(arrays, check_rows(arrays, model.inputs), timeout=self._options.timeout)
        return _json(tfs_rest.classify_answer(answers, model.classes))

    # -- the Open Inference Protocol

    async def _v2_server(self, _: web.Request) -> web.Response:
        return _json({"name": "tfscale", "version": __version__, "extensions": list(open_inference.EXTENSIONS)})

    async def _v2_health(self, request: web.Request) -> web.Response:
        key = request.path.rpartition("/")[2]
        return _json({key: not self._stopping}, status=503 if self._stopping else 200)

    async def _v2_index(self, _: web.Request) -> web.Response:
        found = []
        for name in self._models.names:
            for number, wrong in self._models.status(name).items():
                state = "UNAVAILABLE" if wrong else "READY"
                found.append({"name": name, "version": str(number), "state": state, "reason": wrong})
        return web.Response(body=written(found), content_type=_JSON)

    async def _v2_model(self, request: web.Request) -> web.Response:
        name, version = _named(request)
        model = self._models.batches(name, version).model
        return _json(open_inference.model_answer(name, str(model.version.number), model.inputs, model.outputs))

    async def _v2_ready(self, request: web.Request) -> web.Response:
        name, version = _named(request)
        self._models.batches(name, version)
        return _json({"name": name, "ready": True})

    async def _v2_infer(self, request: web.Request) -> web.Response:
        name, version = _named(request)
        self._models.batches(name, version).check_room()
        length = _whole(request.headers.get(_LENGTH))
        async with self._body(request) as body:
            batches = self._models.batches(name, version)
            model = batches.model
            asked = open_inference.Asked.read(body, length, model.inputs, request.headers.get("Content-Type", ""))
            asked.check_outputs(model.outputs)
            rows = check_rows(asked.arrays, model.inputs)
            answers = await batches.answer(asked.arrays, rows, timeout=self._options.timeout)
        head, size = asked.written(answers, name=name, version=str(model.version.number))
        if size is None:
            return web.Response(body=head, content_type=_JSON)
        return web.Response(body=head, content_type="application/octet-stream", headers={_LENGTH: str(size)})


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
    return web.Response(body=written({"error": what}), content_type=_JSON, status=status, headers=kept)


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise bad_request(f"{_LENGTH} is no whole number")
    return int(text)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ClusterFault(
            f"{host}:{port} can't be listened on: {error.strerror}", where="serve.port", fix="choose another port"
        ) from None
    return found
