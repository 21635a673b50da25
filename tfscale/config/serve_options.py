"""What a server is told on the command line: where it listens, who may ask, and how much at once.

Owns what is refused before a model is loaded. Refuses to know HTTP.

    options = ServeOptions(port=8080)
    options.check()
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import yaml

from tfscale.errors import DataMissing, UsageError

_SHORTEST = 16  # characters of a token that nobody guesses


@dataclass(frozen=True)
class ServeOptions:
    """One server.

    Attributes:
        host, port: of requests; port 0 takes any that is free.
        probes_port: of health and metrics, which need no token; 0: any that is free.
        grpc_port: of gRPC; None: none.
        token: that requests bring; "" where none is asked for.
        auth: "token", or "none" where whoever reaches the port may ask.
        tls_cert, tls_key: files of TLS; None: without.
        body: bytes of the largest request. memory: of all requests that are read or wait.
        queue: examples that may wait for each model.
        batch: examples of the largest batch.
        threads: batches of a model that are computed at once.
        latency: seconds that a batch may take.
        timeout: seconds for an answer, and for a body to arrive. header_timeout: for its headers.
        drain: seconds after SIGTERM for what was begun.
        reload: seconds between two looks for a newer version.
        page: "true", or "false" where people find no page.
        pickles: names of models whose files may run their author's code when they are read, such as "churn, price".
        log: a file of some of the requests; None: none. log_share: of them, from 0 to 1. log_bytes: of all its files.
        log_redact: columns that it doesn't show, such as "age, town".
    """

    host: str = "127.0.0.1"
    port: int = 8080
    probes_port: int = 8081
    grpc_port: int | None = None
    token: str = ""
    auth: str = "token"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    body: int = 16_000_000
    memory: int = 256_000_000
    queue: int = 512
    batch: int = 64
    threads: int = 2
    latency: float = 0.1
    timeout: float = 30.0
    header_timeout: float = 10.0
    drain: float = 20.0
    reload: float = 2.0
    page: str = "true"
    pickles: str = ""
    log: str | None = None
    log_share: float = 0.01
    log_redact: str = ""
    log_bytes: int = 100_000_000

    @property
    def needs_token(self) -> bool:
        return bool(self.token)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def has_page(self) -> bool:
        return self.page == "true"

    @property
    def redacted(self) -> frozenset[str]:
        """Raises UsageError: no list of names."""
        return listed_names(self.log_redact, "serve.log_redact", "[age, town]")

    @property
    def unpickled(self) -> frozenset[str]:
        """Raises UsageError: no list of names."""
        return listed_names(self.pickles, "serve.pickles", "[churn, price]")

    def _check_log(self) -> None:
        usual = ServeOptions()
        vain = [
            name for name in ("log_share", "log_redact", "log_bytes") if getattr(self, name) != getattr(usual, name)
        ]
        if self.log is None and vain:
            names = ", ".join(f"serve.{name}" for name in vain)
            raise UsageError(f"{names} without a log has no effect", where=names, fix="serve.log=requests.jsonl")
        if self.log is not None and Path(self.log).suffix != ".jsonl":
            raise UsageError(f"{self.log} is no .jsonl", where="serve.log", fix="serve.log=requests.jsonl")
        if not 0 < self.log_share <= 1:
            raise UsageError(
                f"serve.log_share is {self.log_share:g}", where="serve.log_share", fix="use a share above 0, up to 1"
            )
        if self.log_bytes < 100_000:
            raise UsageError(
                f"{self.log_bytes} bytes hold few requests", where="serve.log_bytes", fix="use 100000 or more"
            )
        _ = self.redacted

    def check(self) -> None:
        """Raises UsageError: what can't be, or would let everybody in."""
        self._check_log()
        _ = self.unpickled
        if self.page not in ("true", "false"):
            raise UsageError(f"{self.page!r} is neither true nor false", where="serve.page", fix="serve.page=false")
        for name in ("port", "probes_port", "grpc_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise UsageError(f"there is no port {getattr(self, name)}", where=f"serve.{name}", fix="use 1 to 65535")
        taken = [port for port in (self.port, self.probes_port, self.grpc_port) if port]
        if len(set(taken)) != len(taken):
            raise UsageError(
                "requests, probes and gRPC can't share a port",
                where="serve.port, serve.probes_port, serve.grpc_port",
                fix="give each a port of its own",
            )
        for name in ("body", "memory", "queue", "batch", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"serve.{name} is {getattr(self, name)}", where=f"serve.{name}", fix="use 1 or more")
        for name in ("latency", "timeout", "header_timeout", "reload"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    f"serve.{name} is {getattr(self, name):g}", where=f"serve.{name}", fix="use seconds above 0"
                )
        if not 0 <= self.drain < float("inf"):
            raise UsageError(f"serve.drain is {self.drain:g}", where="serve.drain", fix="use seconds, 0 or more")
        if not self.host:
            raise UsageError("there is no address to listen on", where="serve.host", fix="serve.host=127.0.0.1")
        if self.memory < self.body:
            raise UsageError(
                f"one request may have {self.body} bytes, and all together {self.memory}",
                where="serve.memory",
                fix=f"serve.memory={self.body * 4}, or a smaller serve.body",
            )
        if self.token and self.auth == "none":
            raise UsageError("a token is given, and serve.auth=none asks for none", where="serve.auth", fix="drop one")
        if self.token and (len(self.token) < _SHORTEST or not self.token.isascii() or not self.token.isprintable()):
            raise UsageError(
                f"the token is no line of {_SHORTEST} or more ASCII characters",
                where="serve.token_file",
                fix="openssl rand -hex 32 > FILE makes one",
            )
        if not self.is_local and not self.token and self.auth != "none":
            raise UsageError(
                f"whoever reaches {self.host} could ask the model",
                where="serve.host",
                fix="serve.token_file=FILE with a token, or serve.auth=none where something else keeps others out",
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise UsageError(
                "TLS takes a certificate and its key",
                where="serve.tls_cert, serve.tls_key",
                fix="give both, or none",
            )

    def tls(self) -> ssl.SSLContext | None:
        """Raises DataMissing, UsageError: the files aren't there, or are no certificate and its key."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key, password=lambda: "")  # nobody could type one
        except ssl.SSLError as error:
            raise UsageError(
                f"the certificate and the key can't be used: {error.reason or error}",
                where="serve.tls_cert, serve.tls_key",
                fix="give files in PEM that belong together",
            ) from None
        except OSError as error:
            raise DataMissing(
                f"{error.filename or self.tls_cert} can't be read: {error.strerror}",
                where="serve.tls_cert, serve.tls_key",
                fix="give files that this process may read",
            ) from None
        return context


def listed_names(text: str, where: str, example: str) -> frozenset[str]:
    """The names in "a, b" or "[a, b]".

    Args:
        where: the key that holds them. example: of such a list.

    Raises:
        UsageError: no list of names.
    """
    text = text.strip()
    try:
        found = yaml.safe_load(text if text.startswith("[") else f"[{text}]")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str | int) for one in found):
        raise UsageError(f"{text!r} are no names", where=where, fix=f"{where}='{example}'")
    return frozenset(map(str, found))


def read_token(file: str | Path | None, environ_value: str = "") -> str:
    """The token in a file, else that of TFSCALE_SERVE_TOKEN; "" where neither is given.

    Raises:
        DataMissing: the file can't be read.
        UsageError: it is empty.
    """
    if file is None:
        return environ_value.strip()
    try:
        token = Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataMissing(
            f"the token can't be read: {getattr(error, 'strerror', None) or error}",
            where="serve.token_file",
            fix="give a file with one line",
        ) from None
    if not token:
        raise UsageError("the file of the token is empty", where="serve.token_file", fix="openssl rand -hex 32 > FILE")
    return token
