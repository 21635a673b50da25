"""Stopping: what asks a run to end early, heard at once and answered where no work is lost.

Owns SIGTERM, SIGINT and SIGHUP while a run is at work. Refuses to know checkpoints, peers and loops: the loop asks
`asked` between its compiled pieces, and whoever has work to keep says `hold()`.

    with Stopping(grace=25).listening() as stopping:
        ...                      # until hold(): the request is raised in the main thread, for nothing would be lost
        stopping.listen_again()  # TensorFlow's multi-worker runtime has put its own handler in the place of ours
        stopping.hold()          # from here on it waits in `stopping.request`

A Python handler only runs when the main thread is back in Python, which a compiled loop can delay for long, and
TensorFlow's multi-worker runtime puts a handler of its own in its place, which swallows SIGTERM
(tensorflow/core/distributed_runtime/preemption/preemption_notifier.cc). So where the process is ours alone, no handler
hears signals: all threads block them and one waits for them (sigwait), which no other handler can get before. It nudges
the main thread by a signal of its own, and ends the process where that doesn't answer in time.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from tfscale.console import end_process
from tfscale.errors import InternalError, Interrupted, Preempted, TfscaleError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NUDGE = getattr(signal, "SIGRTMIN", signal.SIGUSR2 - 5) + 5  # from the listening thread to the main one
_ANSWER_WITHIN = 1.0  # seconds that the main thread has to begin its end while there is nothing to keep
_SAME_SIGNAL = 0.5  # seconds between signals that count as one: `timeout` sends two, and some send a storm


class Stopping:
    """A request to stop, and how soon it must be obeyed.

    Args:
        grace: seconds from the request to the end of the process, whether or not the work could be kept.
        owns_process: whether this process is there for the run alone, so that it may be ended at once: by a second
            signal, or where the main thread does not answer. A notebook's is not. Such a process listens before it
            imports anything that starts threads: one that doesn't block the signals would take them away.
    """

    def __init__(self, *, grace: float = 25.0, owns_process: bool = False, now: Callable[[], float] = time.monotonic):
        self.grace, self.owns_process, self._now = grace, owns_process, now
        self.request: TfscaleError | None = None
        self.before_exit: list[Callable[[TfscaleError], None]] = []  # called where the process is ended at once
        self._holding = self._over = self._testing = self._heard = False
        self._asked_at: float | None = None
        self._heard_at: float | None = None  # the newest signal
        self._handlers: dict[int, object] = {}
        self._tested = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stopping]:
        """Hears signals while it is open; does nothing outside the main thread, where Python allows no handlers."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        heard = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]  # ignored as under nohup
        try:
            if self.owns_process:
                self._handlers[_NUDGE] = signal.signal(_NUDGE, self._on_nudge)
                signal.pthread_sigmask(signal.SIG_BLOCK, heard)  # for all threads that begin from here on, too
                threading.Thread(target=self._listen, args=(heard,), name="tfscale-signals", daemon=True).start()
            else:
                self._handlers = {signum: signal.signal(signum, self._on_signal) for signum in heard}
            yield self
        finally:
            self._over = True
            if self.owns_process and self.request is None:  # else the process is about to end, and no signal may
                signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)  # take its last line away
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def listen_again(self) -> None:
        """Puts the handlers back in their place where TensorFlow has replaced them, and proves that they are called.

        Raises:
            InternalError: a signal did not arrive.
        """
        for signum in () if self.owns_process else self._handlers:
            signal.signal(signum, self._on_signal)  # type: ignore[arg-type]
            self._testing, before = True, self._tested
            signal.raise_signal(signum)  # type: ignore[arg-type]
            self._testing = False
            if self._tested == before:
                raise InternalError(f"{signal.Signals(signum).name} does not reach this process", where="signals")

    def hold(self) -> None:
        """From here on there is work to keep: a request waits for the loop instead of being raised."""
        if self.request is not None and not self._holding:
            raise self.request
        self._holding = True

    def request_stop(self, error: TfscaleError) -> None:
        """Asks the run to stop for this reason, as a signal does; may be called from any thread."""
        if self.request is not None or self._over:
            return
        self.request, self._asked_at = error, self._now()
        if not self._holding and self._handlers:
            self._nudge(_NUDGE if self.owns_process else signal.SIGTERM)
        if self.owns_process:
            threading.Thread(target=self._keep_time, daemon=True).start()

    def take_notice(self, text: str) -> None:
        """Asks the run to stop because its machine is about to be taken away."""
        self.request_stop(
            Preempted(f"this machine is taken away ({text})", fix="run the same command again: it resumes")
        )

    @contextlib.contextmanager
    def as_request(self) -> Iterator[None]:
        """What the request was raised into may make another error of it: AutoGraph wraps what it meets while it traces,
        and pybind11 raises RuntimeError where an error of TensorFlow's was on its way. Here it is the request again.
        An error of ours stays what it is, unless the request is behind it."""
        try:
            yield
        except Exception as error:
            ours = isinstance(error, TfscaleError) and not self._is_behind(error)
            if not self._over or ours:  # it was never raised
                raise
            assert self.request is not None
            raise self.request from error

    def _is_behind(self, error: BaseException) -> bool:
        """Whether the error came while the request was on its way, so that Python has linked them."""
        link = error.__context__
        while link is not None and link is not self.request:
            link = link.__context__
        return link is not None

    @property
    def stop_requested(self) -> int:
        """0, or the number of the signal that the request stands for."""
        return 0 if self.request is None else self.request.exit_code - 128

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        """In the main thread, between two of its Python instructions."""
        if self._testing:
            self._tested += 1
            return
        first = self._note(signum)
        if self._holding and not first and not self.owns_process:
            raise KeyboardInterrupt  # asked twice, and nobody else would end it
        if not self._holding:
            self._over = True  # this thread ends the run from here on
            assert self.request is not None
            raise self.request

    def _note(self, signum: int) -> bool:
        """Takes the signal down; False if it is a second one: it comes after a pause, while a storm counts as one."""
        now, before = self._now(), self._heard_at
        self._heard_at = now
        if self.request is None:
            self.request, self._asked_at = error_of(signum), now
        return before is None or now < before + _SAME_SIGNAL

    def _nudge(self, signum: int) -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signum)  # a real one: it ends a sleep, too

    def _on_nudge(self, _signum: int, _: FrameType | None) -> None:
        """In the main thread, which ends the run where there is nothing to keep."""
        if self.request is not None and not self._holding and not self._over:
            self._over = True
            raise self.request

    def _listen(self, heard: list[signal.Signals]) -> None:
        """The thread that hears the signals."""
        while True:
            signum = signal.sigwait(heard)
            first, known = self._note(signum), self._heard
            self._heard = True
            if not first:
                self._end_now()
            if not known:
                if not self._holding and not self._over:
                    self._nudge(_NUDGE)
                threading.Thread(target=self._keep_time, daemon=True).start()

    def _keep_time(self) -> None:
        """Ends the process where the main thread does not."""
        assert self._asked_at is not None
        while not self._holding and not self._over:
            if self._now() > self._asked_at + _ANSWER_WITHIN:
                self._end_now()
            time.sleep(0.05)
        time.sleep(max(0.0, self._asked_at + self.grace - self._now()))
        self._end_now()

    def tell_before_exit(self, error: TfscaleError) -> None:
        """Lets everybody who asked for it know that the process is about to end at once with this error."""
        for tell in self.before_exit:
            with contextlib.suppress(Exception):
                tell(error)

    def _end_now(self) -> None:
        assert self.request is not None
        error = self.request
        end_process(error, *(functools.partial(tell, error) for tell in self.before_exit))


def error_of(signum: int, *, kept: str = "") -> TfscaleError:
    """The error that a run ends with after this signal; `kept` says what of its work is safe."""
    cls = Interrupted if signum == signal.SIGINT else Preempted
    name = signal.Signals(signum).name
    consequence = kept or "what was not in a checkpoint before is computed again"
    return cls(f"stopped by {name}; {consequence}", fix="run the same command again: it resumes")
