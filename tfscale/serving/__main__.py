"""Entry point: `tfscale serve model=RUN|EXPORT|SAVEDMODEL|VERSIONS|URL [serve.port=8080]`: parse, convert, serve."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfscale.cli import Program, choice, number, place, whole
from tfscale.config.serve_options import ServeOptions, read_token
from tfscale.console.messages import RESULT, shown
from tfscale.errors import UsageError
from tfscale.tracking.model_address import Stores

_log = logging.getLogger("tfscale.serve")
_DEFAULT = ServeOptions()


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM; returns the exit code."""
    return program().run(argv, _serve)


def program() -> Program:
    """Its words."""
    found = Program(
        "serve",
        "Answers requests by exported models: TensorFlow Serving's REST protocol and the Open Inference Protocol.",
        example="tfscale serve model=runs/resnet/563a34baa8 serve.port=8080",
        configured=False,
    )
    text = (
        "a run, an export, a SavedModel, an MLflow model, a folder of numbered versions, or the URL of one in a store"
    )
    text += " (s3://, gs://; https:// of an export); models:/NAME@ALIAS, runs:/ID/PATH; several: NAME=PATH,..."
    found.word("model", "PATH|URL", text, required=True)
    found.word("tracker.uri", "URI", "of MLflow, for models:/... and runs:/...; else the variables', or runs/mlflow.db")
    found.word("serve.name", "NAME", "by which requests ask for it; else the recipe's, or the folder's")
    found.word("serve.pickles", "[NAME,...]", "models whose files may run their author's code", default="")
    found.word("serve.host", "ADDRESS", "to listen on", default=_DEFAULT.host)
    found.word("serve.port", "PORT", "of requests; 0 takes any that is free", type=whole, default=_DEFAULT.port)
    found.word("serve.probes_port", "PORT", "of /livez, /readyz and /metrics", type=whole, default=8081)
    found.word("serve.grpc_port", "PORT", "of gRPC; left away: none", type=whole)
    found.word("serve.token_file", "FILE", "a token that requests bring; or TFSCALE_SERVE_TOKEN", type=place)
    found.word("serve.auth", "token|none", "none: whoever reaches it may ask", type=choice("token", "none"))
    found.word("serve.tls_cert", "FILE", "certificate in PEM", type=place)
    found.word("serve.tls_key", "FILE", "its key", type=place)
    found.word("serve.body", "BYTES", "of the largest request", type=whole, default=_DEFAULT.body)
    found.word("serve.memory", "BYTES", "of all requests together", type=whole, default=_DEFAULT.memory)
    found.word("serve.queue", "N", "examples that may wait for a model", type=whole, default=_DEFAULT.queue)
    found.word("serve.batch", "N", "examples of the largest batch", type=whole, default=_DEFAULT.batch)
    found.word("serve.threads", "N", "batches computed at once", type=whole, default=_DEFAULT.threads)
    found.word("serve.latency", "SECONDS", "that a batch may take", type=number, default=_DEFAULT.latency)
    found.word("serve.timeout", "SECONDS", "for a body, and for an answer", type=number, default=_DEFAULT.timeout)
    found.word("serve.header_timeout", "SECONDS", "for a request's headers", type=number, default=10.0)
    found.word("serve.drain", "SECONDS", "after SIGTERM, for what was begun", type=number, default=_DEFAULT.drain)
    found.word("serve.reload", "SECONDS", "between looks for a newer version", type=number, default=_DEFAULT.reload)
    found.word(
        "serve.page", "true|false", "a page for people at /", type=choice("true", "false"), default=_DEFAULT.page
    )
    found.word("serve.log", "FILE.jsonl", "some of the requests, as lines of JSON", type=place)
    found.word("serve.log_share", "SHARE", "of the requests, from 0 to 1", type=number, default=_DEFAULT.log_share)
    found.word("serve.log_redact", "[NAME,...]", "columns that it doesn't show", default=_DEFAULT.log_redact)
    found.word("serve.log_bytes", "BYTES", "of all its files", type=whole, default=_DEFAULT.log_bytes)
    found.word("log", "auto|plain|json", "form of messages", type=choice("auto", "plain", "json"), default="auto")
    return found


def _serve(options: argparse.Namespace, _: dict) -> int:
    models = _places(options.model, options.serve_name)
    stores = Stores.of_models(models.values(), options.tracker_uri, os.environ)
    with shown(options.log):
        serve(models, options_of(options, os.environ), stores)
    return 0


