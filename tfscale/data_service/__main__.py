"""Entry point: `tfscale data serve port=2222`, and for each data worker `tfscale data serve dispatcher=HOST:2222`."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence

from tfscale.cli import Parser, guard
from tfscale.cluster.service_address import DATA_SERVICE, service_address
from tfscale.console import messages, table
from tfscale.errors import UsageError, nearest

_WORDS = {
    "dispatcher": "HOST:PORT: a data worker of that dispatcher; left away, this is the dispatcher",
    "port": "to listen on; a data worker takes any that is free",
    "host": "by which trainers reach this process (this machine's name)",
    "timeout": "seconds to wait for the dispatcher (300)",
    "linger": "seconds to serve on after SIGTERM (0): trainers that hear it, too, may need a few batches more",
    "log": "auto, plain or json",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM; returns the exit code."""
    parser = Parser(
        "tfscale data serve",
        "Make batches for trainers, by tf.data service: its dispatcher, or a data worker.",
        usage="tfscale data serve port=PORT | dispatcher=HOST:PORT [KEY=VALUE ...]",
        epilog=f"keys:\n{table([(f'{name}=', told) for name, told in _WORDS.items()], framed=False)}\n"
        f"Trainers find the dispatcher by {DATA_SERVICE}=HOST:PORT. All of it is\n"
        "started by `tfscale launch --data-workers N`, or by what\n"
        "`tfscale k8s job.data_workers=N` prints.\n"
        "example: tfscale data serve dispatcher=10.0.0.7:2222 host=10.0.0.8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="see below")
    return guard(lambda _: _serve(parser.parse(sys.argv[1:] if argv is None else argv).words))


def _serve(words: Sequence[str]) -> int:
    given = dict(_pair(word) for word in words)
    try:
        port = int(given.get("port", "0"))
        timeout, linger = float(given.get("timeout", "300")), float(given.get("linger", "0"))
    except ValueError as error:
        raise UsageError(
            str(error), where="port, timeout, linger", fix="write numbers: port=2222 timeout=300"
        ) from None
    if (form := given.get("log", "auto")) not in messages.FORMATS:
        raise UsageError(f"log={form} is no form of messages", where="log", fix=f"log={'|'.join(messages.FORMATS)}")
    from tfscale.data_service.serving import refuse_impossible, serve

    dispatcher = service_address({DATA_SERVICE: given.get("dispatcher", "")})
    refuse_impossible(port=port, dispatcher=dispatcher, timeout=timeout, linger=linger)
    with messages.shown(form):
        host = given.get("host") or socket.gethostname()
        serve(port=port, host=host, dispatcher=dispatcher, timeout=timeout, linger=linger)
    return 0


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if name not in _WORDS or not equals:
        hint = nearest(name, list(_WORDS))
        raise UsageError(f"unknown word {word!r}{hint}", where="command line", fix="--help lists the keys")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
