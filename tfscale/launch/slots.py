"""The slots in a job: who takes part, with which TF_CONFIG, on which cores and GPUs of this machine.

Owns roles and ports. Refuses to know processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tfscale.cluster.service_address import DATA_SERVICE
from tfscale.errors import UsageError
from tfscale.hardware import Hardware
from tfscale.hardware.shares import shares_of

_HOST = "127.0.0.1"
_LEAST = {"workers": 1, "ps": 0, "max_restarts": 0, "grace": 0, "evaluator_grace": 0, "data_workers": 0}


@dataclass(frozen=True)
class Job:
    """What a job consists of and how patient the launcher is.

    Args:
        workers: training processes, besides the chief where there is one.
        chief: whether there is a chief; without one worker 0 is it. Parameter servers always come with a chief.
        ps: parameter servers.
        evaluator: whether a process of its own evaluates every checkpoint.
        max_restarts: how often the job is started again after a retryable end; with parameter servers also how often
            each worker is.
        pin: give each training process cores (and GPUs) of its own.
        grace: seconds that the others get to end by themselves when a training process has failed.
        ps_grace: seconds that servers and workers get when the chief has ended.
        evaluator_grace: seconds that the evaluator gets when the training has ended.
        data_workers: processes that make the trainers' batches, besides a dispatcher.

    Raises:
        UsageError: a number that makes no job.
    """

    workers: int = 2
    chief: bool = False
    ps: int = 0
    evaluator: bool = False
    max_restarts: int = 0
    pin: bool = True
    grace: float = 30.0
    ps_grace: float = 10.0
    evaluator_grace: float = 600.0
    data_workers: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if not value >= least:
                raise UsageError(f"{option} {value} is less than {least}", where=option, fix=f"give {least} or more")
        if self.data_workers and self.ps:
            raise UsageError(
                "with parameter servers each worker reads for itself, and data workers would have nothing to do",
                where="--data-workers, --ps",
                fix="leave one of them away",
            )

    def roles(self) -> list[tuple[str, int]]:
        """Role and index of every process, the one that writes first."""
        counts = {"chief": int(self.chief or self.ps > 0), "worker": self.workers, "ps": self.ps}
        counts["evaluator"] = int(self.evaluator)
        counts |= {"dispatcher": int(self.data_workers > 0), "data": self.data_workers}
        return [(role, index) for role, count in counts.items() for index in range(count)]


@dataclass(frozen=True)
class Slot:
    """One process of a job: what it is told by its environment, the cores that it may use (None: all), and its command
    where it isn't the job's."""

    role: str
    index: int
    environ: Mapping[str, str] = field(default_factory=dict, hash=False)
    cores: tuple[int, ...] | None = None
    command: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.role}:{self.index}"

    @property
    def trains(self) -> bool:
        return self.role in ("chief", "worker")

    @property
    def serves(self) -> bool:
        """Whether it makes batches for those that train, and is there as long as they are."""
        return self.role in ("dispatcher", "data")


@contextlib.contextmanager
def slots_of(job: Job, hardware: Hardware, *, environ: Mapping[str, str] | None = None) -> Iterator[list[Slot]]:
    """The slots of a job on this machine. Inside, their ports are held; leave it just before they are to be used."""
    environ = os.environ if environ is None else environ
    roles = job.roles()
    training = [slot for slot in roles if slot[0] in ("chief", "worker")]
    cores, gpus = shares_of(hardware, len(training), environ) if job.pin else ([], [])
    with _free_ports(len(roles)) as ports:
        addresses = {slot: f"{_HOST}:{port}" for slot, port in zip(roles, ports, strict=True)}
        cluster: dict[str, list[str]] = {}
        for (role, _), address in addresses.items():
            if role not in ("evaluator", "dispatcher", "data"):
                cluster.setdefault(role, []).append(address)
        dispatcher, found = addresses.get(("dispatcher", 0)), []
        for slot in roles:
            role, index = slot
            if role in ("dispatcher", "data"):
                found.append(_serving(role, index, str(dispatcher)))
                continue
            seen = cluster if role != "evaluator" else {role: [addresses[slot]]}  # a cluster of its own
            config = {"cluster": seen, "task": {"type": role, "index": index}}
            variables = {"TF_CONFIG": json.dumps(config), "TFSCALE_CLUSTER": ""}  # whatever this process was told
            if dispatcher:
                variables[DATA_SERVICE] = dispatcher
            rank = training.index(slot) if slot in training else None
            if gpus and rank is not None:
                variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[rank])
            found.append(Slot(role, index, variables, cores[rank] if cores and rank is not None else None))
        yield found


def _serving(role: str, index: int, dispatcher: str) -> Slot:
    """A process of tf.data service. A data worker takes any port, and tells its dispatcher."""
    where = f"port={dispatcher.rpartition(':')[2]}" if role == "dispatcher" else f"dispatcher={dispatcher}"
    return Slot(role, index, command=(sys.executable, "-m", "tfscale.data_service", where, f"host={_HOST}"))


@contextlib.contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Ports that nobody uses, held together so that they differ; whoever starts late may still lose one."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            holder = held.enter_context(socket.socket())
            holder.bind((_HOST, 0))
            ports.append(holder.getsockname()[1])
        yield ports