def options_of(given: argparse.Namespace, environ: Mapping[str, str]) -> ServeOptions:
    """The server's options; raises UsageError, DataMissing, also what `ServeOptions.check` does."""
    names = {name: getattr(given, f"serve_{name}") for name in vars(_DEFAULT) if hasattr(given, f"serve_{name}")}
    names["auth"] = names["auth"] or "token"
    for name in ("tls_cert", "tls_key"):
        names[name] = Path(names[name]) if names[name] else None
    known = "" if names["auth"] == "none" else environ.get("TFSCALE_SERVE_TOKEN", "")
    found = ServeOptions(token=read_token(given.serve_token_file, known), **names)
    found.check()
    return found


def _places(model: str, name: str | None) -> dict[str | None, str]:
    """Places by name; None where the place gives it."""
    pairs = [one.partition("=") for one in model.split(",")]
    if Path(model).expanduser().exists():
        return {name: model}
    if len(pairs) == 1 and (not pairs[0][1] or "://" in pairs[0][0]):  # an address may hold =
        return {name: model}
    wrong = [one for one in pairs if not one[1] or not one[0] or not one[2]]
    if wrong:
        raise UsageError(
            f"{model} names no models", where="model", fix="model=NAME=PATH,NAME=PATH, each with a name of its own"
        )
    if name is not None:
        raise UsageError(
            f"serve.name={name} would do nothing: model= names each model", where="serve.name", fix="leave it out"
        )
    names = [one[0] for one in pairs]
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise UsageError(f"two models are named {twice[0]}", where="model", fix="give each a name of its own")
    return {name: path for name, _, path in pairs}


def serve(models: dict[str | None, str], options: ServeOptions, stores: Stores) -> None:
    """Serves the models, by name, until SIGTERM or SIGINT.

    Args:
        stores: of models:/NAME@ALIAS and runs:/ID/PATH.

    Raises:
        UsageError: the extra `serve` isn't installed, or the options can't be.
        DataMissing, DataCorrupt: a model isn't there, or can't be read.
        ClusterFault: a port is taken.
        IOFailure: the registry or the store can't be reached.
        OutputError: the log can't be written.
    """
    try:
        from tfscale.serving.http_server import HttpServer
        from tfscale.serving.listening import loop_factory
        from tfscale.serving.service_metrics import ServiceMetrics

        metrics = ServiceMetrics()
    except ImportError as error:
        raise UsageError(
            f"serving needs more packages: {error}", where="serve", fix='pip install "tfscale[serve]"'
        ) from None
    from tfscale.serving.repository import Repository, place_of
    from tfscale.serving.request_batches import Limits
    from tfscale.serving.request_log import RequestLog

    places = [place_of(path, name, stores, every=options.reload) for name, path in models.items()]
    limits = Limits(options.batch, options.queue, options.threads, options.latency)
    repository = Repository(places, limits, every=options.reload, seen=metrics.batch, pickles=options.unpickled)
    log = RequestLog(options, metrics.logged)
    server = HttpServer(repository, options, metrics, log)

    async def run() -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, stopped.set)
        await server.run(stopped, ready=lambda: _tell(server.addresses, repository.names, options))
        if server.is_at_work:  # its threads would be waited for as long as they like
            _log.warning("stopped while a model was at work")
            repository.close()
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())
    repository.close()
    _log.info("stopped; every request that was begun is answered")


def _tell(addresses: Sequence[tuple[str, int]], names: Sequence[str], options: ServeOptions) -> None:
    """What people and programs find where."""
    (host, port), (_, probes), *more = addresses
    at = f"http{'s' if options.tls_cert else ''}://{f'[{host}]' if ':' in host else host}:{port}"
    for name in names:
        _log.log(RESULT, f"{name} is served: POST {at}/v1/models/{name}:predict or {at}/v2/models/{name}/infer")
    if options.has_page:
        _log.info(f"a page on which people ask: {at}/")
    for _, grpc_port in more:
        _log.info(f"gRPC, of both protocols, on port {grpc_port}")
    _log.info(f"health and metrics without a token: port {probes}, /livez, /readyz and /metrics")
    if options.log is not None:
        _log.info(f"a share of {options.log_share:g} of the requests is written to {options.log}")
    if not options.is_local and not options.needs_token:
        _log.warning(f"serve.auth=none: whoever reaches {host}:{port} may ask")


if __name__ == "__main__":
    sys.exit(main())
