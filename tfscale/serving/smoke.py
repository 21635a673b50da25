"""Entry point: `tfscale smoke url=URL model=RUN`: a server answers real examples as the model does, by both protocols.

Owns which examples are asked, and how long a server may take to have the model. Refuses to know how an answer is
compared, which is protocol_answers.py's.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tfscale.cli import Program, number, place
from tfscale.config.serve_options import listed_names, read_token
from tfscale.console import hushed
from tfscale.console.messages import RESULT, figures, shown
from tfscale.errors import CheckFailed, DataMissing, UsageError
from tfscale.process.startup import cpu_alone, lean
from tfscale.tracking.model_address import Stores

if TYPE_CHECKING:
    import numpy as np

    from tfscale.serving.loaded_model import LoadedModel

    _Arrays = Mapping[str, np.ndarray]

_log = logging.getLogger("tfscale.smoke")
_PAUSE = 0.5  # seconds between two tries


def main(argv: Sequence[str] | None = None) -> int:
    """Asks; returns the exit code, 1 where the server answers otherwise."""
    program = Program(
        "smoke",
        "Asks a server by TensorFlow Serving's REST protocol and the Open Inference Protocol about the examples that a"
        " model's export holds, and compares its answers with the model's own.",
        example="tfscale smoke url=http://127.0.0.1:8080 model=runs/resnet/563a34baa8",
        configured=False,
    )
    program.word("url", "URL", "of the server, with the prefix of a route where there is one", required=True)
    text = "a run, an export, a folder of versions, a URL, or models:/NAME@ALIAS, as of tfscale serve"
    program.word("model", "PATH|URL", text, required=True)
    program.word("tracker.uri", "URI", "of MLflow, for models:/... and runs:/..., as of tfscale serve")
    program.word("serve.name", "NAME", "by which the server is asked for it; else the recipe's, or the folder's")
    program.word("serve.pickles", "[NAME]", "that name, where its files may run their author's code here", default="")
    program.word("serve.token_file", "FILE", "the token; or TFSCALE_SERVE_TOKEN", type=place)
    program.word("serve.tls_cert", "FILE", "a certificate to trust, such as the server's own", type=place)
    program.word("wait", "SECONDS", "for the server, and until it has this model", type=_amount, default=60.0)
    text = "by how much a number may differ, as a share of 1 and its size together"
    program.word("tolerance", "NUMBER", text, type=_amount, default=1e-4)
    text = "ask by TensorFlow Serving's (v1) or the Open Inference Protocol (v2) alone; else by both"
    program.word("protocol", "v1|v2", text, default="")
    return program.run(argv, _smoke)


def _amount(text: str) -> float:
    """The type of seconds and of the tolerance: with NaN it would never end, or nothing be the same."""
    found = number(text)
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of 0 or more")
    return found


def _smoke(options: argparse.Namespace, _: dict) -> int:
    if options.protocol not in ("", "v1", "v2"):
        raise UsageError(f"{options.protocol} is no protocol of ours", where="protocol", fix="protocol=v1, or v2")
    cpu_alone()
    from tfscale.serving.asked_server import PROTOCOLS, AskedServer
    from tfscale.serving.repository import place_of

    token = read_token(options.serve_token_file, os.environ.get("TFSCALE_SERVE_TOKEN", ""))
    server = AskedServer.of(options.url, token=token, certificate=options.serve_tls_cert)
    stores = Stores.of_models([options.model], options.tracker_uri, os.environ)
    with shown("auto"), contextlib.closing(place_of(options.model, options.serve_name, stores, every=None)) as where:
        version, pickles = where.versions()[0], listed_names(options.serve_pickles, "serve.pickles", "[churn]")
        with hushed(), contextlib.nullcontext() if version.is_mlflow else lean():  # MLflow has use for pandas
            from tfscale.serving.model_kinds import load_model

            model = load_model(version, where.name, pickles)
        if not model.examples:
            fix = "save it with input_example=..." if version.is_mlflow else "export it again: fresh=true"
            raise DataMissing("the export holds no examples to ask about", where=options.model, fix=fix)
        asked = list(_asked(model))
        more = {"tolerance": options.tolerance, "protocols": [options.protocol] if options.protocol else PROTOCOLS}

        def ask() -> float:
            return max(server.differs(where.name, *one, **more) for one in asked)

        worst, count = within(options.wait, ask, server.url), len(next(iter(model.examples.values())))
        text = (
            f"{server.url} answers {count} examples as {options.model} does, by {options.protocol or 'both protocols'}"
        )
        _log.log(RESULT, f"{text}; largest difference {worst:.2g}", extra=figures(examples=count, difference=worst))
    return 0


def _asked(model: LoadedModel) -> Iterator[tuple[_Arrays, _Arrays]]:
    """(examples, answers) of each request: one example, where the model takes one, since a server bounds their size."""
    expected = model(model.examples)
    rows = len(next(iter(model.examples.values()))) if model.is_row_wise else 1
    for row in range(rows):
        cut = slice(row, row + 1) if model.is_row_wise else slice(None)
        yield _part(model.examples, cut), _part(expected, cut)


def _part(arrays: _Arrays, cut: slice) -> _Arrays:
    return {name: array[cut] for name, array in arrays.items()}


def within(
    seconds: float,
    ask: Callable[[], float],
    url: str,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """What `ask` returns, which is asked again while it raises CheckFailed and there is time: a server may be loading
    the model, or still have the one before.

    Raises:
        CheckFailed: the last one, once the time is over.
    """
    until, told = now() + seconds, ""
    while True:
        try:
            return ask()
        except CheckFailed as error:
            if now() >= until:
                raise CheckFailed(f"{error.what}, for {seconds:g} s", where=error.where, fix=error.fix) from None
            if error.what != told:
                _log.info(f"{url} isn't right yet: {error.what}")
                told = error.what
        sleep(_PAUSE)


if __name__ == "__main__":
    sys.exit(main())
