"""A job from its first process to its exit code: who may end how, who is started again, when all are.

Owns these rules. Refuses to know what the processes run: it sees exit codes.
"""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass

from tfscale.errors import KILLED, RETRYABLE, ClusterFault
from tfscale.hardware import memory_kills, probe
from tfscale.launch.children import Child
from tfscale.launch.process_group import Crew
from tfscale.launch.slots import Job, Place, places


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


def run_job(job: Job, crew: Crew) -> Outcome:
    """Runs all processes of a job, and all over again after a retryable end. Returns when the last has ended."""
    for attempt in range(job.max_restarts + 1):
        outcome = _Attempt(job, crew).run()
        if not outcome.retryable or attempt == job.max_restarts or crew.signum is not None:
            break
        crew.tell(f"restart {attempt + 1} of {job.max_restarts}: {outcome.cause} ended with {outcome.code}")
    return outcome


class _Attempt:
    """All processes of the job, once."""

    def __init__(self, job: Job, crew: Crew):
        self.job, self.crew = job, crew
        self.causes: list[Child] = []  # failures of the training
        self.running: set[Place] = set()
        self.restarts: Counter[Place] = Counter()
        self.training_ended = self.late = False
        self.memory_kills = memory_kills()  # before there was one of ours

    def run(self) -> Outcome:
        crew = self.crew
        try:
            with places(self.job, probe(environ=crew.environ), environ=crew.environ) as order:
                pass  # from here on the ports are free again
            for place in order:
                if crew.signum is None:
                    crew.start(place)
                    self.running.add(place)
            while self.running:
                crew.pump()
                for place in [place for place in order if place in self.running]:
                    child = crew.ended(place)
                    if child:
                        self.running.discard(place)
                        self._judge(place, child)
                self._keep_time()
            outcome = self._outcome(order)
            if outcome.code:
                self._table()
            return outcome
        finally:
            crew.clear()

    def _judge(self, place: Place, child: Child) -> None:
        """Decides what one process's end means for the others."""
        self._blame_memory(child)
        failed = bool(child.code) and not child.killed
        if place.role != "evaluator" and failed and not self._after_chief(place) and not self._replaced(place, child):
            self._tell_failure(child)
            self.causes.append(child)
            if self.crew.signum is None:  # else all were told to end, and writing a checkpoint takes its time
                self._limit(self.job.grace)
        if place.role == "chief" and self.job.ps:
            self._limit(self.job.ps_grace)
        if not self.training_ended and not self._training():
            self.training_ended = True
            patience = self.job.grace if self.crew.signum is not None else 0.0
            for evaluator in self._children("evaluator"):
                wait = self.job.evaluator_grace if self._trained_well() else patience
                evaluator.kill_at = self.crew.now() + wait

    def _replaced(self, place: Place, child: Child) -> bool:
        """Under parameter servers a lost worker is started again, or done without; False if the job must end."""
        if place.role != "worker" or not self.job.ps or not _retryable(child):
            return False
        if self.causes or self.crew.signum is not None:
            return False
        end = f"{place.label} ended with {child.code}"
        if self.restarts[place] < self.job.max_restarts:
            self.restarts[place] += 1
            self.crew.tell(f"{end}: it is started again ({self.restarts[place]} of {self.job.max_restarts})")
            self.crew.start(place)
            self.running.add(place)
            return True
        if any(other.role == "worker" for other in self.running):
            self.crew.tell(f"{end}: the job goes on without it")
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
        self.crew.error_lines.setdefault(child.label, f"tfscale: error[E-0137] {text} | memory | {fix}")
        self.crew.tell(f"{child.label} was {text}")

    def _after_chief(self, place: Place) -> bool:
        """Under parameter servers the chief's end is the training's; how the others end then is no failure."""
        return self.job.ps > 0 and place.role != "chief" and not self._children("chief")

    def _tell_failure(self, child: Child) -> None:
        others = self._training()
        if others and not self.causes and self.crew.signum is None:
            who = ", ".join(other.label for other in others)
            self.crew.note(f"{child.label} ended with {child.code}: {self.job.grace:g} s for {who} to end, too")

    def _training(self) -> list[Child]:
        return self._children("chief", "worker", "ps")

    def _children(self, *roles: str) -> list[Child]:
        """Those that still run."""
        return [child for place, child in self.crew.children.items() if place.role in roles and place in self.running]

    def _limit(self, seconds: float) -> None:
        """The training's processes must end within so many seconds, or sooner where that was said before."""
        at = self.crew.now() + seconds
        for child in self._training():
            child.kill_at = min(at, child.kill_at or at)

    def _keep_time(self) -> None:
        for place in self.running:
            child = self.crew.children[place]
            if child.kill_at is not None and self.crew.now() > child.kill_at and not child.killed:
                if place.role == "evaluator" and self._trained_well():
                    self.late = True
                    self.crew.tell(f"{place.label} is stopped: the training ended {self.job.evaluator_grace:g} s ago")
                child.kill()

    def _trained_well(self) -> bool:
        """Of the ended training: under parameter servers the chief speaks for all."""
        decisive = ("chief",) if self.job.ps else ("chief", "worker")
        codes = [child.code for place, child in self.crew.children.items() if place.role in decisive]
        return bool(codes) and not any(codes)

    def _outcome(self, order: list[Place]) -> Outcome:
        crew, signum = self.crew, self.crew.signum
        if len(crew.children) == len(order) and self._trained_well():
            evaluators = [child for place, child in crew.children.items() if place.role == "evaluator"]
            if not any(child.code for child in evaluators):
                return Outcome(0)
            if self.late:
                return Outcome(
                    ClusterFault.exit_code, evaluators[0].label, crew.error_lines.get(evaluators[0].label, "")
                )
            causes = [child for child in evaluators if not child.killed]
        else:
            causes = self.causes
        if not causes:  # a second signal killed all, or the first came before there was a process
            return Outcome(
                KILLED if any(c.killed for c in crew.children.values()) else 128 + (signum or signal.SIGTERM)
            )

        def rank(child: Child) -> tuple[int, float]:
            told = signum is not None and child.code == 128 + signum
            return (0 if child.code not in RETRYABLE else 1 if told else 2), child.ended

        cause = min(causes, key=rank)
        assert cause.code is not None
        return Outcome(cause.code, cause.label, crew.error_lines.get(cause.label, ""), _retryable(cause))

    def _table(self) -> None:
        for child in self.crew.children.values():
            how = ", killed by the launcher" if child.killed else ""
            self.crew.note(f"{child.label} ended with {child.code} after {child.seconds:.1f} s{how}")


def _retryable(child: Child) -> bool:
    return child.by_signal or child.code in RETRYABLE
