"""A job from its first process to its exit code: who may end how, who is started again, when all are.

Owns these rules. Refuses to know what the processes run: it sees exit codes.
"""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass

from tfscale.errors import KILLED, RETRYABLE, ClusterFault
from tfscale.hardware import memory_kills, probe
from tfscale.launch.process_group import ProcessGroup
from tfscale.launch.slots import Job, Slot, slots_of
from tfscale.process.children import Child

_SERVER_RESTARTS = 10  # of each process that serves data; beyond, something is wrong with it
_SERVER_GRACE = 10.0  # seconds that it gets when the training has ended


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        code: its exit code, 0 if all is well.
        cause: the label of the process whose end is the cause; "" where there is none.
        line: what that process said about its error, or "".
        retryable: whether the same command may end better.
    """

    code: int
    cause: str = ""
    line: str = ""
    retryable: bool = False


def run_job(job: Job, group: ProcessGroup) -> Outcome:
    """Runs all processes of a job, and all over again after a retryable end. Returns when the last has ended."""
    for attempt in range(job.max_restarts + 1):
        outcome = _Attempt(job, group).run()
        if not outcome.retryable or attempt == job.max_restarts or group.signum is not None:
            break
        group.report(f"restart {attempt + 1} of {job.max_restarts}: {outcome.cause} ended with {outcome.code}")
    return outcome


class _Attempt:
    """All processes of the job, once."""

    def __init__(self, job: Job, group: ProcessGroup):
        self.job, self.group = job, group
        self.causes: list[Child] = []  # failures of the training
        self.running: set[Slot] = set()
        self.restarts: Counter[Slot] = Counter()
        self.training_ended = self.late = False
        self.memory_kills = memory_kills()  # before there was one of ours

    def run(self) -> Outcome:
        group = self.group
        try:
            with slots_of(self.job, probe(environ=group.environ), environ=group.environ) as order:
                pass  # from here on the ports are free again
            for slot in order:
                if group.signum is None:
                    group.start(slot)
                    self.running.add(slot)
            while self.running:
                group.pump()
                for slot in [slot for slot in order if slot in self.running]:
                    child = group.ended(slot)
                    if child:
                        self.running.discard(slot)
                        self._judge(slot, child)
                self._keep_time()
            outcome = self._outcome(order)
            if outcome.code:
                self._table()
            return outcome
        finally:
            group.clear()

    def _judge(self, slot: Slot, child: Child) -> None:
        """Decides what one process's end means for the others."""
        self._blame_memory(child)
        if slot.serves:
            self._serve_on(slot, child)
            return
        failed = bool(child.code) and not child.killed
        if slot.role != "evaluator" and failed and not self._after_chief(slot) and not self._replaced(slot, child):
            self._tell_failure(child)
            self.causes.append(child)
            if self.group.signum is None:  # else all were told to end, and writing a checkpoint takes its time
                self._limit(self.job.grace)
        if slot.role == "chief" and self.job.ps:
            self._limit(self.job.ps_grace)
        if not self.training_ended and not self._training():
            self.training_ended = True
            patience = self.job.grace if self.group.signum is not None else 0.0
            for evaluator in self._children("evaluator"):
                wait = self.job.evaluator_grace if self._trained_well() else patience
                evaluator.kill_at = self.group.now() + wait
            for server in self._children("dispatcher", "data"):
                server.send(signal.SIGTERM)
                server.kill_at = self.group.now() + _SERVER_GRACE

    def _serve_on(self, slot: Slot, child: Child) -> None:
        """One that serves data and is lost is started again; meanwhile others do its work, or the trainers wait."""
        if self.training_ended or self.causes or self.group.signum is not None:
            return
        end = f"{slot.label} ended with {child.code}"
        if self.restarts[slot] == _SERVER_RESTARTS:
            if slot.role == "dispatcher":  # no trainer gets a batch without it
                self._tell_failure(child)
                self.causes.append(child)
                self._limit(self.job.grace)
                return
            self.group.report(f"{end}: the job goes on without it")
            return
        self.restarts[slot] += 1
        self.group.report(f"{end}: it is started again ({self.restarts[slot]} of {_SERVER_RESTARTS})")
        self.group.start(slot)
        self.running.add(slot)

    def _replaced(self, slot: Slot, child: Child) -> bool:
        """Under parameter servers a lost worker is started again, or done without; False if the job must end."""
        if slot.role != "worker" or not self.job.ps or not _retryable(child):
            return False
        if self.causes or self.group.signum is not None:
            return False
        end = f"{slot.label} ended with {child.code}"
        if self.restarts[slot] < self.job.max_restarts:
            self.restarts[slot] += 1
            self.group.report(f"{end}: it is started again ({self.restarts[slot]} of {self.job.max_restarts})")
            self.group.start(slot)
            self.running.add(slot)
            return True
        if any(other.role == "worker" for other in self.running):
            self.group.report(f"{end}: the job goes on without it")
            return True
        return False

    def _blame_memory(self, child: Child) -> None:
        """Says of a process that the kernel killed for memory that it did."""
        now = memory_kills()
        if child.code != KILLED or child.killed or now is None or now <= (self.memory_kills or 0):
            return
        self.memory_kills = now
        text = "killed for memory: the kernel says so in the control group's oom_kill count"
        fix = "give the machine or container more memory, or use fewer workers or a smaller train.global_batch"
        self.group.error_lines.setdefault(child.label, f"tfscale: error[E-0137] {text} | memory | {fix}")
        self.group.report(f"{child.label} was {text}")

    def _after_chief(self, slot: Slot) -> bool:
        """Under parameter servers the chief's end is the training's; how the others end then is no failure."""
        return self.job.ps > 0 and slot.role != "chief" and not self._children("chief")

    def _tell_failure(self, child: Child) -> None:
        others = self._training()
        if others and not self.causes and self.group.signum is None:
            who = ", ".join(other.label for other in others)
            self.group.note(f"{child.label} ended with {child.code}: {self.job.grace:g} s for {who} to end, too")

    def _training(self) -> list[Child]:
        return self._children("chief", "worker", "ps")

    def _children(self, *roles: str) -> list[Child]:
        """Those that still run."""
        return [child for slot, child in self.group.children.items() if slot.role in roles and slot in self.running]

    def _limit(self, seconds: float) -> None:
        """The training's processes must end within so many seconds, or sooner where that was said before."""
        at = self.group.now() + seconds
        for child in self._training():
            child.kill_at = min(at, child.kill_at or at)

    def _keep_time(self) -> None:
        for slot in self.running:
            child = self.group.children[slot]
            if child.kill_at is not None and self.group.now() > child.kill_at and not child.killed:
                if slot.role == "evaluator" and self._trained_well():
                    self.late = True
                    self.group.report(f"{slot.label} is stopped: the training ended {self.job.evaluator_grace:g} s ago")
                child.kill()

    def _trained_well(self) -> bool:
        """Of the ended training: under parameter servers the chief speaks for all."""
        decisive = ("chief",) if self.job.ps else ("chief", "worker")
        codes = [child.code for slot, child in self.group.children.items() if slot.role in decisive]
        return bool(codes) and not any(codes)

    def _outcome(self, order: list[Slot]) -> Outcome:
        group, signum = self.group, self.group.signum
        if len(group.children) == len(order) and self._trained_well():
            evaluators = [child for slot, child in group.children.items() if slot.role == "evaluator"]
            if not any(child.code for child in evaluators):
                return Outcome(0)
            if self.late:
                return Outcome(
                    ClusterFault.exit_code, evaluators[0].label, group.error_lines.get(evaluators[0].label, "")
                )
            causes = [child for child in evaluators if not child.killed]
        else:
            causes = self.causes
        if not causes:  # a second signal killed all, or the first came before there was a process
            return Outcome(
                KILLED if any(c.killed for c in group.children.values()) else 128 + (signum or signal.SIGTERM)
            )

        def rank(child: Child) -> tuple[int, float]:
            stopped = signum is not None and child.code == 128 + signum
            return (0 if child.code not in RETRYABLE else 1 if stopped else 2), child.ended

        cause = min(causes, key=rank)
        assert cause.code is not None
        return Outcome(cause.code, cause.label, group.error_lines.get(cause.label, ""), _retryable(cause))

    def _table(self) -> None:
        for child in self.group.children.values():
            how = ", killed by the launcher" if child.killed else ""
            self.group.note(f"{child.label} ended with {child.code} after {child.seconds:.1f} s{how}")


def _retryable(child: Child) -> bool:
    return child.by_signal or child.code in RETRYABLE
