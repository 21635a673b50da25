"""TFSCALE_DATA_SERVICE: where the dispatcher of the job's data workers listens, "host:port".

The data workers are no part of the training's cluster: TF_CONFIG and TFSCALE_CLUSTER never list them, so that no rank
depends on them. `tfscale launch` and `tfscale k8s` set the variable for whoever trains. Owns the dialect.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tfscale.cluster.addresses import check_addresses
from tfscale.cluster.variables import wrong

DATA_SERVICE = "TFSCALE_DATA_SERVICE"


def service_address(environ: Mapping[str, str] | None = None) -> str:
    """The dispatcher's "host:port", "" where no data workers serve this process.

    Raises:
        ClusterConfigError: the variable is no address.
    """
    environ = os.environ if environ is None else environ
    address = environ.get(DATA_SERVICE, "").strip().removeprefix("grpc://")
    problems: list[str] = []
    if address:
        check_addresses({"dispatcher": {0: address}}, problems)
    if problems:
        fix = f"set {DATA_SERVICE}=HOST:PORT of the dispatcher, or remove it"
        raise wrong(problems[0].partition(": ")[2], environ, DATA_SERVICE, fix=fix)
    return address
