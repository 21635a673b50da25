"""Slurm: the tasks of one step, as srun tells them. https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES

A batch script itself, or a shell in an allocation, is no cluster: only srun starts tasks beside each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tfscale.cluster.addresses import Found
from tfscale.cluster.variables import MAX_SIZE, is_set, number, place, wrong

_COUNT, _INDEX = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
_NODES, _SHARES = "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"
_JOB, _STEP = "SLURM_JOB_ID", "SLURM_STEP_ID"
# Steps that share a node get ports of their own, by their number, below those that Linux gives out.
_FIRST_PORT, _STEPS, _TASKS = 20_000, 600, 20


def find(environ: Mapping[str, str]) -> Found | None:
    """Reads SLURM_STEP_*; None outside of a step, and where it has one task.

    Raises:
        ClusterConfigError: a variable is missing or wrong, tasks are not spread by blocks, or a node has more than 20.
    """
    if not is_set(environ, _COUNT) or number(environ, _COUNT, least=1) == 1:
        return None
    count, index = number(environ, _COUNT), number(environ, _INDEX)
    place(index, count, environ, _INDEX, _COUNT)
    nodes = list(_nodes(environ))
    shares = list(_shares(environ))
    # With one task a node, srun's default says cyclic, and the order is the same
    by_blocks = re.split("[,:]", environ.get("SLURM_DISTRIBUTION", ""))[0] in ("block", "")
    if max(shares) > 1 and not by_blocks:
        what = "tasks must be numbered node by node"
        raise wrong(what, environ, "SLURM_DISTRIBUTION", fix="srun --distribution=block")
    if len(nodes) != len(shares) or sum(shares) != count:
        raise wrong("these don't describe the same tasks", environ, _COUNT, _NODES, _SHARES)
    if max(shares) > _TASKS:
        raise wrong(
            f"one node has {max(shares)} tasks, more than {_TASKS}", environ, _SHARES, fix="srun --ntasks-per-node=1"
        )
    port = _port(environ)
    tasks = (f"{node}:{port + task}" for node, share in zip(nodes, shares, strict=True) for task in range(share))
    return {"worker": tuple(tasks)}, "worker", index


def _port(environ: Mapping[str, str]) -> int:
    """The first task's port on each node; the other tasks of a node have those that follow."""
    if not re.fullmatch(r"[0-9]{1,12}", environ.get(_JOB, "").strip()):
        raise wrong("a job has a number", environ, _JOB)
    step = number(environ, _STEP) if is_set(environ, _STEP) else 0
    return _FIRST_PORT + (int(environ[_JOB]) + step) % _STEPS * _TASKS


def _shares(environ: Mapping[str, str]) -> Iterator[int]:
    """Tasks per node, from the form 2(x3),1."""
    for word in environ.get(_SHARES, "").split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", word.strip())
        if match is None or int(match[2] or 1) > MAX_SIZE:
            raise wrong("tasks per node are written 2(x3),1", environ, _SHARES)
        yield from [int(match[1])] * int(match[2] or 1)


def _nodes(environ: Mapping[str, str]) -> Iterator[str]:
    """The nodes' names, from the form gpu[01-03,07],login1."""
    text = environ.get(_NODES, "").strip()
    words = re.findall(r"(?:[^,\[\]\s]|\[[0-9,-]+\])+", text)
    if not words or ",".join(words) != text:
        raise wrong("nodes are written gpu[01-03,07],login1", environ, _NODES)
    for word in words:
        yield from _expand(word, environ)


def _expand(word: str, environ: Mapping[str, str]) -> Iterator[str]:
    match = re.search(r"\[([0-9,-]+)\]", word)
    if match is None:
        yield word
        return
    for part in match[1].split(","):
        first, _, last = part.partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < int(first) + MAX_SIZE):
            raise wrong(f"[{match[1]}] is no range", environ, _NODES)
        for index in range(int(first), int(last) + 1):
            # A second bracket may follow: rack[1-2]node[1-4]
            yield from _expand(word[: match.start()] + f"{index:0{len(first)}d}" + word[match.end() :], environ)
